"""Kills the processes of real loads at real moments, and demands that nothing is lost.

    python tests/integration/kills.py                         60 kills (ten minutes on two cores)
    python tests/integration/kills.py --count 8 --seed 3      as many, at other moments
    python tests/integration/kills.py --only supervisor       one target alone; also --moment weights

Each load is the command's own, `hftrace load`, of a tiny model that is slowed
down and keeps a log of its own. Killed with SIGKILL is the loading process,
the supervisor, the sampler, or all at once; while modules are imported, while
files are looked for, among the weights, and while the end is written. Every
kill must leave a trace that can be read, or a journal that `hftrace recover`
makes one of; and what that trace says of the end (status, last phase, last
tensor, what became of the sampler) must be what the log of the load says.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from processes import SLOW_MODULE, SlowLoad, command, finish, wait_for

import hftrace
from hftrace.synth import write_many
from hftrace.system.processes import children_of, start_ticks

TARGETS = ("child", "supervisor", "sampler", "all")
MOMENTS = ("import", "resolve", "weights", "writing")
TENSORS = 120
LOOK_SECONDS = 0.4
"""How long the slowed-down loader looks for each file."""
SETTLED_NS = 250_000_000
"""What happened so long before a death is in the trace: DESIGN.md says 50 ms, and the machine is busy."""
MODULE = (
    SLOW_MODULE
    + f'''

class Looking(Slow):
    """Looks for each file slowly as well, and says so."""

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        log = os.open(os.environ["SLOW_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        isfile = os.path.isfile

        def slow(path):
            os.write(log, b"0 (looking)\\n")
            time.sleep({LOOK_SECONDS} if os.environ.get("SLOW_FILES") else 0)
            return isfile(path)

        os.path.isfile = slow
        return super().from_pretrained(*args, **kwargs)


Slow = Looking
'''
)
"""The slow module of :mod:`processes`, which looks for files slowly too."""


@dataclass(frozen=True)
class Kill:
    """Which process is killed, and when.

    Args:
        target: One of :data:`TARGETS`.
        moment: One of :data:`MOMENTS`.
        when: How far into the moment, 0 to 1.
    """

    target: str
    moment: str
    when: float

    def __str__(self) -> str:
        return f"{self.target} at {self.moment} {self.when:.2f}"


class Place:
    """A directory with the checkpoint and the module that all loads share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "modules").mkdir()
        (folder / "modules" / "slow_module.py").write_text(MODULE)
        self.checkpoint = folder / "many"
        self.checkpoint.mkdir()
        write_many(self.checkpoint, TENSORS, max_shard_size="150kB")


class Victim(SlowLoad):
    """A load whose processes are killed."""

    def __init__(self, place: Place, name: str, kill: Kill) -> None:
        slow = {"SLOW_DELAY": "0.02"} if kill.moment == "weights" else {"SLOW_DELAY": "0"}
        if kill.moment == "resolve":
            slow["SLOW_FILES"] = "1"
        super().__init__(place.folder, place.checkpoint, name, ("-q",), **slow)
        self.kill = kill

    def wait_until(self) -> None:
        """Waits for the moment."""
        when = self.kill.when
        if self.kill.moment == "import":
            self.child()
            time.sleep(when * 0.8)
        elif self.kill.moment == "resolve":
            wait_for(lambda: self.looked() > when * 2, "a file that is looked for")
            time.sleep(0.1)
        elif self.kill.moment == "weights":
            self.wait_placed(5 + round(when * TENSORS / 2))
        elif self.kill.target in ("supervisor", "all"):
            wait_for(self.has_ended, "the end of the load")
            time.sleep(when * 0.1)
        else:
            self.wait_placed(TENSORS - 10)
            time.sleep(when * 0.3)

    def looked(self) -> int:
        """Returns how often a file was looked for."""
        self.ended()
        return self.log.read_text().count("(looking)") if self.log.exists() else 0

    def placed(self) -> list[tuple[int, str]]:
        """Returns (time_ns, name) of everything that the loader placed, as it says itself."""
        return [(when, name) for when, name in super().placed() if when]

    def has_ended(self) -> bool:
        """Returns whether the supervisor has seen the end of the load, and makes its trace."""
        for log in self.folder.glob(".hftrace-run-*/supervisor.jsonl"):
            with contextlib.suppress(OSError):
                return b'["end"' in log.read_bytes()
        return self.process.poll() is not None

    def processes(self) -> dict[str, int]:
        """Returns the id of each process of the load that lives."""
        found = {"supervisor": self.process.pid}
        for pid in children_of(self.process.pid):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
                found["sampler" if b"sampler.py" in words else "child"] = pid
        return found


def kill(victim: Victim) -> dict[str, int]:
    """Kills at the moment; returns the processes that were there, and notes when."""
    victim.wait_until()
    there = victim.processes()
    named = there if victim.kill.target == "all" else {victim.kill.target: there.get(victim.kill.target)}
    for pid in named.values():
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    return there


