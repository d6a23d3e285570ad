"""``hftrace export``: writes a saved trace as a file that other programs open."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import click

from hftrace.cli.common.files import write_file
from hftrace.cli.common.loads import load_option, of_load
from hftrace.cli.common.opened import Opened, Shown
from hftrace.cli.common.redacting import redact_option, stand_ins
from hftrace.errors import UsageError
from hftrace.export import FORMATS, TABLES, Format, Wish, exporter, format_for


@click.command("export")
@click.argument(
    "paths", metavar="TRACE... | NAME=TRACE[,TRACE...]...", nargs=-1, required=True, type=click.Path()
)
@click.option(
    "--format",
    "name",
    type=click.Choice(list(FORMATS)),
    default=None,
    help="What to write.  [default: by the end of FILE]",
)
@click.option(
    "--table",
    type=click.Choice(TABLES),
    default=None,
    help="Which table, of a format that holds one.",
)
@click.option("--tensors", is_flag=True, help="A span for each tensor, too, of format otlp.")
@click.option(
    "--send",
    is_flag=True,
    help="Send format otlp to the collector at OTEL_EXPORTER_OTLP_ENDPOINT, instead of to a file.",
)
@load_option
@redact_option
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    default="-",
    help="Where it goes; '-' is standard output.  [default: -]",
)
@click.option("--force", is_flag=True, help="Overwrite FILE.")
def command(
    paths: tuple[str, ...],
    name: str | None,
    table: str | None,
    tensors: bool,
    send: bool,
    load_number: int | None,
    redact: bool | None,
    output: str,
    force: bool,
) -> None:
    """Write a saved trace in a format that other programs open.

    The end of FILE says which format, where it is plain; --format says it always.

    A page compares several traces, and groups of several runs, as compare does: NAME=A.json,B.json or
    NAME='runs/*.json' makes a group, and a directory of a comparison holds its own.
    """
    if send and name is None and output == "-":
        name = "otlp"
    if output == "-" and name is None:
        raise UsageError(
            f"say what to write: --format {' or '.join(FORMATS)}, or -o with a FILE whose end says it"
        )
    name = format_for(output, name)
    paths, groups = _grouped(paths, name)
    names = stand_ins(bool(redact))
    wish = Wish(
        Shown(paths, names.text),
        _table(FORMATS[name], name, table),
        tensors,
        "" if output == "-" else output,
    )
    if (tensors or send) and name != "otlp":
        raise UsageError(f"--{'tensors' if tensors else 'send'} is for format otlp, and this is {name}")
    if send and output != "-":
        raise UsageError("--send goes to a collector, and -o to a file: say one of them")
    if len(paths) > 1 and not FORMATS[name].takes_many:
        raise UsageError(f"a file of format {name} holds one trace, and {len(paths)} were named")
    target = None if output == "-" else _target(output, paths, force)
    from hftrace.render.text import clean
    from hftrace.schema.trace import Trace

    def opened(path: str) -> Trace:
        return of_load(names.trace(Trace.open(path)), path, load_number)

    # Nothing of a large trace becomes garbage before the process ends: collecting would only walk it.
    collecting = gc.isenabled()
    gc.disable()
    try:
        # Of tables one trace after the other is in memory: there may be ten thousand.
        traces = Opened(paths, opened) if FORMATS[name].is_table else [opened(path) for path in paths]
        # What stands for a name may be known only when its trace was read.
        wish = wish._replace(groups=[(names.text(group), count) for group, count in groups])
        writer = exporter(name)
        if send:
            from hftrace.export.otlp_send import send as to_collector

            click.echo(f"hftrace: sent to {to_collector(traces, tensors=tensors)}", err=True)
        elif target is None:
            writer.write(traces, sys.stdout.buffer, wish)
            sys.stdout.buffer.flush()
        else:
            write_file(target, lambda stream: writer.write(traces, stream, wish))
            click.echo(f"Wrote {clean(target)}", err=True)
    finally:
        if collecting:
            gc.enable()


def _grouped(paths: tuple[str, ...], name: str) -> tuple[tuple[str, ...], list[tuple[str, int]]]:
    """Returns the files that are named, and the groups of runs that they are, where groups are named.

    Raises:
        UsageError: Groups are named, and this format compares nothing.
    """
    as_groups = [path for path in paths if not os.path.isfile(path) and ("=" in path or os.path.isdir(path))]
    if not as_groups:
        return paths, []
    if name != "html":
        raise UsageError(f"{as_groups[0]} is a group of runs, which a page compares: -o with a FILE.html")
    from hftrace.cli.compare import named_groups

    groups = named_groups(paths)
    return tuple(path for _, own in groups for path in own), [(group, len(own)) for group, own in groups]


def _table(entry: Format, name: str, table: str | None) -> str:
    """Returns the table to write; empty for a format that has none."""
    if entry.is_table and table is None:
        raise UsageError(f"format {name} holds one table: say which with --table {'|'.join(TABLES)}")
    if table is not None and not entry.is_table:
        raise UsageError(f"--table is for formats that hold one table, and {name} does not")
    return table or ""


def _target(output: str, paths: tuple[str, ...], force: bool) -> Path:
    """Returns where the file goes.

    Raises:
        UsageError: It is there already, or is a directory, or one of the traces at ``paths``.
    """
    path = Path(output).expanduser()
    if any(os.path.exists(each) and path.exists() and path.samefile(each) for each in paths):
        raise UsageError(f"{output} is the trace itself: choose another name")
    if path.is_dir():
        raise UsageError(f"{output} is a directory: name a file in it")
    if path.exists() and not force:
        raise UsageError(f"{output} exists: choose another name, or --force to overwrite it")
    return path
