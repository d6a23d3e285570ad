"""Tensors that a load ended for because the model has another shape for them than the checkpoint.

5.x hands its report over, with both shapes. Before that an exception of torch's ``load_state_dict`` is all
there is; its words (``torch/nn/modules/module.py``, the same since 0.4) are read back here. In 4.51 to 4.57
the name in it is that inside of one module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from hftrace.replay.reader import OpenedSpan, Process
from hftrace.schema.model import Tensor

_SIZE = r"torch\.Size\(\[([\d, ]*)\]\)"
_REFUSED = re.compile(
    rf"size mismatch for ([^\s:]{{1,500}}): copying a param with shape {_SIZE} from checkpoint, "
    rf"the shape in current model is {_SIZE}"
)
MAX_SHAPE_DIGITS = 18


class Mismatch(NamedTuple):
    """One tensor whose shapes differ."""

    name: str
    stored: list[int]
    model: list[int]


def mismatches(attributes: Iterable[dict[str, Any]], messages: Iterable[str]) -> list[Mismatch]:
    """Returns what is known of shapes that differ, each tensor once.

    Args:
        attributes: Of the spans of a load.
        messages: Of the exceptions that it ended with.
    """
    found: dict[str, Mismatch] = {}
    for facts in attributes:
        for entry in facts.get("mismatched_shapes") or ():
            if isinstance(entry, (list, tuple)) and len(entry) == 3:
                found.setdefault(str(entry[0]), Mismatch(str(entry[0]), list(entry[1]), list(entry[2])))
    for message in messages:
        for name, stored, model in _REFUSED.findall(message):
            found.setdefault(name, Mismatch(name, _shape(stored), _shape(model)))
    return list(found.values())


def _shape(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part.strip() and len(part) <= MAX_SHAPE_DIGITS]


def row_of(mismatch: Mismatch, rows: Sequence[Tensor]) -> int | None:
    """Returns which row of an unfinished load's ledger a tensor is; None where that cannot be told."""
    name = mismatch.name
    exact = [at for at, row in enumerate(rows) if name == row.name or name in row.keys]
    if exact:
        return exact[0]
    alike = [
        at
        for at, row in enumerate(rows)
        if row.stored_shape == mismatch.stored
        and any(
            _is_below(key, name) or _is_below(name, key) or _is_of_adapter(key, name)
            for key in (row.name, *row.keys)
            if key
        )
    ]
    # What was put into the module last is what did not fit: the load ended there.
    placed = [at for at in alike if rows[at].placed_ns is not None]
    if placed:
        return max(placed, key=lambda at: rows[at].placed_ns or 0)
    return alike[0] if len(alike) == 1 else None


def _is_below(name: str, part: str) -> bool:
    return name.endswith(f".{part}")


def _is_of_adapter(key: str, name: str) -> bool:
    """Returns whether a name is a key's but for the name of an adapter, which PEFT puts into it."""
    parts, longer = key.split("."), name.split(".")
    return len(longer) == len(parts) + 1 and any(
        longer[:at] + longer[at + 1 :] == parts for at in range(len(longer))
    )


MAX_SAME = 500
"""Messages that begin with the same so many characters are one."""


def messages(process: Process) -> list[str]:
    """Returns what the exceptions said that left the loads, at length."""
    errors = (fact.get("error") for fact in process.facts.get("outcome", []))
    return [str(error.get("message")) for error in errors if isinstance(error, dict)]


def errors_of(load: OpenedSpan, said: list[str]) -> list[str]:
    """Returns what the exception said that left a load: by its span, and by the outcome, which has more."""
    if "error" not in load.attributes:
        return []
    own = str(load.attributes["error"])
    return [own, *(message for message in said if message and message[:MAX_SAME] in own)]
