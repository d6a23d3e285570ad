"""What a checkpoint of a model holds, by the installed transformers: names, shapes and dtypes, no values.

Run as ``python bootstrap.py load - hftrace.record.child.blueprint`` with a question on standard input. The
model is built on the meta device. Names are those that this version's ``save_pretrained`` would write: what
it converts while it loads is converted back.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from hftrace.record.child.load import LAST, PREFERRED
from hftrace.record.child.shrinking import levels

FLOAT = "float"
"""Stands for every dtype of floats: which one it is stored in is not the model's to say."""


class BlueprintError(Exception):
    """Something that cannot be built, in a sentence."""


def main(directory: str) -> int:
    """Answers the question on standard input with a JSON object; returns the exit code."""
    question = json.load(sys.stdin)
    out, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no part of the answer
    try:
        answer = blueprint(question)
    except BlueprintError as error:
        answer = {"problem": str(error)}
    json.dump(answer, out)
    return 0


def blueprint(question: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a checkpoint holds.

    Args:
        question: ``config`` (the content of a config.json) or ``model_type``, and ``most_bytes``: what all
            floats may take at ``float_bytes`` each; None for the size of the config.

    Raises:
        BlueprintError: The model is not known, or cannot be built.
    """
    import transformers

    transformers.utils.logging.set_verbosity_error()
    asked = question.get("config") or _default_config(str(question.get("model_type")))
    most, each = question.get("most_bytes"), int(question.get("float_bytes") or 2)
    smallest: dict[str, Any] | None = None
    problem = ""
    for raw in levels(asked) if most is not None else [asked]:
        try:
            made = _built(raw)
        except BlueprintError:
            raise
        except Exception as error:
            problem = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            continue
        smallest = made
        if most is None or made["elements"] * each <= most:
            break
    if smallest is None:
        raise BlueprintError(f"transformers {transformers.__version__} cannot build this model ({problem})")
    return {**smallest, "asked": asked, "transformers": transformers.__version__}


def _default_config(model_type: str) -> dict[str, Any]:
    """Returns the config that a model type has by itself."""
    auto = importlib.import_module("transformers.models.auto.configuration_auto")
    if model_type not in auto.CONFIG_MAPPING_NAMES:
        raise BlueprintError(f"this transformers knows no model type {model_type!r}")
    try:
        config = auto.CONFIG_MAPPING[model_type]()
    except Exception as error:
        raise BlueprintError(
            f"{model_type} has no config of its own ({type(error).__name__}: {error}): give one with --config"
        ) from None
    found: dict[str, Any] = config.to_dict()
    found["model_type"] = model_type
    return json.loads(json.dumps(found, default=str))  # type: ignore[no-any-return]


def _built(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Builds a model of a config, and returns what it holds."""
    import torch

    auto = importlib.import_module("transformers.models.auto.configuration_auto")
    model_type = str(raw.get("model_type"))
    if model_type not in auto.CONFIG_MAPPING_NAMES:
        raise BlueprintError(f"this transformers knows no model type {model_type!r}")
    config = auto.CONFIG_MAPPING[model_type].from_dict({**raw})
    model: Any = None
    first: Exception | None = None
    for owner in _classes_for(raw, model_type):
        config.architectures = [owner.__name__]
        try:
            with torch.device("meta"):
                model = owner(config)
            break
        except Exception as error:  # one of a part of the model takes the part's config
            first = first or error
    else:
        if first is None:
            raise BlueprintError(f"this transformers has no model class for {model_type}")
        raise first
    model.tie_weights()
    tensors = dict(_as_saved(model))
    rows = [
        [name, list(tensor.shape), FLOAT if tensor.is_floating_point() else str(tensor.dtype)[6:]]
        for name, tensor in tensors.items()
    ]
    parameters = {id(each): each.numel() for each in model.parameters()}
    return {
        "config": json.loads(config.to_json_string()),
        "class": type(model).__name__,
        "tensors": rows,
        "elements": sum(tensor.numel() for tensor in tensors.values() if tensor.is_floating_point()),
        "parameters": sum(parameters.values()),
    }


def _classes_for(raw: Mapping[str, Any], model_type: str) -> Iterator[Any]:
    """Yields the model's classes: what the config names, else those in the tables of the auto classes."""
    import transformers

    named = [getattr(transformers, str(name), None) for name in raw.get("architectures") or []]
    if any(named):
        yield next(filter(None, named))
        return
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    others = [name for name in vars(auto) if name.startswith("AutoModelFor") and name not in PREFERRED]
    seen = set()
    for name in (*PREFERRED, *others, *LAST):
        mapping = getattr(getattr(vars(auto).get(name), "_model_mapping", None), "_model_mapping", None) or {}
        entry = mapping.get(model_type)
        for candidate in entry if isinstance(entry, (tuple, list)) else [entry]:
            owner = getattr(transformers, candidate, None) if candidate else None
            if owner is not None and candidate not in seen:
                seen.add(candidate)
                yield owner


def _as_saved(model: Any) -> Iterator[tuple[str, Any]]:
    """Yields what ``save_pretrained`` would write: tied tensors once, by the names of the checkpoint."""
    state = model.state_dict(keep_vars=True)
    for name in getattr(model, "_keys_to_ignore_on_save", None) or ():
        state.pop(name, None)
    modeling = sys.modules["transformers.modeling_utils"]
    collect = getattr(modeling, "_get_tied_weight_keys", None)
    tied = collect(model) if collect is not None else getattr(model, "_tied_weights_keys", None)
    patterns = list(tied or ())
    groups: dict[int, list[str]] = {}
    for name, tensor in state.items():
        groups.setdefault(id(tensor), []).append(name)
    kept = {}
    for names in groups.values():
        declared = [name for name in names if any(re.search(pattern, name) for pattern in patterns)]
        own = [name for name in names if name not in declared] or names
        kept[own[0]] = state[own[0]].detach()
    core = sys.modules.get("transformers.core_model_loading")
    revert = getattr(core, "revert_weight_conversion", None)
    saved: dict[str, Any] = revert(model, kept) if revert is not None else kept
    yield from saved.items()
