"""``hftrace bisect MODEL``: which version of transformers made its load slower, larger, or fail."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hftrace.cli.common.formats import Output, result_options
from hftrace.cli.common.measured import measured_options
from hftrace.cli.common.model import ModelOptions, model_options
from hftrace.cli.common.output import print_error
from hftrace.cli.common.paths import output_directory
from hftrace.cli.common.values import cache_choice, json_inputs, parse_option
from hftrace.cli.compare import SORTS
from hftrace.errors import EXIT_FAILED, EXIT_OK, HftraceError, UsageError
from hftrace.schema.redact import clean, redact_arguments
from hftrace.units import parse_size

if TYPE_CHECKING:
    from hftrace.analysis.compare.bisection import Bisection
    from hftrace.analysis.compare.variants import Metric
    from hftrace.launch.bisecting.places import Source
    from hftrace.launch.request import LoadRequest
    from hftrace.render.text import Block

BISECTION = "bisection.json"
"""The file of a bisection's directory that says what was found."""
STATUS = "status"
LEAST_RUNS = 5
"""Fewer runs give no verdict: :mod:`hftrace.analysis.compare.verdicts`."""


@click.command("bisect")
@click.argument("model")
@click.option("--good", required=True, metavar="VERSION", help="The older one, which is as it should be.")
@click.option("--bad", required=True, metavar="VERSION", help="The newer one, which is not.")
@click.option(
    "--metric",
    type=click.Choice([*SORTS, STATUS]),
    default="returned",
    show_default=True,
    help="What became worse; status: the load that fails.",
)
@click.option(
    "--overlays",
    metavar="DIR",
    help="A folder with a folder for each version, which goes on PYTHONPATH. "
    "[default: releases, installed into folders of their own]",
)
@click.option(
    "--python",
    "pythons",
    multiple=True,
    metavar="[VERSION=]PATH",
    help="Interpreters, one for each version; or the one that all versions run in.",
)
@click.option(
    "--checkout", metavar="DIR", help="A git checkout of transformers: --good and --bad are commits."
)
@click.option(
    "--environments", metavar="DIR", help="Where installed releases are kept.  [default: the cache]"
)
@click.option(
    "--repeat",
    type=click.IntRange(LEAST_RUNS, 1000),
    default=LEAST_RUNS,
    show_default=True,
    metavar="N",
    help="Runs of each version in a step, in turn with its neighbours, after one that is not counted.",
)
@measured_options
@model_options()
@click.option("--memory-limit", metavar="SIZE", help="Kill a run whose anonymous memory passes SIZE.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Kill a run that takes longer.",
)
@click.option("-o", "--output", metavar="DIR", help="Where the traces go.  [default: traces/bisect-...]")
@result_options(quiet="the answer in one line")
def command(
    model: str,
    good: str,
    bad: str,
    metric: str,
    overlays: str | None,
    pythons: tuple[str, ...],
    checkout: str | None,
    environments: str | None,
    repeat: int,
    cold: bool,
    warm: bool,
    touch: bool,
    forward: bool,
    given: str | None,
    chosen: ModelOptions,
    memory_limit: str | None,
    timeout: float | None,
    output: str | None,
    out: Output,
) -> int:
    """Find the version of transformers that made a load slower or larger, or made it fail.

    MODEL is loaded with the version in the middle of what is left, in fresh processes that take turns with
    the good and the bad version; `compare`'s verdicts say which of the two it is like. The last good and the
    first bad version are measured side by side in the end. Every trace is kept.

    Versions are releases from the package index, which are installed into folders beside the interpreter's
    own libraries; or they are there already: --overlays, --python, --checkout. One that cannot be installed
    or does not load is skipped.
    """
    from hftrace.analysis.compare.bisection import bisection_facts
    from hftrace.analysis.compare.ranking import NAMES
    from hftrace.cli.common.live import run_views
    from hftrace.launch.bisecting.search import Steps

    if metric == "ready" and not (touch or forward or given):
        raise UsageError("--metric ready takes --touch or --forward: else nothing is measured until then")
    interpreters = [text for text in pythons if "=" in text]
    if sum((overlays is not None, bool(interpreters), checkout is not None)) > 1:
        raise UsageError(
            "--overlays, --python VERSION=PATH and --checkout each say where versions are: give one"
        )
    plain = [text for text in pythons if "=" not in text]
    if len(plain) > 1 or (plain and interpreters):
        raise UsageError(
            "--python PATH is one interpreter for all versions; else write VERSION=PATH each time"
        )
    python = plain[0] if plain else sys.executable
    chosen.check(model)
    source = _source(overlays, interpreters, checkout, environments, python)
    source.labels(good, bad)  # what is not there is said before a checkpoint is made
    inputs = None if given is None else json_inputs(given)
    limit = None if memory_limit is None else parse_option("--memory-limit", parse_size, memory_limit)
    directory = output_directory(output, model, "bisect")
    request = _request(chosen, model, python, limit, timeout)
    request = replace(
        request,
        cache=cache_choice(cold, warm),
        touch=touch,
        forward=forward or inputs is not None,
        inputs=inputs,
    )
    measured: Metric | None = None if metric == STATUS else NAMES[metric]
    header = {"command": "bisect", "argv": redact_arguments(["hftrace", *sys.argv[1:]])}
    steps = Steps(request, source, measured, repeat, directory, header, _say, run_views(out.color, out.width))
    try:
        found = steps.run(good, bad)
    except (KeyboardInterrupt, HftraceError):
        with contextlib.suppress(OSError):
            directory.rmdir()  # where nothing was measured
        if directory.exists():
            print_error(f"what was measured is in {directory}")
        raise
    finally:
        close = getattr(source, "close", None)
        if close is not None:
            close()
    facts = bisection_facts(found)
    _write(directory, facts)
    from hftrace.render.bisection import answer

    out.result(
        facts=lambda: facts, blocks=lambda: _drawn(found, measured, model), quiet=lambda: answer(found)
    )
    click.echo(f"Wrote {directory}", err=True)
    return EXIT_OK if found.suspects else EXIT_FAILED


