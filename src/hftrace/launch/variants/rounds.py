"""Runs variants of one load in turn, each in a fresh process, and keeps every trace."""

from __future__ import annotations

import dataclasses
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hftrace.errors import HftraceError, UsageError
from hftrace.launch.interrupts import Interrupts
from hftrace.launch.kept import RunDirectory
from hftrace.launch.listening import Listen, Listener, unheard
from hftrace.launch.request import LoadRequest, LoadSpec
from hftrace.launch.supervisor import run_load
from hftrace.launch.variants.interpreters import inspect_python
from hftrace.launch.variants.specs import DTYPE_KEYWORDS, SCRATCH_DIRECTORY, VariantSpec
from hftrace.schema.redact import REMOVED, redact_value
from hftrace.schema.trace import Trace


@dataclass
class Round:
    """One finished run.

    Args:
        variant: Whose.
        number: Which round, from 1; 0 is the warm-up, whose trace is not kept.
        trace: What happened.
    """

    variant: str
    number: int
    trace: Trace


@dataclass
class Rounds:
    """All that was run.

    Args:
        traces: The paths of the traces, by variant, in order.
        failed: Variants whose load did not end well, with the outcome of it.
        interrupted: Name of the signal that stopped it before the end; None where none did.
        cut_off: The trace of the run that was going on then; None where it has none.
        problem: What else stopped it: a trace that could not be saved, a process that could not be started.
    """

    traces: dict[str, list[Path]]
    failed: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    interrupted: str | None = None
    cut_off: Path | None = None
    problem: HftraceError | None = None


def check_interpreters(specs: Sequence[VariantSpec]) -> None:
    """Asks every other interpreter for what a load needs, before anything runs.

    Raises:
        UsageError: One cannot be started, or lacks a library.
    """
    for python in dict.fromkeys(spec.python for spec in specs):
        if python is None or python == sys.executable:
            continue
        problems = inspect_python(python).get("problems") or {}
        if problems:
            name, reason = next(iter(problems.items()))
            raise UsageError(
                f"{python} cannot load a model, because {name} cannot be imported there ({reason}): "
                "install it, or name another interpreter"
            )


def order_of(names: Sequence[str], number: int) -> list[str]:
    """Returns the order of a round: every second one is turned around, so that a drift hits all alike."""
    return list(names) if number % 2 else list(reversed(names))


def run_rounds(
    request: LoadRequest,
    specs: Sequence[VariantSpec],
    *,
    repeat: int,
    directory: Path,
    header: Mapping[str, Any],
    on_round: Callable[[Round, int, int], None],
    warm: Collection[str] = (),
    after: int = 0,
    listen: Listen = unheard,
) -> Rounds:
    """Runs all variants ``repeat`` times in turn, after one run of each that is not counted.

    A variant that fails once is not tried again. Ctrl-C ends it, and what is finished is kept;
    so does an error, which the result holds.

    Args:
        request: What is common to all.
        specs: The variants.
        repeat: How often each is measured.
        directory: Where the traces go.
        header: Facts for the traces' headers.
        on_round: Hears of each finished run: the run, how many are done, and how many there are.
        warm: Variants that ran just before, and need no such run.
        after: How many rounds of theirs the directory holds already: numbers go on from there.
        listen: Gives who hears of a run while it goes on, by words that say which it is.
    """
    result = Rounds({spec.name: [] for spec in specs})
    by_name = {spec.name: spec for spec in specs}
    stems = file_names(by_name)
    numbers = [0, *range(after + 1, after + repeat + 1)]
    turns = [
        (number, name)
        for number in numbers
        for name in order_of(list(by_name), number)
        if number or name not in warm
    ]
    total, done = len(turns), 0
    interrupts = Interrupts()
    try:
        with interrupts:
            for number, name in turns:
                if name in result.failed:
                    total -= 1
                    continue
                with RunDirectory(directory) as run:
                    which = f"round {number}" if number else "warm-up"
                    with listen(f"{which}  {name}") as listener:
                        spec = by_name[name]
                        trace = _run(request, spec, interrupts, run, number, directory, header, listener)
                    status = trace.outcome.get("status")
                    if status == "interrupted":
                        result.interrupted = interrupts.first or "SIGINT"
                        cut_off = directory / f"interrupted-{stems[name]}-{number}.json"
                        trace.save(cut_off)
                        result.cut_off = cut_off
                        break
                    # The warm-up is not counted; but that of one that failed is the only one there will be.
                    if number or status != "ok":
                        path = directory / f"{stems[name]}-{number}.json"
                        trace.save(path)
                        result.traces[name].append(path)
                if status != "ok":
                    result.failed[name] = dict(trace.outcome)
                done += 1
                on_round(Round(name, number, trace), done, total)
                interrupts.check()
    except KeyboardInterrupt:
        result.interrupted = interrupts.first or "SIGINT"
    except HftraceError as error:
        result.problem = error
    return result


def _run(
    request: LoadRequest,
    spec: VariantSpec,
    interrupts: Interrupts,
    run: RunDirectory,
    number: int,
    directory: Path,
    header: Mapping[str, Any],
    listener: Listener,
) -> Trace:
    facts = {
        **header,
        "variant": {"name": spec.name, "round": number, "environment": redact_value(spec.environment)},
    }
    # The same path in each run, or the runs of one variant would differ in what they asked for.
    scratch = directory / "offload"
    mine = dataclasses.replace(
        request,
        load=varied(request.load, spec, str(scratch)),
        environment={**request.environment, **spec.environment},
        python=spec.python or request.python,
        collector=spec.collector or request.collector,
    )
    try:
        return run_load(mine, interrupts, run=run, header=facts, listener=listener).trace
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def varied(load: LoadSpec, spec: VariantSpec, scratch: str) -> LoadSpec:
    """Returns what a variant loads: the keywords common to all, and its own, which win.

    Args:
        load: What is common to all variants.
        spec: The variant.
        scratch: Stands in for :data:`hftrace.launch.variants.specs.SCRATCH_DIRECTORY`.
    """
    own = {key: scratch if value is SCRATCH_DIRECTORY else value for key, value in spec.keywords.items()}
    replaced = {*own, *spec.without}
    # Two names of one keyword: given both, transformers would refuse the load or take the wrong one.
    if replaced & DTYPE_KEYWORDS:
        replaced |= DTYPE_KEYWORDS
    common = {key: value for key, value in load.keywords.items() if key not in replaced}
    return dataclasses.replace(load, keywords={**common, **own})


def file_names(names: Iterable[str]) -> dict[str, str]:
    """Returns the part of a file's name for each variant; no two have the same."""
    found: dict[str, str] = {}
    for name in names:
        wanted = stem = file_name(name)
        number = 1
        while stem in found.values():
            number += 1
            stem = f"{wanted}.{number}"
        found[name] = stem
    return found


def file_name(name: str) -> str:
    """Returns a variant's name as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9._=-]+", "-", name.replace(f"={REMOVED}", "-removed")).strip("-") or "variant"
