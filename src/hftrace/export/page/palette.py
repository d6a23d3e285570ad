"""Which colour a phase has: phases of one sort share one, and their words tell them apart."""

from __future__ import annotations

FAMILIES: dict[str, tuple[str, ...]] = {
    "import": ("import",),
    "find": ("config", "resolve", "generation_config", "tokenizer", "processor", "tokenize"),
    "fetch": ("download", "mesh"),
    "build": ("instantiate", "initialize", "device_map", "warmup"),
    "read": ("weights", "shard", "prefetch", "touch"),
    "change": ("convert", "quantizer", "quantize"),
    "move": ("offload", "dispatch"),
    "wait": ("wait", "collect"),
    "finish": ("tie", "finalize", "adapter", "surgery", "save"),
    "use": ("forward", "generate", "prefill", "decode"),
    "check": ("verify", "stats"),
    "step": ("step",),
    "other": ("load", "release", "unattributed", "outside", "hftrace", "unrecorded"),
}
"""The phases of each colour, which the style sheet names: ``--read``."""
_FAMILY = {phase: family for family, phases in FAMILIES.items() for phase in phases}


def family(phase: str | None) -> str:
    """Returns the sort of a phase; that of all others for one that is not known."""
    return _FAMILY.get(phase or "", "other")