def _drawn(found: Bisection, measured: Metric | None, model: str) -> list[Block]:
    from hftrace.analysis.compare.ranking import ranking
    from hftrace.render.bisection import draw
    from hftrace.render.compare.options import CompareOptions

    comparison = found.proof or found.ends
    ranked = None if comparison is None or measured is None else ranking(comparison, measured)
    return draw(found, None if ranked is None else CompareOptions(ranked, model))


def _say(text: str) -> None:
    from hftrace.render.text import clean as safe

    click.echo(safe(text), err=True)


def _source(
    overlays: str | None,
    interpreters: list[str],
    checkout: str | None,
    environments: str | None,
    python: str,
) -> Source:
    """Returns where versions come from."""
    if overlays is not None:
        from hftrace.launch.bisecting.places import Overlays

        return Overlays(overlays)
    if interpreters:
        from hftrace.launch.bisecting.places import Interpreters

        return Interpreters(interpreters)
    if checkout is not None:
        from hftrace.launch.bisecting.checkout import Checkout

        return Checkout(checkout)
    from hftrace.launch.bisecting.releases import Releases
    from hftrace.synth.cache import cache_directory

    place = Path(environments).expanduser() if environments else cache_directory() / "environments"
    return Releases(python, place, _say)


def _request(
    chosen: ModelOptions, model: str, python: str, limit: int | None, timeout: float | None
) -> LoadRequest:
    from hftrace.launch.request import LoadRequest, WatchOptions

    watch = WatchOptions(memory_limit_bytes=limit, timeout_seconds=timeout)
    return LoadRequest(load=chosen.spec(model), watch=watch, python=python, quiet_bars=True)


def _write(directory: Path, facts: dict[str, Any]) -> None:
    document = {"schema": "hftrace.bisection", "version": "1.0", **clean(facts)}
    path = directory / BISECTION
    try:
        path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise HftraceError(f"cannot write {path}: {error.strerror or error}") from None
