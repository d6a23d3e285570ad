"""Makes the trace of a run from all that it left, with the post-mortem of a load that died."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hftrace.analysis.ending.death_facts import DeathFacts
from hftrace.analysis.ending.evidence import piece
from hftrace.analysis.ending.postmortem import post_mortem
from hftrace.launch.ending.evidence import OomCounters
from hftrace.launch.run_directory import RunFacts
from hftrace.launch.watchdog import crash_stack
from hftrace.replay.trace import replay
from hftrace.schema.model import Facts
from hftrace.schema.trace import Trace
from hftrace.system.kernel_log import kernel_kill_message

CRASH_NAMES = {
    "Segmentation fault": "SIGSEGV",
    "Bus error": "SIGBUS",
    "Floating point exception": "SIGFPE",
    "Floating-point exception": "SIGFPE",
    "Aborted": "SIGABRT",
    "Illegal instruction": "SIGILL",
}
"""faulthandler's names of signals."""


def signal_name(number: int) -> str:
    """Returns the name of a signal, such as ``SIGKILL``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def exit_status(end: Mapping[str, Any] | None, stack: str | None) -> dict[str, Any]:
    """Returns exit code, signal and status, as far as somebody or something has seen them.

    Args:
        end: Facts of the supervisor's line ``end``; None where it had died.
        stack: What the process wrote while it crashed.
    """
    facts: dict[str, Any] = {}
    code = end.get("exit_code") if end is not None else None
    if isinstance(code, int):
        facts["exit_code"] = code
        if code < 0:
            facts["signal"] = signal_name(-code)
            facts["status"] = "killed"
        if end is not None and end.get("interrupted"):
            facts["status"] = "interrupted"
            # Whoever ended the command: its own signal, and not the one that it ended the load with.
            facts.pop("signal", None)
            if end.get("signal") is not None:
                facts["signal"] = end["signal"]
    elif stack is not None:
        first = stack.partition("\n")[0]
        facts["signal"] = next((name for words, name in CRASH_NAMES.items() if words in first), None)
        facts["status"] = "killed"
    return facts


def build_trace(run: Path, facts: RunFacts, counters: OomCounters | None, *, running: bool = False) -> Trace:
    """Builds the trace of a run that has ended, or whose recording has.

    Args:
        run: Its directory.
        facts: What the supervisor knew.
        counters: Compares counters with those of the time before the load.
        running: Whether the process lives, if it was not stopped in order.

    Raises:
        TraceError: There is no readable journal.
    """
    stack = crash_stack(run)
    ending = exit_status(facts.end, stack)
    header = facts.block("header")
    started = facts.child.get("start_ns")
    started = started if isinstance(started, int) else None
    if started is not None:
        end_ns = facts.end.get("end_ns") if facts.end is not None else None
        header = {**header, "child": {"start_ns": started, "end_ns": end_ns}}
    pid = facts.child.get("pid")
    is_program = header.get("command") == "run"
    trace = replay(
        run,
        header=header,
        request=facts.block("request"),
        outcome=ending,
        started_ns=started,
        root=pid if is_program else None,
        running=running,
    )
    limits = facts.block("limits")
    died = trace.outcome.get("status") == "killed"
    signalled = trace.outcome.get("signal")
    reached = "limit" in (trace.header.get("sampling") or {})
    asked_by_us = reached or facts.timeout is not None or facts.unwatched is not None
    by_kernel = died and not asked_by_us and signalled in (None, "SIGKILL")
    seen = facts.end is not None
    mortem = post_mortem(
        trace,
        DeathFacts(
            memory_limit_bytes=limits.get("memory_limit_bytes"),
            cgroup_limit_bytes=limits.get("cgroup_bytes"),
            ram_bytes=limits.get("ram_bytes"),
            timeout_seconds=(facts.timeout or {}).get("seconds"),
            unwatched=str(facts.unwatched.get("reason")) if facts.unwatched is not None else None,
            group_kills=counters.delta("group_kills") if counters is not None and by_kernel else None,
            system_kills=counters.delta("system_kills") if counters is not None and by_kernel else None,
            kernel_message=(
                kernel_kill_message(pid, started) if by_kernel and pid and started is not None else None
            ),
            stack=stack or (facts.timeout or {}).get("stack"),
            end_unknown=not seen and stack is None,
        ),
    )
    base = int(trace.header["clock_base_ns"])
    if facts.stalls:
        mortem["stalls"] = [
            {
                **{name: value for name, value in stall.items() if name != "since_ns"},
                "time_ns": int(stall["time_ns"]) - base,
            }
            for stall in facts.stalls
            if "time_ns" in stall
        ]
    if mortem["killer"] in ("memory-limit", "limit-unwatched") and trace.outcome.get("signal") is None:
        mortem["signal"] = "SIGKILL"  # hftrace sent it, whoever did not see it arrive
    if running and died:
        # Nobody has killed it; only the recording ends here, for one that could not be told so.
        mortem |= {"status": "interrupted", "killer": None, "evidence": [piece("still-running")]}
    trace = dataclasses.replace(trace, outcome=Facts({**trace.outcome, **mortem}))
    return with_samplers(trace, facts.samplers)


def with_samplers(trace: Trace, ended: Sequence[Mapping[str, Any]]) -> Trace:
    """Returns a trace that says what became of its samplers: of each that did not live as long as the load.

    Args:
        trace: The trace.
        ended: The facts of each; ``time_ns`` is a raw clock reading.
    """
    if not ended:
        return trace
    base = int(trace.header["clock_base_ns"])
    ends = [{**each, "time_ns": each["time_ns"] - base if each.get("time_ns") else None} for each in ended]
    sampling = {**(trace.header.get("sampling") or {}), "ended": ends}
    return dataclasses.replace(trace, header=Facts({**trace.header, "sampling": sampling}))
