"""What forward passes pay for weights that are offloaded: brought in by a hook, and taken out again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.ledger.tensors import fold_alike, take
from hftrace.analysis.model_loads import model_loads
from hftrace.analysis.once import once
from hftrace.analysis.time.load_names import LoadTrace, load_names
from hftrace.analysis.time.placement import offloadings, placements
from hftrace.analysis.values import natural, text
from hftrace.schema.trace import Trace


class Moves(NamedTuple):
    """What the passes of one span have moved."""

    passes: int
    pass_ns: int
    in_ns: int
    """In the hooks before ``forward`` of offloaded modules."""
    out_ns: int
    """In those behind it."""
    disk_tensors: int
    disk_bytes: int
    memory_tensors: int
    memory_bytes: int

    @property
    def tensors(self) -> int:
        """Tensors that came in, each as often as it did."""
        return self.disk_tensors + self.memory_tensors

    @property
    def bytes(self) -> int:
        """Their bytes."""
        return self.disk_bytes + self.memory_bytes


def moves_of(attributes: Mapping[str, Any]) -> Moves | None:
    """Returns what a span says that was moved in it; None where nothing was."""
    noted = attributes.get("moves")
    if not isinstance(noted, Mapping):
        return None
    found = Moves(*(natural(noted.get(name)) or 0 for name in Moves._fields))
    return found if found.passes else None


def sum_of_moves(noted: Iterable[Mapping[str, Any]]) -> dict[str, int] | None:
    """Returns the sum of what several spans say, as one of them would; None where none does."""
    found = [moves for each in noted if (moves := moves_of(each)) is not None]
    if not found:
        return None
    return {name: sum(getattr(each, name) for each in found) for name in Moves._fields}


class MovedModule(NamedTuple):
    """An offloaded module, or the same one of several layers."""

    layers: str
    """What these layers are called, with their numbers; empty for a module that is in none."""
    name: str
    """Its name in its layer, or in the model."""
    kind: str | None
    """Its class."""
    modules: int
    calls: int
    tensors: int
    """That came in with one pass."""
    disk_bytes: int
    """With one pass, from files."""
    memory_bytes: int
    """The same from memory."""
    in_ns: int
    """Of all calls."""
    out_ns: int

    def by_pass(self, spent: int) -> int:
        """Returns the part of a time of all calls that one pass has, in which each module is called once."""
        return spent * self.modules // self.calls if self.calls else 0


class MovedModel(NamedTuple):
    """A model whose weights come in for each forward pass."""

    name: str
    number: int | None
    """The place of its load among the session's; None where it is from none of them."""
    device: str | None
    """Where its modules compute."""
    passes: int
    pass_ns: int
    unfinished: int
    """Passes that an exception has left."""
    in_ns: int
    out_ns: int
    disk_bytes: int
    """By pass."""
    memory_bytes: int
    modules: Sequence[MovedModule]
    left_out: int
    """Modules that are not among these."""
    mapped: bool
    """Whether what comes from files is a map of their pages, and no copy."""

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        return {**self.__dict__, "modules": [module._asdict() for module in self.modules]}


@once
def moved_models(trace: Trace) -> list[MovedModel]:
    """Returns the models of which forward passes were seen to bring in weights."""
    noted = trace.header.get("moves")
    numbers = {name.span: name.number for name in load_names(trace)}
    found = []
    for each in filter(None, noted if isinstance(noted, list) else ()):
        rows = [row for row in each.get("modules") or () if _is_row(row)]
        passes = (natural(each.get("passes")) or 0) + (natural(each.get("unfinished")) or 0)
        if not rows or not passes:
            continue
        load, device = natural(each.get("load")), text(each.get("device"))
        if isinstance(trace, LoadTrace) and load not in numbers:
            continue
        found.append(
            MovedModel(
                name=text(each.get("class")) or "model",
                number=numbers.get(load) if load is not None else None,
                device=device,
                passes=natural(each.get("passes")) or 0,
                pass_ns=natural(each.get("pass_ns")) or 0,
                unfinished=natural(each.get("unfinished")) or 0,
                in_ns=sum(row[3] for row in rows),
                out_ns=sum(row[4] for row in rows),
                disk_bytes=sum(_by_call(row, 6) for row in rows),
                memory_bytes=sum(_by_call(row, 8) for row in rows),
                modules=_folded(rows),
                left_out=natural(each.get("left_out")) or 0,
                mapped=device == "cpu" and load is not None and _are_mapped(trace, load),
            )
        )
    return found


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, list)
        and len(row) == 9
        and all(isinstance(value, str) for value in row[:2])
        and all(natural(value) is not None for value in row[2:])
    )


def _by_call(row: list[Any], at: int) -> int:
    return row[at] // row[2] if row[2] else 0


def _folded(rows: list[list[Any]]) -> list[MovedModule]:
    """Returns modules with those of layers that are alike as one, by layers, most time first."""
    rows = sorted(row for row in rows if row[5] or row[7])
    alike = [(row[1], *(_by_call(row, at) for at in (5, 6, 7, 8))) for row in rows]
    groups = []
    for group in fold_alike(range(len(rows)), [row[0] for row in rows], alike):
        if not group.indexes:
            groups.append([_sum("", group.prefix or "the model itself", [rows[at] for at in group.rows])])
            continue
        by_name: dict[str, list[list[Any]]] = {}
        for at in group.rows:
            # The prefix ends before the layer's number.
            by_name.setdefault(rows[at][0][len(group.prefix) :].partition(".")[2], []).append(rows[at])
        groups.append([_sum(group.label, name, same) for name, same in by_name.items()])
    groups.sort(key=lambda modules: -sum(map(_time, modules)))
    return [module for modules in groups for module in sorted(modules, key=_time, reverse=True)]


def _time(module: MovedModule) -> int:
    return module.in_ns + module.out_ns


def _sum(layers: str, name: str, rows: list[list[Any]]) -> MovedModule:
    """Returns the sums of rows that one line stands for."""
    return MovedModule(
        layers,
        name,
        rows[0][1],
        len(rows),
        sum(row[2] for row in rows),
        sum(_by_call(row, 5) + _by_call(row, 7) for row in rows),
        sum(_by_call(row, 6) for row in rows),
        sum(_by_call(row, 8) for row in rows),
        sum(row[3] for row in rows),
        sum(row[4] for row in rows),
    )


def _are_mapped(trace: Trace, load: int) -> bool:
    """Returns whether all that a load left on disk is in safetensors files, in the dtype that the model has.

    A tensor of such a file is a map for a model on the CPU. accelerate's own files are copied, and what
    has another dtype in the file is cast.
    """
    placed = next((each for each in placements(trace) if each.load == load), None)
    if placed is None or offloadings(trace):
        return False
    if any(written.format != "safetensors" for written in placed.written):
        return False
    trace = as_loaded(trace)
    rows = next((each.rows for each in model_loads(trace) if each.span == load), ())
    columns = [
        take(trace.tensors.column(name), rows)
        for name in ("offload", "file", "keys", "stored_dtype", "dtype")
    ]
    found = [row for row in zip(*columns, strict=True) if row[0] == "disk"]
    return bool(found) and all(
        stored == dtype
        if file is not None and file.endswith(".safetensors") and len(keys) == 1
        else bool(placed.written)  # as the model has it
        for _, file, keys, stored, dtype in found
    )
