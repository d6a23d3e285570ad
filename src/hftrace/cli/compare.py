"""``hftrace compare``: two or more loads side by side, from saved traces or measured now."""

from __future__ import annotations

import glob
import os
import shlex
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import click

from hftrace.cli.choices import ViewChoice
from hftrace.cli.common.formats import MARKDOWN, QUIET, Output, result_options
from hftrace.cli.common.measured import measured_options
from hftrace.cli.common.model import ModelOptions, model_options
from hftrace.cli.common.values import cache_choice, json_inputs, parse_option
from hftrace.errors import EXIT_OK, UsageError
from hftrace.render.compare import VIEWS, load
from hftrace.render.registry import ALL, shown_by
from hftrace.schema.trace import Trace
from hftrace.units import parse_size

if TYPE_CHECKING:
    from hftrace.analysis.compare.comparison import Comparison
    from hftrace.analysis.compare.ranking import Ranking
    from hftrace.render.text import Block

SORTS = (
    "session",
    "returned",
    "ready",
    "load",
    "imports",
    "anon-peak",
    "total-peak",
    "device-peak",
    "from-storage",
)
"""Names of metrics; a test holds them to those of the ranking, whose import is heavy for ``--help``."""
SUFFIXES = (".json.gz", ".json", ".gz")


@click.command("compare")
@click.argument(
    "arguments",
    metavar="MODEL --variant V --variant V | MODEL --sweep KEY=V,V [KEY=V,V]... | TRACE TRACE... "
    "| NAME=TRACE[,TRACE...]...",
    nargs=-1,
    required=True,
)
@click.option(
    "--variant",
    "variants",
    metavar="VARIANT",
    multiple=True,
    help="Measure MODEL this way: a preset such as fast-init, device-map=cpu or bf16, "
    "or 'NAME: dtype=bfloat16, device_map=auto, env.HF_X=1, python=PATH'. Give two or more.",
)
@click.option(
    "--sweep",
    metavar="KEY=V,V,...",
    multiple=True,
    help="Measure every combination, such as --sweep dtype=bfloat16,float32 device_map=none,cpu.",
)
@click.option(
    "--sort",
    type=click.Choice(SORTS),
    default=None,
    help="What the ranking is sorted by [default: ready where it was measured, else returned].",
)
@click.option(
    "--repeat",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    metavar="N",
    help="Runs of each variant, in turn, after one that is not counted.",
)
@measured_options
@model_options(without=("variant",))
@click.option("--python", metavar="PATH", help="Interpreter of variants that name none.  [default: this one]")
@click.option("--sample-hz", type=click.FloatRange(0, 1000), metavar="N", help="Memory readings per second.")
@click.option(
    "--memory-limit", metavar="SIZE", help="Kill a run whose anonymous memory passes SIZE, and leave it out."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Kill a run that takes longer, and leave its variant out.",
)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    help="Where the traces of MODEL's variants go.  [default: traces/compare-...]",
)
@click.option(
    "--baseline", metavar="NAME", default=None, help="What the others are compared with [default: the first]."
)
@click.option(
    "--view",
    type=ViewChoice(VIEWS),
    default=None,
    help="One view alone [default: caveats, figures with verdicts, why, and phases].",
)
@result_options(quiet="the best and whether it is certain", markdown="for a comment on a pull request")
def command(
    arguments: Sequence[str],
    variants: tuple[str, ...],
    sweep: tuple[str, ...],
    sort: str | None,
    repeat: int,
    cold: bool,
    warm: bool,
    touch: bool,
    forward: bool,
    given: str | None,
    chosen: ModelOptions,
    python: str | None,
    sample_hz: float | None,
    memory_limit: str | None,
    timeout: float | None,
    output: str | None,
    baseline: str | None,
    view: str | None,
    out: Output,
) -> int:
    """Compare loads: which is better, by how much, is it noise, and why.

    With --variant or --sweep, MODEL (a directory, a Hub id or synth:NAME) is
    loaded in each way, in fresh processes that take turns; every trace is kept.
    A directory of such a comparison can be named later in its place. Keywords such
    as --dtype hold for all variants; what a variant says itself wins.

    A sweep is drawn as a ranking: one line for each combination, sorted by --sort,
    and the from_pretrained call of the best. So is anything else with --sort.

    Otherwise each TRACE is a group of its own, named after its file. NAME=A.json,B.json
    makes a group of several runs, and so does a pattern: fast='runs/fast-*.json'.
    Times and peaks have a verdict where there are enough runs: five each at least, and more
    where they are noisy; the screen says how many.
    """
    if out.form in (MARKDOWN, QUIET) and view is not None:
        raise UsageError(f"--format {out.form} is of the whole comparison: leave out --view {view}")
    from hftrace.analysis.compare.comparison import compare
    from hftrace.analysis.compare.comparison import facts as comparison_facts
    from hftrace.analysis.compare.ranking import NAMES, call_of, default_metric, ranking, ranking_facts

    measured = None
    if variants or sweep:
        from hftrace.cli.measure import MeasureOptions, measure, write_comparison

        # ``--sweep A=1,2 B=3,4``: axes after the first are arguments, as far as click can tell.
        sweep, arguments = (*sweep, *(arguments[1:] if sweep else ())), arguments[: 1 if sweep else None]
        if len(arguments) != 1:
            raise UsageError("--variant and --sweep measure one model: name it, and no traces")
        cache = cache_choice(cold, warm)
        inputs = None if given is None else json_inputs(given)
        limit = None if memory_limit is None else parse_option("--memory-limit", parse_size, memory_limit)
        options = MeasureOptions(
            variants=variants,
            sweep=sweep,
            repeat=repeat,
            cache=cache,
            touch=touch,
            forward=forward or inputs is not None,
            inputs=inputs,
            python=python,
            sample_hz=sample_hz,
            memory_limit_bytes=limit,
            output=output,
            timeout_seconds=timeout,
            color=out.color,
            width=out.width,
        )
        measured = measure(arguments[0], chosen, options)
        named = measured.groups
    else:
        if chosen.given or python or given or memory_limit or sample_hz is not None:
            raise UsageError(
                "options of a model are for one that is measured: name it, with --variant twice or --sweep"
            )
        named = named_groups(arguments)
    groups = [(name, [Trace.open(path) for path in paths]) for name, paths in named]
    comparison = compare(groups, baseline)
    ranked = ranking(comparison, NAMES[sort] if sort is not None else default_metric(comparison))
    model = arguments[0] if measured is not None else None
    facts = {**comparison_facts(comparison), "ranking": ranking_facts(ranked, model)}
    if measured is not None:
        write_comparison(measured, facts)
    view = view or ("ranking" if sweep or sort else None)
    from hftrace.render.compare.ranking import is_best, winner_words

    # Where everything was shown, the next question is about one load.
    last = named[-1][1][0]
    shown = arguments if measured is None else [str(measured.directory)]
    out.result(
        facts=lambda: facts,
        blocks=lambda: _drawn(comparison, ranked, model, shown, baseline, view, last),
        quiet=lambda: winner_words(ranked) if ranked.best is not None else "no run has the figure",
        markdown=lambda: _markdown(comparison),
    )
    if measured is None:
        return EXIT_OK
    if ranked.best is not None and view != "ranking":
        # A call is advice, which takes a verdict.
        call = call_of(ranked.best, model) if is_best(ranked) else None
        click.echo(winner_words(ranked) + (f": {call}" if call else ""), err=True)
    click.echo(f"Wrote {measured.directory}", err=True)
    return measured.exit_code


