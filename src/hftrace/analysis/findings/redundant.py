"""The rule about work that was done for nothing: fetched and not opened, read twice, loaded and replaced."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.as_loaded import rows_since
from hftrace.analysis.findings.rules import WORTH_BYTES, WORTH_NS, Finding, Where, first_few, rule
from hftrace.analysis.ledger.tensors import FROM_CHECKPOINT
from hftrace.analysis.model_loads import model_loads
from hftrace.analysis.time.fetched import never_opened, spared_by
from hftrace.analysis.time.phases import loads_wall_ns
from hftrace.analysis.time.sources import load_of_span
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.weights import weight_files
from hftrace.schema.trace import Trace
from hftrace.units import byte_count

MOST = 0.5
"""The share of a load's weights from which it was for nothing as a whole."""


@rule(
    ("R23", "fetched-not-opened", "Weight files were downloaded and never opened."),
    concerns="time",
    severity="warning",
    of_session=True,
)
def fetched_not_opened(trace: Trace) -> Iterator[Finding]:
    """R23: weight files that came over the network, by a load or by the program, and that no load opened."""
    if trace.outcome.get("status", "ok") != "ok":
        return
    asked = [file for file in weight_files(trace) if file.result == "downloaded" and file.opened is False]
    fetched = never_opened(trace)
    found = [*asked, *fetched]
    if not found:
        return
    size = sum(file.downloaded_bytes or file.size_bytes or 0 for file in found)
    names = first_few(file.name for file in found)
    rest = len(found) - len(names)
    if fetched:
        patterns = ", ".join(map(repr, first_few(spared_by(trace, fetched))))
        advice = (
            f"Leave them out where the program fetches: snapshot_download(..., ignore_patterns=[{patterns}])."
        )
    else:
        advice = (
            "Say which files are meant: variant= or use_safetensors= of from_pretrained, ignore_patterns= of "
            "snapshot_download."
        )
    beside = ", although others of the same download were" if fetched and not asked else ""
    yield Finding(
        "R23",
        "fetched-not-opened",
        f"{units.count(len(found), 'weight file')} downloaded for nothing",
        f"{', '.join(names)}{f' and {rest:,} more' if rest else ''}: {byte_count(size)} came from the Hub, "
        f"and no load of this session opened them{beside}.",
        advice,
        cost_bytes=size,
        view="files",
        severity="warning" if size >= WORTH_BYTES else "info",
        numbers={"files": len(found), "downloaded_bytes": size},
        where=Where(files=names),
    )


@rule(
    ("R23", "loaded-twice", "The same weights were loaded several times in one process."),
    concerns="time",
    severity="info",
    of_session=True,
)
def loaded_twice(trace: Trace) -> Iterator[Finding]:
    """R23: several loads of one session that read the same tensors of the same files."""
    if len(model_loads(trace)) < 2:
        return
    index, places = span_index(trace), _places(trace)
    # Another process has no model that could be handed on.
    sources: dict[tuple[int, frozenset[tuple[object, ...]]], list[int]] = defaultdict(list)
    names, keys, ranks = (trace.tensors.column(name) for name in ("file", "keys", "rank"))
    provenances = trace.tensors.column("provenance")
    for load in model_loads(trace):
        number = load_of_span(trace).get(load.span)
        rows = [row for row in load.rows if names[row] and keys[row] and provenances[row] in FROM_CHECKPOINT]
        paths = {
            (rank, name): {name}  # where a process read files of one name, the ledger has whole paths
            if _rooted(name)
            else places.get((number, rank, name)) or places.get((None, rank, name), set())
            for rank, name in {(ranks[row], names[row]) for row in rows}
        }
        if not rows or any(len(known) != 1 for known in paths.values()):
            continue  # of two files of one name it may be either
        read = frozenset((*paths[ranks[row], names[row]], *keys[row]) for row in rows)
        sources[index.lanes[index.row_of[load.span]].pid, read].append(load.span)
    for loads in sources.values():
        again = [index.row_of[span] for span in loads[1:] if span in index.row_of]
        spent = sum(index.wall_ns(row) for row in again)
        if not again or spent < WORTH_NS:
            continue
        yield Finding(
            "R23",
            "loaded-twice",
            f"The same weights were loaded {len(loads):,} times",
            f"{units.count(len(loads), 'load')} read the same tensors of the same files in one process; all "
            f"but the first took {units.duration(spent)}.",
            "Load once and hand the model on, or copy.deepcopy it, where no second copy from the files is "
            "meant.",
            cost_ns=spent,
            view="loads",
            numbers={"loads": len(loads), "spent_ns": spent},
            where=Where(spans=loads[:8]),
        )


def _rooted(name: str) -> bool:
    """Says whether the name of a file is a whole path."""
    return name.startswith("/") or name[1:3] in (":/", ":\\")


def _places(trace: Trace) -> dict[tuple[int | None, int, str], set[str]]:
    """Returns the paths of weight files by the load that asked for them, rank and name; of all loads as None.

    Models of one architecture have files of one name.
    """
    found: dict[tuple[int | None, int, str], set[str]] = defaultdict(set)
    numbers = load_of_span(trace)
    for file in weight_files(trace):
        place, name = file.path or file.source, file.name.rpartition("/")[2]
        for number in (numbers.get(file.asked_by) if file.asked_by is not None else None, None):
            if place:
                found[number, file.rank, name].add(place)
    return dict(found)


@rule(
    ("R23", "loaded-then-replaced", "Most of what a load read was replaced by another state dict after it."),
    concerns="time",
    severity="warning",
    at_end=True,
)
def loaded_then_replaced(trace: Trace) -> Iterator[Finding]:
    """R23: a model whose weights came from a checkpoint, and then from somewhere else."""
    was, sizes = trace.at_return.column("provenance"), trace.at_return.column("bytes")
    names, evidence = trace.tensors.column("name"), trace.tensors.column("evidence")
    loaded = sum(size or 0 for size, how in zip(sizes, was, strict=True) if how in FROM_CHECKPOINT)
    rows = [
        (row, later)
        for row, later in rows_since(trace)
        if was[row] in FROM_CHECKPOINT and evidence[later] == "load_state_dict"
    ]
    replaced = sum(sizes[row] or 0 for row, _ in rows)
    if not loaded or replaced <= MOST * loaded:
        return
    spent = loads_wall_ns(trace)
    yield Finding(
        "R23",
        "loaded-then-replaced",
        f"{byte_count(replaced)} loaded, then replaced by load_state_dict",
        f"{units.count(len(rows), 'tensor')} came from the checkpoint in a load of {units.duration(spent)}, "
        f"and load_state_dict put others in their place: {units.share(replaced / loaded)} of what was read.",
        "Where those are not made of this model's own, as a copy to go back to or an average is: build it "
        "without weights, AutoModel.from_config(AutoConfig.from_pretrained(...)), or hand state_dict= to "
        "from_pretrained.",
        cost_ns=spent,
        view="tensors",
        severity="warning" if spent >= WORTH_NS else "info",
        numbers={"tensors": len(rows), "replaced_bytes": replaced, "loaded_bytes": loaded},
        where=Where(tensors=first_few(names[later] for _, later in rows)),
    )
