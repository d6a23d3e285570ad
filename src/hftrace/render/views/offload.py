"""Where the modules of a model were put and why, and what forward passes pay to bring offloaded ones in."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from hftrace import units
from hftrace.analysis.time.load_names import has_several, load_names
from hftrace.analysis.time.offloading import MovedModel, MovedModule, moved_models
from hftrace.analysis.time.placement import Attached, Placement, Written, offloadings, placements
from hftrace.render.session import place_words
from hftrace.render.tables import Column, Row, table
from hftrace.render.text import DIM, TIMES, Block, clean, heading, wrap
from hftrace.render.views.options import ViewOptions
from hftrace.schema.trace import Trace

MAX_MODULES = 12
"""Names of modules of one device that are written out."""


def draw(trace: Trace, options: ViewOptions) -> list[Block]:
    """Returns where each load put its model, what was offloaded afterwards, and the forward passes."""
    blocks = [_placement(trace, each) for each in placements(trace)]
    if offloadings(trace):
        blocks.append(_operations(trace))
    blocks += [_passes(trace, model) for model in moved_models(trace)]
    return blocks or [Block(lambda width: [heading("Offload", width), [(_nothing(width), DIM)]])]


def facts(trace: Trace, options: ViewOptions) -> dict[str, Any]:
    """Returns what the view draws as plain JSON values."""
    return {
        "placements": [each.to_json() for each in placements(trace)],
        "operations": [each.to_json() for each in offloadings(trace)],
        "passes": [each.to_json() for each in moved_models(trace)],
    }


def _nothing(width: int) -> str:
    return wrap("no device_map spread a model over devices, and no weights were offloaded", width)[0]


# -- where things went --------------------------------------------------------------------------------


def _placement(trace: Trace, placement: Placement) -> Block:
    columns = (
        Column("modules", most=400),
        Column("place", most=16),
        Column("limit", right=True, rank=1),
        Column("tensors", right=True, rank=2),
        Column("bytes", right=True),
    )
    rows = []
    for place in placement.places:
        names = [clean(name) for name in place.modules[:MAX_MODULES]]
        more = len(place.modules) - len(names)
        words = ", ".join(names) + (f" and {more:,} more" if more > 0 else "")
        limit = "-" if place.limit_bytes is None else units.byte_count(place.limit_bytes)
        rows.append(
            Row(
                (
                    words or "-",
                    clean(place.device),
                    limit,
                    "-" if place.tensors is None else f"{place.tensors:,}",
                    "-" if place.bytes is None else units.byte_count(place.bytes),
                )
            )
        )
    title = f"Placement of {clean(placement.name)}"
    if has_several(trace):
        number = next((each.number for each in load_names(trace) if each.span == placement.load), None)
        title += f", load {number}" if number is not None else ""
    return table(title, "", columns, rows, list(_remarks(placement)))


def _remarks(placement: Placement) -> Iterator[str]:
    asked = _asked_words(placement)
    if asked:
        yield asked
    if placement.largest_bytes and placement.computed:
        name = f", {clean(placement.largest_name)}" if placement.largest_name else ""
        first = next(
            (place.device for place in placement.places if place.device not in ("cpu", "disk")), None
        )
        where = f"{clean(first)} and cpu" if first else "cpu"
        yield (
            f"of the limit of {where} room is kept for the largest layer, "
            f"{units.byte_count(placement.largest_bytes)}{name}: it has to fit when it comes in"
        )
    yield from map(_written, placement.written)
    if placement.attached is not None:
        yield _attached(placement.attached)


def _asked_words(placement: Placement) -> str:
    if placement.asked is None and placement.asked_limits is None:
        return ""
    words = f"asked: device_map {_value(placement.asked)}"
    if placement.asked_limits:
        limits = ", ".join(
            f"{clean(device)}: {_value(size)}" for device, size in placement.asked_limits.items()
        )
        return f"{words}, max_memory {limits}"
    return words + ("; the limits were worked out of what was free" if placement.computed else "")


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return f"of {units.count(len(value), 'module')}"
    return units.byte_count(value) if type(value) is int else clean(value)


def _written(written: Written) -> str:
    where = f" to {clean(written.folder)}" if written.folder else ""
    return (
        f"{units.count(written.files, 'file')} of {units.byte_count(written.bytes)} written{where}, "
        f"{units.duration(written.duration_ns)}"
    )


def _attached(attached: Attached) -> str:
    if not attached.hooks:
        return "no hooks were attached: all is on one device"
    return (
        f"hooks around {units.count(attached.hooks, 'module')}, "
        f"of which {attached.offloaded:,} bring their weights in for each call"
    )


def _operations(trace: Trace) -> Block:
    columns = (
        Column("offloaded after its load", most=200),
        Column("written", right=True, rank=1),
        Column("hooks", right=True, rank=2),
        Column("took", right=True),
    )
    rows = []
    for each in offloadings(trace):
        where = f"  {place_words(each.caller)}" if each.caller else ""
        written, attached = each.written, each.attached
        files = units.count(sum(part.files for part in written), "file")
        size = f"{files}, {units.byte_count(sum(part.bytes for part in written))}" if written else "-"
        hooks = f"{attached.hooks:,}" if attached else "-"
        rows.append(Row((clean(each.name) + where, size, hooks, units.duration(each.duration_ns))))
    return table("Operations", "", columns, rows)


# -- what is paid -------------------------------------------------------------------------------------


def _passes(trace: Trace, model: MovedModel) -> Block:
    columns = (
        Column("module", most=120, least=36),
        Column("class", most=28, rank=4),
        Column("tensors", right=True, rank=1),
        Column("bytes", right=True),
        Column("from", most=12, rank=3),
        Column("in", right=True),
        Column("out", right=True),
    )
    rows = []
    for layers, group in itertools.groupby(model.modules, lambda module: module.layers):
        members = list(group)
        together = bool(layers) and len(members) > 1
        if together:
            label = f"{clean(layers)} {TIMES} {units.count(len(members), 'module')}"
            rows.append(Row((label, "", *_figures(members))))
        for module in members:
            alone = ".".join(filter(None, (layers, module.name)))
            name = clean(f"  {module.name or 'the layer itself'}" if together else alone)
            rows.append(Row((name, clean(module.kind or ""), *_figures([module]))))
    title = f"Forward passes of {clean(model.name)}"
    if model.number is not None and has_several(trace):
        title += f", load {model.number}"
    return table(title, "what comes in and goes out, by pass", columns, rows, list(_pass_remarks(model)))


def _figures(modules: Sequence[MovedModule]) -> tuple[str, ...]:
    disk, memory = (
        sum(each) for each in zip(*((one.disk_bytes, one.memory_bytes) for one in modules), strict=True)
    )
    return (
        f"{sum(module.tensors for module in modules):,}",
        units.byte_count(disk + memory),
        "disk" if not memory else "memory" if not disk else "both",
        units.duration(sum(module.by_pass(module.in_ns) for module in modules)),
        units.duration(sum(module.by_pass(module.out_ns) for module in modules)),
    )


def _pass_remarks(model: MovedModel) -> Iterator[str]:
    runs = model.passes + model.unfinished
    moving = model.in_ns + model.out_ns
    sizes = [
        f"{units.byte_count(size)} from {place}"
        for place, size in (("files", model.disk_bytes), ("memory", model.memory_bytes))
        if size
    ]
    text = f"{units.count(runs, 'pass', 'passes')}, computed on {clean(model.device)}: "
    text += f"{' and '.join(sizes)} each"
    if model.passes and not model.unfinished:
        text += (
            f"; the hooks took {units.duration(moving)} of {units.duration(model.pass_ns)} "
            f"({units.share(moving / model.pass_ns if model.pass_ns else None)})"
        )
    else:
        text += f"; the hooks took {units.duration(moving)}, and an exception left {model.unfinished:,}"
    yield text
    if model.mapped:
        yield (
            "on the CPU these are maps of the files, not copies: what a layer waits for while it computes "
            "with them is in no time here"
        )
    if model.left_out:
        yield f"{units.count(model.left_out, 'more module')} that took less time: not recorded by name"
