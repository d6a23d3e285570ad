"""The ranks of a job in words, for the first screen."""

from __future__ import annotations

from hftrace import units
from hftrace.analysis.ranks.job import Job, job_of
from hftrace.analysis.values import natural, text
from hftrace.render.text import TIMES, clean
from hftrace.schema.trace import Trace

CLOCKS = {
    "barrier": "clocks by the first barrier",
    "wall": "clocks by the wall clock, to some milliseconds",
}
MAX_ENDINGS = 3


def ranks_words(trace: Trace) -> str:
    """Returns how many ranks there are, what they hold and read, and which is the slowest; else empty."""
    job = job_of(trace)
    if job is None:
        return ""
    parts = [_count_words(job)]
    loading = [rank for rank in job.ranks if rank.loads]
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
        words += f", {units.duration(slowest.phase_by_ns)} of it in {slowest.phase}"
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
    for each in endings[1 : 1 + MAX_ENDINGS]:
        name, phase = text(each.get("open_name")), text(each.get("open_phase"))
        was = f"waited in {clean(name)}" if name and phase in ("wait", "mesh") else ""
        was = was or (f"was in {clean(name)}" if name else "was in its own code")
        said.append(f"rank {natural(each.get('rank'))} {was} then, and {_how(each)}")
    more = len(endings) - 1 - MAX_ENDINGS
    return "; ".join(said) + (f"; {units.count(more, 'more rank')}" if more > 0 else "")


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
