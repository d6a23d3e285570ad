"""``hftrace tune MODEL``: the call that loads a model fastest, or in the least memory, on this machine."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import click

from hftrace.cli.common.formats import Output, result_options
from hftrace.cli.common.measured import measured_options
from hftrace.cli.common.model import ModelOptions, model_options
from hftrace.cli.common.output import print_error
from hftrace.cli.common.paths import output_directory
from hftrace.cli.common.values import cache_choice, json_inputs, parse_option
from hftrace.errors import EXIT_OK, EXIT_THRESHOLD, HftraceError, UsageError
from hftrace.schema.redact import clean, redact_arguments
from hftrace.units import parse_duration, parse_size

TUNING = "tuning.json"
"""The file of a search's directory that says what was found."""


@click.command("tune")
@click.argument("model")
@click.option(
    "--for",
    "objective",
    type=click.Choice(["time", "memory"]),
    default="time",
    show_default=True,
    help="Time until the call returned (with --touch or --forward: until ready), or the peak of anonymous "
    "memory.",
)
@click.option(
    "--budget", default="10m", show_default=True, metavar="TIME", help="How long the search may take."
)
@click.option("--max-peak", metavar="SIZE", help="No call may take more anonymous memory.")
@click.option(
    "--allow",
    metavar="WHAT,...",
    help="What may change of the model that comes out: dtype (its weights' precision, quantised ones too), "
    "attention, device.  [default: nothing]",
)
@measured_options
@model_options()
@click.option("--python", metavar="PATH", help="Interpreter of the loads.  [default: this one]")
@click.option("-o", "--output", metavar="DIR", help="Where the traces go.  [default: traces/tune-...]")
@result_options(quiet="the answer in one line")
def command(
    model: str,
    objective: str,
    budget: str,
    max_peak: str | None,
    allow: str | None,
    cold: bool,
    warm: bool,
    touch: bool,
    forward: bool,
    given: str | None,
    chosen: ModelOptions,
    python: str | None,
    output: str | None,
    out: Output,
) -> int:
    """Find the call that loads MODEL fastest, or in the least memory, on this machine.

    The options of the model say what the call is now. It is traced once; settings that mean something for
    this model and this version, and those that its findings advise, are measured in fresh processes that take
    turns: one at a time, together, and together without one. `compare`'s verdicts decide, and digests prove
    that the model is the same. The answer is a program.
    """
    from hftrace.analysis.compare.equality import CHANGES
    from hftrace.analysis.compare.ranking import NAMES
    from hftrace.analysis.compare.tuning import tuning_facts
    from hftrace.cli.common.live import run_views
    from hftrace.launch.request import LoadRequest
    from hftrace.launch.tuning.models import Models
    from hftrace.launch.tuning.runs import Runs
    from hftrace.launch.tuning.search import Tuner
    from hftrace.launch.variants.rounds import check_interpreters
    from hftrace.launch.variants.specs import VariantSpec

    allowed = [word.strip() for word in (allow or "").split(",") if word.strip()]
    unknown = [word for word in allowed if word not in CHANGES]
    if unknown:
        raise UsageError(f"--allow {unknown[0]}: there is {', '.join(CHANGES)}")
    seconds = parse_option("--budget", parse_duration, budget) / 1e9
    limit = None if max_peak is None else parse_option("--max-peak", parse_size, max_peak)
    inputs = None if given is None else json_inputs(given)
    cache = cache_choice(cold, warm)
    chosen.check(model)
    interpreter = python or sys.executable
    check_interpreters([VariantSpec("plain", python=interpreter)])
    directory = output_directory(output, model, "tune")
    request = LoadRequest(
        load=chosen.spec(model),
        python=interpreter,
        quiet_bars=True,
        cache=cache,
        touch=touch,
        forward=forward or inputs is not None,
        inputs=inputs,
    )
    until_ready = request.touch or request.forward
    metric = NAMES["anon-peak" if objective == "memory" else "ready" if until_ready else "returned"]
    header = {"command": "tune", "argv": redact_arguments(["hftrace", *sys.argv[1:]])}
    runs = Runs(seconds, directory, header, _say, run_views(out.color, out.width))
    models = Models(request, allowed, runs)
    try:
        found = Tuner(request, metric, objective, allowed, limit, runs, models).run()
    except (KeyboardInterrupt, HftraceError):
        with contextlib.suppress(OSError):
            directory.rmdir()  # where nothing was measured
        if directory.exists():
            print_error(f"what was measured is in {directory}")
        raise
    facts = tuning_facts(found)
    _write(directory, facts)
    from hftrace.render.tuning import answer, draw

    out.result(facts=lambda: facts, blocks=lambda: draw(found), quiet=lambda: answer(found))
    click.echo(f"Wrote {directory}", err=True)
    return EXIT_OK if found.best is not None else EXIT_THRESHOLD


def _say(text: str) -> None:
    from hftrace.render.text import clean as safe

    click.echo(safe(text), err=True)


def _write(directory: Path, facts: dict[str, Any]) -> None:
    document = {"schema": "hftrace.tuning", "version": "1.0", **clean(facts)}
    path = directory / TUNING
    try:
        path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise HftraceError(f"cannot write {path}: {error.strerror or error}") from None
