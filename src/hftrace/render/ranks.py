"""The ranks of a job in words, for the first screen."""

from __future__ import annotations

from hftrace import units
from hftrace.analysis.ranks.job import Job, job_of
from hftrace.analysis.time.imports import told_rank
from hftrace.analysis.time.tree_node import Node
from hftrace.analysis.values import natural, text
from hftrace.render.text import TIMES, clean
from hftrace.schema.trace import Trace

CLOCKS = {
    "barrier": "clocks by the first barrier",
    "wall": "clocks by the wall clock, to some milliseconds",
}
FEW_RANKS = 2
"""Of so many the first screen has the whole call tree."""
MAX_ENDINGS = 3
"""Ways to end that are told, each with its ranks."""
MAX_NAMED = 8


def ranks_words(trace: Trace) -> str:
    """Returns how many ranks there are, what they hold and read, and which is the slowest; else empty."""
    job = job_of(trace)
    if job is None:
        return ""
    parts = [_count_words(job)]
    # What one has that was cut short is not what it was to hold.
    loading = [rank for rank in job.ranks if rank.loads and not rank.cut]
    if loading and job.whole_bytes:
        held = [rank.held_bytes for rank in loading]
        least, most = units.byte_count(min(held)), units.byte_count(max(held))
        each = most if least == most else f"{least} to {most}"
        parts.append(f"each holds {each} of {units.byte_count(job.whole_bytes)}")
    if job.read_amplification is not None:
        parts.append(amplification_words(job))
    waits = [rank.wait_ns + rank.mesh_ns for rank in job.ranks]
    if any(waits):
        parts.append(f"waiting and mesh up to {units.duration(max(waits))}")
    if job.slowest is not None:
        parts.append(slowest_words(job))
    return "; ".join(parts)


def amplification_words(job: Job) -> str:
    """Returns how often the checkpoint came from storage; empty where that was not seen on every rank."""
    if job.read_amplification is None:
        return ""
    if not job.read_amplification:
        return "nothing of the checkpoint came from storage"
    return f"{job.read_amplification:.2f} {TIMES} the checkpoint came from storage"


def slowest_words(job: Job) -> str:
    """Returns which rank is the slowest, by how much, and in what; nothing where none is."""
    slowest = job.slowest
    if slowest is None:
        return ""
    words = f"rank {slowest.rank} is the slowest, by {units.duration(slowest.by_ns)}"
    if slowest.phase is not None:
        spent = units.duration(slowest.phase_by_ns)
        # In another phase it may have been the faster one.
        whole = slowest.phase_by_ns <= slowest.by_ns
        words += f", {spent} of it in {slowest.phase}" if whole else f", in {slowest.phase} by {spent}"
    return words


def _count_words(job: Job) -> str:
    words = f"{len(job.ranks)} of {job.world_size}"
    if len(job.machines) > 1:
        words += f" on {len(job.machines)} machines"
    if job.clocks in CLOCKS:
        words += f", {CLOCKS[job.clocks]}"
    return words


def together_words(trace: Trace) -> str:
    """Returns the memory of all ranks of each machine together; empty where it is not known of all."""
    job = job_of(trace)
    if job is None or any(machine.anonymous_peak_bytes is None for machine in job.machines):
        return ""
    said = []
    for machine in job.machines:
        name = f"ranks {', '.join(map(str, machine.ranks))}: " if len(job.machines) > 1 else ""
        said.append(
            f"{name}{units.byte_count(machine.anonymous_peak_bytes)} anonymous at one time; of files up to "
            f"{units.byte_count(machine.file_largest_bytes)} each, which they may share"
        )
    return "; ".join(said)


def endings_words(trace: Trace) -> str:
    """Returns which rank failed first, and what the others were in then; empty where all ended well."""
    known = trace.outcome.get("by_rank")
    endings = [each for each in known if isinstance(each, dict)] if isinstance(known, list) else []
    if len(endings) < 2 or endings[0].get("status") == "ok":
        return ""
    said = [f"rank {natural(endings[0].get('rank'))} {_how(endings[0])} first"]
    together: dict[tuple[str, str], list[str]] = {}
    for each in sorted(endings[1:], key=lambda each: natural(each.get("rank")) or 0):
        together.setdefault((_where(each), _how(each)), []).append(str(natural(each.get("rank"))))
    for (where, how), ranks in [*together.items()][:MAX_ENDINGS]:
        words = f"{where} then, and {how}"
        if len(ranks) > 1:
            words = words.replace("was ", "were ")
        shown = ", ".join(ranks[:MAX_NAMED]) + (", …" if len(ranks) > MAX_NAMED else "")
        said.append(f"rank{'s' if len(ranks) > 1 else ''} {shown} {words}")
    more = sum(len(ranks) for ranks in [*together.values()][MAX_ENDINGS:])
    return "; ".join(said) + (f"; {units.count(more, 'more rank')}" if more > 0 else "")


def of_some_ranks(trace: Trace, roots: list[Node]) -> list[Node]:
    """Returns the lines of a call tree that the first screen has room for.

    Ranks do the same. Of more than two there are those of the first one, of the slowest, and of the one that
    failed first.
    """
    job = job_of(trace)
    if job is None or len(job.ranks) <= FEW_RANKS:
        return roots
    told = {told_rank(trace), job.slowest.rank if job.slowest is not None else None, _first_dead(trace)}
    shown = [root for root in roots if root.pid is None or root.rank in told]
    left_out = len({root.rank for root in roots if root.pid is not None} - told)
    if left_out:
        words = "more rank" if left_out == 1 else "more ranks"
        shown.append(Node(kind="hidden", label=words, hint="--view tree", count=left_out))
    return shown


def _first_dead(trace: Trace) -> int | None:
    """Returns the rank that failed first; None where all ended well."""
    known = trace.outcome.get("by_rank")
    first = known[0] if isinstance(known, list) and known and isinstance(known[0], dict) else {}
    return natural(first.get("rank")) if first.get("status") not in (None, "ok") else None


def _where(ending: dict[str, object]) -> str:
    """Returns what a rank was in when the first one failed."""
    name, phase = text(ending.get("open_name")), text(ending.get("open_phase"))
    if not name:
        return "was in its own code"
    return f"{'waited' if phase in ('wait', 'mesh') else 'was'} in {clean(name)}"


def _how(ending: dict[str, object]) -> str:
    status, signal = text(ending.get("status")), text(ending.get("signal"))
    if status == "killed":
        return f"was killed by {clean(signal)}" if signal else "was killed"
    if status == "error":
        error = text(ending.get("error"))
        return f"failed with {clean(error)}" if error else "failed"
    if status == "interrupted":
        return "was interrupted"
    return "ended well" if status == "ok" else "ended in a way that is not known"
