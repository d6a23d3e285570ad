"""What became of the tensors of a model after their load, as provenance and evidence.

The words are those of :mod:`hftrace.record.identity`, which says what each means.
"""

from __future__ import annotations

from collections.abc import Collection

from hftrace.schema import lines
from hftrace.schema.model import Table, Tensor

SAME, MADE, COPIED, CAST, WRITTEN, REPLACED = "", "made", "copied", "cast", "written", "replaced"
OWN = "own"
"""What may have become of a tensor since its load; :mod:`hftrace.record.identity` says what each means."""
NOW = {
    "computed": ("computed", "changed_after_load"),
    "state_dict": ("state_dict", "load_state_dict"),
    "initialized": ("initialized", "initializer"),
    "blank": ("uninitialized", "emptied"),
    WRITTEN: ("unknown", "written_in_place"),
    REPLACED: ("unknown", "replaced"),
    "before": ("unknown", "before_trace"),
    OWN: ("unknown", "own"),
}
"""By what became of a tensor: its provenance and evidence now."""
COMPUTED_BY = {
    "adapter initialisation": "adapter",
    "optimizer": "trained",
    "optimizer after load_state_dict": "trained",
    "resize_token_embeddings": "resized",
    "unload_and_optionally_merge": "merged",
    "merge_adapter": "merged",
    "unmerge_adapter": "merged",
}
"""Better words of evidence, by the function that computed a tensor anew."""
FROM_ITS_SOURCE = (
    "keys", "file", "files", "offset", "stored_dtype", "stored_shape", "stored_bytes", "read_start_ns",
    "read_end_ns", "placed_ns", "thread", "span", "convert_start_ns", "convert_end_ns",
    "operations", "asked_ns",
)  # fmt: skip
"""Columns that say where a tensor's values came from, and no longer hold once they are others."""
WHOLE_MODULES = ("modules_to_save", "original_module", "token_adapter", "prompt_encoder", "base_layer")
"""Parts of names of what PEFT keeps beside an adapter's own tensors."""
FORGETS_ITS_SOURCE = frozenset({"state_dict", "blank", REPLACED, "before"})
"""After these nothing of what was loaded is left; after others the values were made of what was."""
AFTER_STATE_DICT = " after load_state_dict"
"""What the function's name ends in where the values that it began with were not the load's any more."""
WIDER = {
    "bfloat16": {"float32", "float64"},
    "float16": {"float32", "float64"},
    "float32": {"float64"},
}
"""By dtype: those that can hold each of its values."""


def apply_changes(
    table: Table[Tensor], origins: list[lines.KnownAs], adapter_prefixes: Collection[str] = ()
) -> None:
    """Puts down what became of each tensor after its load.

    Args:
        table: The ledger's rows as the loads know the tensors; its columns are changed.
        origins: For each row, where its tensor comes from.
        adapter_prefixes: What the names of tensors have in them that are in adapters' files, by the kind
            of adapter; empty where it is not known.
    """
    saved = (*adapter_prefixes, *WHOLE_MODULES) if adapter_prefixes and all(adapter_prefixes) else ("",)
    provenance, evidence, keys, devices, stored, dtypes, kinds, ties = (
        table.column(name)
        for name in (
            "provenance", "evidence", "keys", "device", "stored_dtype", "dtype", "kind", "tied_to"
        )
    )  # fmt: skip
    sources = [(name, table.column(name)) for name in FROM_ITS_SOURCE]
    for at, origin in enumerate(origins):
        word, _, detail = origin.change.partition(":")
        if word == SAME or devices[at] == "meta" or provenance[at] == "tied":
            continue  # what became of a tied tensor is said of the one that it is tied to
        if word == COPIED:
            evidence[at] = "copied"
        elif word == MADE:
            if not keys[at]:
                kept = any(part in origin.known_as for part in saved)
                made_by = ("adapter" if kept else "expected") if origin.load else "new_adapter"
                # A buffer of an adapter, such as places or rows of the base, is what its code has computed.
                provenance[at] = "initialized" if kinds[at] == "parameter" else "computed"
                evidence[at] = made_by
        elif word == CAST:
            if stored[at] is not None and _loses(stored[at], detail.split(","), dtypes[at]):
                provenance[at], evidence[at] = "computed", "cast_through"
            elif evidence[at] in ("placed", "dequantized"):
                evidence[at] = "cast"
        elif word in NOW:
            provenance[at], evidence[at] = NOW[word]
            evidence[at] = COMPUTED_BY.get(detail, evidence[at])
            # Of another shape now, the row found no key that fits.
            forgets = word in FORGETS_ITS_SOURCE or detail.endswith(AFTER_STATE_DICT) or not keys[at]
            for name, column in sources if forgets else ():
                column[at] = [] if name == "keys" else None
            if word == REPLACED:
                ties[at] = None  # of its own now; what is one with another is said by those who look
            if word == "state_dict":
                keys[at] = [detail]


def _loses(stored: str, through: list[str], dtype: str) -> bool:
    """Returns whether a tensor has lost on its way what one cast would have kept."""
    return any(
        between != dtype and between != stored and between not in WIDER.get(stored, ()) for between in through
    )
