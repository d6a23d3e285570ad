"""``hftrace merge``: the traces of the ranks of a job become one."""

from __future__ import annotations

import sys

import click

from hftrace.cli.common.finish import save
from hftrace.cli.common.output import print_error, print_json
from hftrace.cli.common.paths import free_output
from hftrace.errors import EXIT_OK


@click.command("merge", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("paths", metavar="TRACE...", nargs=-1, required=True, type=click.Path())
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    required=True,
    help="Where the trace of all goes; .gz compresses, - is stdout.",
)
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print what was merged as JSON.")
def command(paths: tuple[str, ...], output: str, force: bool, as_json: bool) -> int:
    """Make one trace of those of the ranks of a job.

    Ranks of one machine that name one file make one trace without being asked. This is for several
    machines, each of which has made one, and for ranks that named files of their own. Clocks of one machine
    are the same; those of several are brought together at the first barrier of the process group where it was
    recorded, and by the wall clock otherwise. The trace says which.
    """
    target = None if output == "-" else free_output(output, force)

    from hftrace.replay.merging.merge import merge
    from hftrace.schema.trace import Trace

    trace = merge([(path, Trace.open(path)) for path in paths])
    saved = save(trace, target)
    merged = trace.header["merged"]
    if as_json and target is not None:
        print_json({"trace": str(saved.target), "ranks": trace.header["ranks"], **merged})
    elif target is not None:
        ranks = trace.header["ranks"]
        what = f"{len(ranks)} of {trace.header['world_size']} ranks"
        how = {"monotonic": "one clock", "barrier": "clocks by the first barrier", "wall": "wall clocks"}
        print_error(f"wrote {saved.target} of {what}, {how[merged['clocks']]}")
        sys.stderr.flush()
    return EXIT_OK