def trace_of(victim: Victim, there: dict[str, int]) -> tuple[hftrace.Trace, str]:
    """Returns the trace that a kill has left, and how it came about: ``written`` or ``recovered``.

    Raises:
        AssertionError: There is none, and none can be made.
    """
    done = finish(victim.process, victim.folder)
    if "child" in there:
        wait_for(lambda: start_ticks(there["child"]) is None, "the end of the loading process")
    out = victim.folder / "out.json"
    if out.exists():
        return hftrace.Trace.open(out), "written"
    journal = next(victim.folder.glob(".hftrace-run-*/journal-*.jsonl"), None)
    assert journal is not None, f"neither a trace nor a journal: {done.stderr}"
    recovered = command("recover", ".", "-o", "recovered.json", "-q", "--delete", cwd=victim.folder)
    assert recovered.code == 0, recovered.stderr
    assert not list(victim.folder.glob(".hftrace-run-*")), "what was recovered is left"
    return hftrace.Trace.open(victim.folder / "recovered.json"), "recovered"


def check(victim: Victim, trace: hftrace.Trace, how: str, there: dict[str, int], death_ns: int) -> None:
    """Holds what a trace says of the end against what is known.

    Raises:
        AssertionError: It says something else.
    """
    target, moment = victim.kill.target, victim.kill.moment
    outcome = trace.outcome
    died = "child" in there and target in ("child", "all")
    finished = len(victim.placed()) >= TENSORS
    if not died:
        assert outcome["status"] == "ok", dict(outcome)
    elif not finished:
        assert outcome["status"] == "killed", dict(outcome)
    if how == "written" and died and outcome["status"] == "killed":
        assert (outcome["signal"], outcome["exit_code"]) == ("SIGKILL", -9), dict(outcome)
    if how == "recovered":
        assert trace.header["recovered"] is True
        # Nobody has seen how it ended; only that it did.
        assert outcome["exit_code"] is None or victim.kill.moment == "writing", dict(outcome)
    if outcome["status"] == "ok":
        assert len(trace.tensors) >= TENSORS
        assert all(row.provenance == "checkpoint" for row in trace.tensors if row.kind == "parameter")
    elif not finished:
        check_last_words(victim, outcome, death_ns - trace.header["clock_base_ns"], trace)
    if target == "sampler" and "sampler" in there and "child" in there and moment != "writing":
        (ended,) = trace.header["sampling"]["ended"]
        assert (ended["how"], ended["signal"], ended["replaced_by"]) == ("killed", "SIGKILL", "supervisor")
        last = max(row.time_ns for row in trace.samples if row.rss_anon_bytes is not None)
        assert last > ended["time_ns"], "no samples after the sampler's death"


def check_last_words(victim: Victim, outcome: dict, death_ns: int, trace: hftrace.Trace) -> None:
    """Holds last phase and last tensor of a load that was killed against the loader's own log."""
    moment = victim.kill.moment
    phase, tensor = outcome["last_phase"], outcome["last_tensor"]
    if moment == "import":
        assert phase in ("import", None), dict(outcome)
        assert tensor is None
    elif moment == "resolve":
        assert phase in ("resolve", "config"), dict(outcome)
        assert tensor is None
    elif moment == "weights":
        assert phase in ("weights", "shard", "convert"), dict(outcome)
        base = trace.header["clock_base_ns"]
        before = [name for when, name in victim.placed() if when - base < death_ns - SETTLED_NS]
        known = {row.name for row in trace.tensors if row.placed_ns is not None}
        assert set(before) <= known, sorted(set(before) - known)
        assert tensor in {name for _, name in victim.placed()} | {row.name for row in trace.tensors}


def die(place: Place, name: str, kind: Kill) -> str:
    """Does one kill; returns how its trace came about.

    Raises:
        AssertionError: Something was lost, or is said wrongly.
    """
    victim = Victim(place, name, kind)
    try:
        there = kill(victim)
        death_ns = time.monotonic_ns()
        trace, how = trace_of(victim, there)
    finally:
        with contextlib.suppress(OSError):
            os.killpg(victim.process.pid, signal.SIGKILL)
    try:
        check(victim, trace, how, there, death_ns)
    except AssertionError as error:
        raise AssertionError(f"{kind} ({how}): {error or 'the trace says something else'}") from error
    return how


def plan(count: int, seed: int, only: str | None, moment: str | None) -> Iterator[Kill]:
    """Yields so many kills, of all targets and moments alike."""
    generator = random.Random(seed)
    kinds = [
        (target, when)
        for target in TARGETS
        for when in MOMENTS
        if only in (None, target) and moment in (None, when)
    ]
    for number in range(count):
        yield Kill(*kinds[number % len(kinds)], generator.random())


def main() -> int:
    """Runs the command line; returns 0 where nothing was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=TARGETS)
    parser.add_argument("--moment", choices=MOMENTS)
    parser.add_argument("--jobs", type=int, default=2, help="loads at a time [default: 2]")
    options = parser.parse_args()
    tally: collections.Counter[str] = collections.Counter()
    failures = []
    with tempfile.TemporaryDirectory(prefix="kills-") as folder, ThreadPoolExecutor(options.jobs) as pool:
        place = Place(Path(folder))
        kinds = list(plan(options.count, options.seed, options.only, options.moment))
        futures = [pool.submit(die, place, f"kill-{number}", kind) for number, kind in enumerate(kinds)]
        for kind, future in zip(kinds, futures, strict=True):
            try:
                tally[future.result()] += 1
            except Exception as error:
                failures.append(f"{kind}: {type(error).__name__}: {error}")
                print(failures[-1], flush=True)
    print(json.dumps({"kills": options.count, **tally, "failed": len(failures)}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
