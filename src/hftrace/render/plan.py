"""The screen of ``hftrace plan``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hftrace import units
from hftrace.render.text import (
    BAD,
    DIM,
    GOOD,
    PLAIN,
    STRONG,
    WARN,
    Block,
    Line,
    clean,
    heading,
    line_width,
    notes,
    wrap,
)

MAX_PLACES = 20
"""Rows of a device map that are shown; --json has all."""
WAYS = {
    "mapped": "stay in the pages of their files, and are read when they are first used",
    "copied": "copied as they are",
    "cast": "cast to another dtype",
    "converted": "converted: several tensors of the files become one, or one becomes others",
    "quantised": "quantised",
    "initialised": "not in the files: initialised at random",
    "offloaded": "offloaded",
    "unknown": "made by code that a plan does not see",
    "meta": "left on the meta device",
}
FIGURES = {
    "peak_anon_bytes": "peak, anonymous",
    "peak_total_bytes": "peak, total",
    "bytes_by_dtype": "weights in",
    "bytes_by_device": "weights on",
    "peak_device_bytes": "peak on",
}
"""What is planned and measured, by its key."""
LABEL = 18
TITLE_WIDTH = 200
"""Columns in which one line is laid out that stands alone."""


def plan_block(plan: Mapping[str, Any], model: str) -> Block:
    """Returns the screen of a plan.

    Args:
        plan: As :func:`hftrace.analysis.plan.plans.plan_facts` gives it, with ``change`` and ``against``.
        model: What the user called it.
    """
    return Block(lambda width: _lines(plan, model, width))


def verdict_words(plan: Mapping[str, Any]) -> str:
    """Returns whether a load fits, in one line."""
    if not plan["known"]:
        return f"no plan: {plan['unknown_because']}"
    lines = ["".join(text for text, _ in line).strip() for line in _verdict(plan, TITLE_WIDTH)]
    if plan["fits"] is False:
        return " ".join(lines[: 1 + len(plan["short_bytes"])])
    return lines[0]


def _lines(plan: Mapping[str, Any], model: str, width: int) -> Iterable[Line]:
    versions = plan.get("versions") or {}
    version = versions.get("transformers")
    yield heading(f"Plan of {model}", width, f"transformers {version}" if version else "")
    if not plan["known"]:
        yield from notes([f"No plan: {plan['unknown_because']}"], width, "  ")
        return
    yield [(_label("Model"), DIM), (f"{plan['class']}, {plan['parameters']:,} parameters", STRONG)]
    yield [(_label("By dtype"), DIM), (_sizes(plan["bytes_by_dtype"]), PLAIN)]
    yield [(_label("By device"), DIM), (_sizes(plan["bytes_by_device"]), PLAIN)]
    for way, row in sorted(plan["tensors"].items(), key=lambda item: -item[1]["bytes"]):
        count = units.count(row["count"], "tensor")
        text = f"{count}, {units.byte_count(row['bytes'])}: {WAYS.get(way, way)}"
        for at, line in enumerate(wrap(text, max(20, width - LABEL - 2))):
            yield [(_label("" if at else "Weights"), DIM), (line, PLAIN)]
    if plan["tied"]:
        yield [
            (_label("Tied"), DIM),
            (f"{units.count(len(plan['tied']), 'name')} of the same weights", PLAIN),
        ]
    places = plan["device_map"] or {}
    if len(set(places.values())) > 1:
        yield []
        yield heading("Device map", width)
        for name, place in list(places.items())[:MAX_PLACES]:
            yield [(f"  {place:<8} ", DIM), (name or "(all)", PLAIN)]
        if len(places) > MAX_PLACES:
            yield [(f"  and {len(places) - MAX_PLACES} more: --json has them", DIM)]
    yield []
    yield heading("Memory of the process", width)
    yield from _memory(plan, width)
    yield []
    yield from _verdict(plan, width)
    if plan.get("against"):
        yield []
        yield heading("Planned and measured", width)
        yield from _differs(plan.get("against_differs") or (), width)
        yield from _against(plan["against"])


def _memory(plan: Mapping[str, Any], width: int) -> Iterable[Line]:
    phases = plan["peak_phases"] or {}

    def when(name: str) -> str:
        return f"in {phases[name]}" if name in phases else ""

    yield _figure("before the load", plan["start_anon_bytes"], f"anonymous; {_total(plan, 'start')}")
    doubt, bounded = plan["peak_unknown_because"], plan["peak_anon_at_most_bytes"] is not None
    if doubt:
        said = "lies between two bounds" if bounded else "is unknown"
        yield from notes([f"The peak {said}: {doubt}"], width, "  ")
    for kind, label, more in (
        ("anon", "peak, anonymous", ""),
        ("total", "peak, total", ", pages of files included"),
    ):
        bound = "at least; " if doubt else ""
        if doubt and bounded:
            bound = f"to {units.byte_count(plan[f'peak_{kind}_at_most_bytes'])}; "
        note = f"{bound}{when(kind)}"
        line = _figure(label, plan[f"peak_{kind}_at_least_bytes"], note + more)
        if more and line_width(line) > width:
            line = _figure(label, plan[f"peak_{kind}_at_least_bytes"], f"{note}, with files")
        yield line
    yield _figure("after the load", plan["end_anon_bytes"], f"anonymous; {_total(plan, 'end')}")
    if plan["unread_bytes"]:
        yield _figure("read on first use", plan["unread_bytes"], "of the weight files")
    if plan["offload_written_bytes"]:
        yield _figure("written to disk", plan["offload_written_bytes"], "in the offload folder")
    for name, value in sorted((plan["peak_device_bytes"] or {}).items()):
        yield _figure(f"{name}, peak", value, "of tensors; the device's own context comes on top")
    if plan["cache_bytes"] is not None:
        yield _figure("cache", plan["cache_bytes"], "for the context that was asked for")
    elif plan["cache_unknown_because"]:
        yield from notes([f"The cache is unknown: {plan['cache_unknown_because']}"], width, "  ")


def _verdict(plan: Mapping[str, Any], width: int) -> Iterable[Line]:
    limit = plan["limits"]["cpu"]
    if plan["fits"] is None:
        why = "there is no limit to hold it against"
        if plan["peak_unknown_because"] or plan["cache_unknown_because"]:
            why = "the peak is not" if plan["peak_unknown_because"] else "the cache is not"
            if plan["needs_at_most"] and not plan["cache_unknown_because"]:
                least, most = plan["needs"]["cpu"], plan["needs_at_most"]["cpu"]
                why = "there is no limit to hold it against"  # of the host's memory, or of a device's
                if limit is not None and least <= limit < most:
                    why = (
                        f"{units.byte_count(least)} to {units.byte_count(most)} of {units.byte_count(limit)}"
                    )
        yield [("Whether it fits is not known: ", WARN), (why, PLAIN)]
        return
    needs = plan["needs"]
    if plan["fits"]:
        most = "at most " if plan["peak_unknown_because"] else ""
        size = units.byte_count(plan["needs_at_most"]["cpu"])
        what = f"{most}{size} of {units.byte_count(limit)} ({plan['limits']['cpu_from']})"
        yield [("It fits: ", GOOD), (what, PLAIN)]
        for name, value in sorted(needs.items()):
            if name != "cpu" and plan["limits"].get(name) is not None:
                there = units.byte_count(plan["limits"][name])
                yield [(f"         {units.byte_count(value)} of {there} of {name}", PLAIN)]
        rest = needs["cpu"] - (plan["peak_anon_at_least_bytes"] or 0)
        if rest > 0:
            yield from notes(
                [
                    f"{units.byte_count(rest)} of it when the model is used: weights that "
                    "are read then, and the cache."
                ],
                width,
            )
        return
    least = "at least " if plan["peak_unknown_because"] else ""
    short = [
        f"{name} needs {least if name == 'cpu' else ''}{units.byte_count(needs[name])} of "
        f"{units.byte_count(plan['limits'][name])}, {units.byte_count(size)} more than there is"
        for name, size in plan["short_bytes"].items()
    ]
    yield [("It does not fit.", BAD)]
    yield from notes([f"{each}." for each in short], width, "  ")
    change = plan.get("change")
    if change is None:
        yield from notes(["No change that was tried makes it fit."], width)
        return
    said = ", ".join(f"{name}={value!r}" for name, value in change["keywords"].items())
    note = "; the model then computes in another precision" if change["changes_results"] else ""
    needed = change["needs_at_most"]
    most = "" if needed == change["needs"] else "at most "
    then = ", ".join(f"{units.byte_count(size)} on {name}" for name, size in sorted(needed.items()))
    yield from notes(
        [f"What makes it fit: {said} ({change['words']}{note}). It then needs {most}{then}."], width
    )


def _differs(differences: Sequence[Mapping[str, Any]], width: int) -> Iterable[Line]:
    """Yields what the trace is of and the plan is not, before any figure."""
    for each in differences:
        said = f"{each['subject']} differs: {each['planned']} (planned), {each['measured']} (measured)"
        for text in wrap(clean(said), width - 4):
            yield [("  ! ", WARN), (text, WARN)]


def _against(rows: Sequence[Mapping[str, Any]]) -> Iterable[Line]:
    yield [(f"  {'':<28} {'planned':>9}  {'measured':>9}", DIM)]
    for row in rows:
        difference = row["difference"]
        said = "" if difference is None else f"{difference:+.1%}".replace("%", " %")
        cells = f"{units.byte_count(row['planned']):>9}  {units.byte_count(row['measured']):>9}  {said:>8}"
        yield [(f"  {_figure_words(row['figure']):<28} ", DIM), (cells, PLAIN)]


def _figure_words(figure: str) -> str:
    """Returns a figure as the screen calls it; ``--json`` has its key."""
    key, _, name = figure.partition(".")
    return f"{FIGURES[key]} {name}".rstrip()


def _figure(label: str, value: int | None, note: str) -> Line:
    return [
        (_label(label), DIM),
        (f"{units.byte_count(value):>9}", STRONG),
        (f"  {note}" if note else "", DIM),
    ]


def _total(plan: Mapping[str, Any], name: str) -> str:
    return f"{units.byte_count(plan[f'{name}_total_bytes'])} with the pages of files"


def _sizes(sizes: Mapping[str, int]) -> str:
    ordered = sorted(sizes.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {units.byte_count(size)}" for name, size in ordered)


def _label(text: str) -> str:
    return f"  {text:<{LABEL}}"
