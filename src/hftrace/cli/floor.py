"""``hftrace floor``: what this machine can do for the bytes of a model, measured and kept."""

from __future__ import annotations

import os
import sys

import click

from hftrace import units
from hftrace.cli.common.formats import Output, result_options
from hftrace.cli.common.output import print_error
from hftrace.cli.common.values import parse_option
from hftrace.errors import EXIT_OK


@click.command("floor", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model")
@click.option("--devices", is_flag=True, help="Copy to accelerators too.")
@click.option(
    "--time", "time_", metavar="TIME", default="3s", show_default=True, help="The most that one figure takes."
)
@click.option(
    "--bytes",
    "bytes_",
    metavar="SIZE",
    default="2GB",
    show_default=True,
    help="The most that is read for one.",
)
@click.option(
    "--python", metavar="PATH", default=sys.executable, help="Import the libraries of this interpreter."
)
@result_options(quiet="the rate from storage and that from the page cache")
def command(
    model: str,
    devices: bool,
    time_: str,
    bytes_: str,
    python: str,
    out: Output,
) -> int:
    """Measure what this machine can do for the bytes of MODEL.

    MODEL is a directory, a weight file, or the name of a model in the cache of the
    Hub. Its files are dropped from the page cache and read from storage, then from the
    page cache, by one thread and by several; copies, casts and imports are timed in an
    interpreter of its own. The figures are kept for this machine and this file
    system: traces that are recorded from then on say how near to them they came.
    """
    from hftrace.launch.floors.measuring import measure, weight_files
    from hftrace.render.floor import floor_table, rates
    from hftrace.system.floors import keep_floors

    seconds = parse_option("--time", units.parse_duration, time_) / 1e9
    most = parse_option("--bytes", units.parse_size, bytes_)
    files = weight_files(model)
    figures = measure(
        files,
        python=python,
        seconds=seconds,
        most_bytes=most,
        devices=devices,
        told=lambda what: click.echo(f"{what} ...", err=True),
    )
    try:
        kept = keep_floors(os.fspath(files[0]), figures)
    except OSError as error:
        kept = None
        print_error(f"the figures cannot be kept: {error.strerror or error}")
    out.result(
        facts=lambda: {"model": model, **figures, "kept": os.fspath(kept) if kept is not None else None},
        blocks=lambda: [floor_table(figures, model)],
        quiet=lambda: rates(figures),
    )
    return EXIT_OK
