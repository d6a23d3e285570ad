"""``hftrace export``: writes a saved trace as a file that other programs open."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import click

from hftrace.cli.common.loads import load_option, of_load
from hftrace.errors import HftraceError, UsageError
from hftrace.export import FORMATS, TABLES, Format, Wish, exporter, format_for


@click.command("export")
@click.argument("paths", metavar="TRACE...", nargs=-1, required=True, type=click.Path())
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
@load_option
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
    load_number: int | None,
    output: str,
    force: bool,
) -> None:
    """Write a saved trace in a format that other programs open.

    The end of FILE says which format, where it is plain; --format says it always.
    """
    if output == "-" and name is None:
        raise UsageError(
            f"say what to write: --format {' or '.join(FORMATS)}, or -o with a FILE whose end says it"
        )
    name = format_for(output, name)
    wish = Wish(paths, _table(FORMATS[name], name, table))
    if len(paths) > 1 and not FORMATS[name].takes_many:
        raise UsageError(f"a file of format {name} holds one trace, and {len(paths)} were named")
    target = None if output == "-" else _target(output, force)
    from hftrace.schema.trace import Trace

    # Nothing of a large trace becomes garbage before the process ends: collecting would only walk it.
    collecting = gc.isenabled()
    gc.disable()
    try:
        traces = [of_load(Trace.open(path), path, load_number) for path in paths]
        writer = exporter(name)
        if target is None:
            writer.write(traces, sys.stdout.buffer, wish)
            sys.stdout.buffer.flush()
        else:
            _write(target, lambda stream: writer.write(traces, stream, wish))
    finally:
        if collecting:
            gc.enable()


def _table(entry: Format, name: str, table: str | None) -> str:
    """Returns the table to write; empty for a format that has none."""
    if entry.is_table and table is None:
        raise UsageError(f"format {name} holds one table: say which with --table {'|'.join(TABLES)}")
    if table is not None and not entry.is_table:
        raise UsageError(f"--table is for formats that hold one table, and {name} does not")
    return table or ""


def _target(output: str, force: bool) -> Path:
    """Returns where the file goes.

    Raises:
        UsageError: It is there already, or is a directory.
    """
    path = Path(output).expanduser()
    if path.is_dir():
        raise UsageError(f"{output} is a directory: name a file in it")
    if path.exists() and not force:
        raise UsageError(f"{output} exists: choose another name, or --force to overwrite it")
    return path


def _write(target: Path, write: Callable[[BinaryIO], None]) -> None:
    """Writes a file so that a reader never sees half of it: a new file, then a rename.

    Raises:
        HftraceError: The file cannot be written.
    """
    try:
        target = Path(os.path.realpath(target))
        if target.exists() and not target.is_file():
            with target.open("wb") as stream:  # a pipe or a device cannot be replaced, only written to
                write(stream)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".hftrace-", suffix=".tmp")
        temporary = Path(name)
        try:
            with open(descriptor, "wb") as stream:
                write(stream)
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(target)
        except BaseException:
            temporary.unlink()
            raise
    except OSError as error:
        raise HftraceError(f"cannot write {target}: {error.strerror or error}") from None


def _umask() -> int:
    """Returns the process's mask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