def _markdown(comparison: Comparison) -> str:
    from hftrace.render.compare.markdown import markdown

    return markdown(comparison)


def _drawn(
    comparison: Comparison,
    ranked: Ranking,
    model: str | None,
    arguments: Sequence[str],
    baseline: str | None,
    view: str | None,
    last: str,
) -> list[Block]:
    from hftrace.render.compare.options import CompareOptions
    from hftrace.render.compare.screen import next_view, screen
    from hftrace.render.screen import command_line, show_command
    from hftrace.render.text import clean

    options = CompareOptions(ranked, model)
    if view is None:
        drawn = screen(comparison, options)
    else:
        drawn = [block for name in shown_by(VIEWS, view) for block in load(name).draw(comparison, options)]
    words = ["hftrace", "compare", *arguments]
    words += ["--baseline", baseline] if baseline is not None else []
    words += ["--view", next_view(comparison, view)]
    command = " ".join(shlex.quote(clean(word)) for word in words)
    drawn.append(command_line(show_command(last) if view == ALL else command))
    return drawn


def named_groups(arguments: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Returns name and paths of each group, from the arguments of the command line.

    ``NAME=FILE[,FILE...]`` is a group; everything else is files with a group each. Patterns are expanded
    where there is no file of that very name.

    Raises:
        UsageError: A pattern matches nothing, a name is missing or taken.
    """
    if len(arguments) == 1 and os.path.isdir(arguments[0]):
        from hftrace.cli.measure import groups_of

        return groups_of(Path(arguments[0]))
    groups: list[tuple[str, list[str]]] = []
    for argument in arguments:
        name, separator, value = argument.partition("=")
        # A path may hold anything: one that is there is a path.
        if not separator or os.path.exists(argument) or os.sep in name:
            groups += [("", [path]) for path in _paths(argument)]
            continue
        if not name or not value:
            raise UsageError(f"{argument!r} is no group of traces: write NAME=FILE[,FILE...]")
        pieces = [value] if os.path.exists(value) else [piece for piece in value.split(",") if piece]
        groups.append((name, [path for piece in pieces for path in _paths(piece)]))
    given = [name for name, _ in groups if name]
    if len(set(given)) < len(given):
        raise UsageError("two groups have the same name: give each its own, as NAME=FILE[,FILE...]")
    taken = set(given)
    result = []
    for name, paths in groups:
        chosen = name or _free_name(paths[0], taken)
        taken.add(chosen)
        result.append((chosen, paths))
    return result


def _paths(pattern: str) -> list[str]:
    """Returns the files that a pattern matches, in order; a plain path is itself, there or not."""
    if os.path.exists(pattern) or not glob.has_magic(pattern):
        return [pattern]
    found = sorted(glob.glob(pattern, recursive=True))
    if not found:
        raise UsageError(f"no file matches {pattern!r}: check the pattern")
    return found


def _free_name(path: str, taken: set[str]) -> str:
    """Returns a name for the group of a file: its stem, with more of its path where that is taken."""
    parts = PurePath(path).parts
    stem = parts[-1] if parts else path
    for suffix in SUFFIXES:
        if stem.endswith(suffix) and len(stem) > len(suffix):
            stem = stem[: -len(suffix)]
            break
    if stem not in taken:
        return stem
    longer = f"{parts[-2]}/{stem}" if len(parts) > 1 else stem
    number = 2
    name = longer
    while name in taken:
        name = f"{longer} {number}"
        number += 1
    return name
