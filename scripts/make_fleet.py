"""Writes a folder of traces as a fleet would leave them, with slow releases and slow hosts planted in it.

    python scripts/make_fleet.py FOLDER [--traces 10000] [--hosts 200] [--seed 7] [--parquet]

For the queries of docs/fleets.md, which a test runs: each trace is a recorded one whose phases were
stretched, on a host and with a release that were drawn. What was planted stands in FOLDER/planted.json.
Nothing of this was measured on a fleet.
"""

from __future__ import annotations

import argparse
import bisect
import dataclasses
import datetime
import itertools
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hftrace.export import Wish, exporter
from hftrace.schema.model import Facts, Table
from hftrace.schema.trace import Trace

SOURCE = Path(__file__).resolve().parents[1] / "traces" / "examples" / "llama-D-5.23.0.json"
RELEASES = ("5.17.0", "5.20.2", "5.23.0", "5.24.0")
"""In the order in which the fleet was upgraded, a week each."""
SLOW_HOSTS, SLOWER = 3, 2.5
"""Hosts whose disks are slow, and by what their weights take longer."""
REGRESSIONS = {"5.23.0": ("import", 1.6), "5.24.0": ("import", 1.6)}
"""The phase that takes longer from this release on, and by what."""
NOISE = 0.08
"""Standard deviation of the logarithm of each phase's time: as on machines that are shared."""
BEGAN = datetime.datetime(2026, 10, 1, tzinfo=datetime.timezone.utc)
SAMPLES = 10
"""Of the readings of memory every tenth is kept: none of the queries asks for them."""


def warp(pieces: list[tuple[int, int, float]]) -> Callable[[int], int]:
    """Returns what stretches time within each piece, and moves what comes after it.

    Args:
        pieces: Start, end and factor of each, in order, none in another.
    """
    edges, moved, shift = [], [], 0.0
    for start, end, factor in pieces:
        edges += [start, end]
        moved += [(start + shift, factor), (end + shift + (end - start) * (factor - 1), 1.0)]
        shift += (end - start) * (factor - 1)

    def at(time: int) -> int:
        place = bisect.bisect_right(edges, time) - 1
        if place < 0:
            return time
        begun, factor = moved[place]
        return round(begun + (time - edges[place]) * factor)

    return at


def stretched(trace: Trace, factors: dict[str, float]) -> Trace:
    """Returns a trace whose leaves of these phases took longer, and all that contains them as well."""
    parents = {parent for parent in trace.spans.column("parent") if parent is not None}
    leaves = sorted(
        (span.start_ns, span.end_ns, factors[span.phase])
        for span in trace.spans
        if span.id not in parents and span.phase in factors
    )
    apart = [piece for before, piece in itertools.pairwise([(0, -1, 1.0), *leaves]) if piece[0] >= before[1]]
    at = warp(apart)

    def table(rows: Table[Any], names: tuple[str, ...]) -> Table[Any]:
        columns = dict(rows.columns)
        for name in names:
            columns[name] = [value if value is None else at(value) for value in columns[name]]
        return Table(rows.row_type, columns)

    times = ("read_start_ns", "read_end_ns", "placed_ns", "convert_start_ns", "convert_end_ns")
    return dataclasses.replace(
        trace,
        spans=table(trace.spans, ("start_ns", "end_ns")),
        tensors=table(trace.tensors, times),
        samples=Table.of(trace.samples.row_type, list(table(trace.samples, ("time_ns",)))[::SAMPLES]),
    )


def made(
    source: Trace, draw: random.Random, number: int, count: int, hosts: list[str], slow: list[str]
) -> tuple[str, Trace]:
    """Returns the name and the trace of one start of the fleet."""
    when = BEGAN + datetime.timedelta(weeks=len(RELEASES)) * (number / count)
    release = RELEASES[number * len(RELEASES) // count]
    host = draw.choice(hosts)
    factors = {phase: draw.lognormvariate(0, NOISE) for phase in ("import", "weights", "finalize")}
    phase, factor = REGRESSIONS.get(release, ("import", 1.0))
    factors[phase] *= factor
    if host in slow:
        factors["weights"] *= SLOWER
    trace = dataclasses.replace(
        stretched(source, factors),
        header=Facts({**source.header, "start_time": when.isoformat(timespec="milliseconds")}),
        environment=Facts({**source.environment, "transformers": release, "host": host}),
    )
    return f"{when:%Y%m%dT%H%M%S}-{host}-{number:05}", trace


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--traces", type=int, default=10_000)
    parser.add_argument("--hosts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--parquet", action="store_true", help="the table of loads of each, beside it")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(options.seed)
    hosts = [f"node-{number:03}" for number in range(options.hosts)]
    slow = sorted(draw.sample(hosts, SLOW_HOSTS))
    source = Trace.open(SOURCE)
    write = exporter("parquet").write if options.parquet else None
    for number in range(options.traces):
        name, trace = made(source, draw, number, options.traces, hosts, slow)
        path = options.folder / f"{name}.json.gz"
        trace.save(path)
        if write is not None:
            with (options.folder / f"{name}.parquet").open("wb") as stream:
                write([trace], stream, Wish((str(path),), "loads"))
    planted = {"slow_hosts": slow, "slower": SLOWER, "regressions": REGRESSIONS}
    (options.folder / "planted.json").write_text(json.dumps(planted, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
