"""Runs the variants of one load for ``hftrace compare``, and says on stderr how far it is."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hftrace import units
from hftrace.cli.common.model import ModelOptions
from hftrace.cli.common.output import print_error
from hftrace.cli.common.paths import output_directory
from hftrace.errors import EXIT_FAILED, EXIT_OF_SIGNAL, EXIT_OK, HftraceError, SignalInterrupt, UsageError
from hftrace.schema.redact import clean, redact_arguments
from hftrace.schema.trace import Trace

if TYPE_CHECKING:
    from hftrace.launch.variants.rounds import Rounds

COMPARISON = "comparison.json"
"""The file of a comparison's directory that names its traces by variant."""


@dataclass(frozen=True)
class MeasureOptions:
    """Which variants are measured, and how.

    Args:
        variants: As ``--variant`` gives them.
        sweep: Axes, as ``--sweep`` gives them.
        repeat: Runs of each variant.
        cache: ``cold``, ``warm`` or None, before each run.
        touch: Whether every page of the weights is read after the load.
        forward: Whether one forward pass is done after that.
        inputs: Its keywords as JSON values; None builds them from the config.
        python: The interpreter of variants that name none; None for this one.
        sample_hz: Readings of memory per second; None for the usual number.
        memory_limit_bytes: Kill a run whose anonymous memory is larger.
        output: The directory for the traces; None for one that is named after the model.
        timeout_seconds: Kill a run that takes longer.
        color: How a run is shown while it goes on, as ``--color`` says.
        width: The same, as ``--width`` says.
    """

    variants: tuple[str, ...] = ()
    sweep: tuple[str, ...] = ()
    repeat: int = 5
    cache: str | None = None
    touch: bool = False
    forward: bool = False
    inputs: Mapping[str, Any] | None = None
    python: str | None = None
    sample_hz: float | None = None
    memory_limit_bytes: int | None = None
    output: str | None = None
    timeout_seconds: float | None = None
    color: str = "auto"
    width: int | None = None


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Args:
        groups: Name and paths of the traces of each variant that has some.
        directory: Where they lie.
        exit_code: 0 where every variant ended well, 1 where one did not, 130 after Ctrl-C (129, 143 after
            SIGHUP, SIGTERM).
    """

    groups: list[tuple[str, list[str]]]
    directory: Path
    exit_code: int


def measure(model: str, chosen: ModelOptions, options: MeasureOptions) -> Measured:
    """Runs all variants in turn, and leaves every trace in a directory.

    Args:
        model: What to load.
        chosen: What is common to all variants; what a variant says itself wins.
        options: The variants.

    Raises:
        UsageError: A variant that cannot be, a directory that cannot be written.
        HftraceError: Nothing was measured.
    """
    from hftrace.cli.common.live import run_views
    from hftrace.launch.request import LoadRequest, WatchOptions
    from hftrace.launch.variants.rounds import Round, check_interpreters, run_rounds
    from hftrace.launch.variants.specs import distinct, grid, parse_variant

    specs = distinct(
        [parse_variant(text) for text in options.variants] + (grid(options.sweep) if options.sweep else [])
    )
    chosen.check(model)
    directory = output_directory(options.output, model, "compare")
    load = chosen.spec(model)
    if options.python is not None:
        specs = [spec if spec.python else replace(spec, python=options.python) for spec in specs]
    check_interpreters(specs)
    watch = WatchOptions(
        memory_limit_bytes=options.memory_limit_bytes, timeout_seconds=options.timeout_seconds
    )
    request = LoadRequest(
        load=load,
        watch=watch if options.sample_hz is None else replace(watch, sample_hz=options.sample_hz),
        quiet_bars=True,
        cache=options.cache,
        touch=options.touch,
        forward=options.forward,
        inputs=options.inputs,
    )
    started = time.monotonic()
    said: set[str] = set()

    def on_round(finished: Round, done: int, total: int) -> None:
        left = (time.monotonic() - started) / done * (total - done)
        _say_ignored(finished, said)
        outcome = finished.trace.outcome
        if outcome.get("status") != "ok":
            print_error(f"{finished.variant} did not load, and is left out: {_reason(finished.trace)}")
            return
        spent = sum(span.duration_ns for span in finished.trace.loads)
        which = f"round {finished.number}/{options.repeat}" if finished.number else "warm-up"
        rest = f"about {units.duration(left * 1e9)} left" if done < total else "done"
        click.echo(f"{which}  {finished.variant}  {units.duration(spent)}; {rest}", err=True)

    rounds = run_rounds(
        request,
        specs,
        repeat=options.repeat,
        directory=directory,
        header={"command": "compare", "argv": redact_arguments(["hftrace", *sys.argv[1:]])},
        on_round=on_round,
        listen=run_views(options.color, options.width),
    )
    groups = []
    for name, paths in rounds.traces.items():
        # The last one may have been cut off before it was written.
        written = [str(path) for path in paths if path.exists()]
        if written:
            groups.append((name, written))
    if rounds.interrupted or rounds.problem is not None:
        print_error(_kept_words(groups, directory, rounds))
        if not groups:
            with contextlib.suppress(OSError):  # something else is kept in it
                directory.rmdir()
    if rounds.problem is not None:
        raise rounds.problem
    if len(groups) < 2:
        if rounds.interrupted:
            raise SignalInterrupt(rounds.interrupted)
        raise HftraceError(
            f"fewer than two variants were measured: there is nothing to compare in {directory}"
        )
    code = EXIT_FAILED if rounds.failed else EXIT_OK
    if rounds.interrupted:
        code = EXIT_OF_SIGNAL[rounds.interrupted]
    return Measured(groups, directory, code)


def write_comparison(measured: Measured, facts: dict[str, Any]) -> Path:
    """Writes the comparison's file: its figures, and which trace belongs to which variant.

    Raises:
        HftraceError: It cannot be written.
    """
    path = measured.directory / COMPARISON
    traces = {name: [Path(each).name for each in paths] for name, paths in measured.groups}
    document = {"schema": "hftrace.comparison", "version": "1.0", "traces": traces, **clean(facts)}
    try:
        path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise HftraceError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def groups_of(directory: Path) -> list[tuple[str, list[str]]]:
    """Returns name and paths of the variants of an earlier comparison, which may have been cut off.

    Raises:
        UsageError: The directory holds none.
    """
    try:
        document = json.loads((directory / COMPARISON).read_text(encoding="utf-8"))
        traces = document["traces"]
        return [
            (str(name), [str(directory / Path(str(path)).name) for path in paths])
            for name, paths in traces.items()
        ]
    except FileNotFoundError:
        groups = _groups_by_header(directory)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        groups = []
    if not groups:
        raise UsageError(f"{directory} holds no {COMPARISON}: name traces, or the directory of a comparison")
    return groups


def _groups_by_header(directory: Path) -> list[tuple[str, list[str]]]:
    """Returns the variants of a comparison without its file: each trace says whose it is."""
    found: dict[str, list[tuple[int, str]]] = {}
    for path in directory.glob("*.json"):
        try:
            trace = Trace.open(path)
        except HftraceError:
            continue
        variant = trace.header.get("variant")
        match variant:
            case {"name": str(name), "round": int(number)} if trace.outcome.get("status") != "interrupted":
                found.setdefault(name, []).append((number, str(path)))
    return [(name, [path for _, path in sorted(found[name])]) for name in sorted(found)]


def _kept_words(groups: Sequence[tuple[str, list[str]]], directory: Path, rounds: Rounds) -> str:
    """Returns what there is of a comparison that did not come to its end, and what can be done with it."""
    how = "interrupted" if rounds.interrupted else "the comparison stopped"
    cut_off = f"; the trace of the run that was cut off is {rounds.cut_off}" if rounds.cut_off else ""
    count = sum(len(paths) for _, paths in groups)
    if not count:
        return f"{how} before a run was finished that counts{cut_off}"
    each = ", ".join(f"{name} {len(paths)}" for name, paths in groups)
    if len(groups) > 1:
        command = f"hftrace compare {shlex.quote(str(directory))}"
    else:
        command = f"hftrace show {shlex.quote(groups[0][1][-1])}"
    return f"{how}; {units.count(count, 'trace')} in {directory} ({each}): {command}{cut_off}"


def _say_ignored(finished: Any, said: set[str]) -> None:
    """Says once for each variant which of its keywords the installed version ignores."""
    if finished.variant in said:
        return
    said.add(finished.variant)
    version = finished.trace.environment.get("transformers")
    for keyword in finished.trace.request.get("ignored") or []:
        print_error(
            f"{finished.variant}: transformers {version} ignores {keyword['keyword']}, "
            f"honoured by {keyword['versions']}"
        )


def _reason(trace: Trace) -> str:
    from hftrace.launch.ending.explanation import explain_failure

    return explain_failure(trace)
