"""What findings about weights have to know of adapters and keywords: whose is what, and what mends it."""

from __future__ import annotations

from hftrace.analysis.model_loads import model_loads
from hftrace.analysis.once import once
from hftrace.schema.trace import Trace

ORIGINAL, SAVED = ".original_module.", ".modules_to_save."
"""Below the name of a module that PEFT trains whole: the model's own, and the adapter's copy of it."""
FOR_WHICH = (
    "put the adapter into the model that it was made for: base_model_name_or_path in adapter_config.json"
)

_SHOWN = ("output_", "return_", "use_cache", "num_labels")
"""How names of keywords begin that give a model no tensor that it had not without them."""


def mend(trace: Trace, of_a_model: str, of_an_adapter: str) -> str:
    """Returns what to do about weights of a load: an adapter's folder has no model's config."""
    return of_an_adapter if trace.request.get("what") == "adapter" else of_a_model


def config_changes(trace: Trace) -> str:
    """Returns the keywords that changed the config of a load, and with it what the model is made of."""
    found = (
        f"{name}={value}"
        for load in model_loads(trace)
        for name, value in load.keywords.items()
        if load.uses.get(name) == "config" and isinstance(value, (bool, int)) and not name.startswith(_SHOWN)
    )
    return ", ".join(dict.fromkeys(found))


@once
def set_aside(trace: Trace) -> list[int]:
    """Returns the rows of a model's own modules that are not used: an adapter's, of its file, are."""
    names, keys, loads = (trace.tensors.column(name) for name in ("name", "keys", "load"))
    saved: set[tuple[int | None, str, str]] = set()
    for name, own, load in zip(names, keys, loads, strict=True):
        if own and name and SAVED in name:
            # When the model's own load returned, nothing stood around it: its names were shorter.
            parts = name.partition(SAVED)[0].split(".")
            saved |= {(load, ".".join(parts[at:]), name.rpartition(".")[2]) for at in range(len(parts))}
    found = []
    for row, (name, load) in enumerate(zip(names, loads, strict=True) if saved else ()):
        module, _, leaf = (name or "").replace(ORIGINAL, ".").rpartition(".")
        if (load, module, leaf) in saved:
            found.append(row)
    return found
