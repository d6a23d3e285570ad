"""The rule about a load that waits for those that read its weights: what limited these, and what to do."""

from __future__ import annotations

from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.findings.rules import (
    Finding,
    rule,
)
from hftrace.analysis.ledger.tensors import casts, tensor_sums
from hftrace.analysis.time.arrival import Arrival, arrival
from hftrace.analysis.time.limit import reading_cause
from hftrace.analysis.time.phases import loads_wall_ns
from hftrace.analysis.time.reading import weight_reading
from hftrace.analysis.time.weights import (
    cache_state,
    goes_to_a_device,
    read_rate,
    reader_waiting_ns,
    resident_share_before,
    storage_bytes,
    weight_bytes,
)
from hftrace.schema.trace import Trace
from hftrace.units import byte_count, duration

STORAGE_SHARE = 0.1
"""The share of the bytes read that must have come from storage before it is named as a part of the time."""


@rule(
    ("R24", "waiting-for-readers", "The thread that places tensors mostly waits for those that read them."),
    concerns="time",
    severity="info",
)
def waiting_for_readers(trace: Trace) -> Iterator[Finding]:
    """The thread that places tensors mostly waits for those that read them."""
    waiting = reader_waiting_ns(trace)
    if waiting < 1_000_000_000 or waiting <= 0.5 * loads_wall_ns(trace):
        return
    threads = units.count(len(weight_reading(trace).reader_threads), "reader thread")
    rate = read_rate(trace)
    reached = f" They reached {units.rate(rate)}." if rate else ""
    limit, advice = _reading_limit(trace)
    if (came := arrival(trace)) is not None:
        title, threads = "The main thread waits for weights to arrive", threads.replace("reader", "loader")
        limit, advice = _arriving(came)
    else:
        title = "The main thread waits for reads"
    yield Finding(
        "R24",
        "waiting-for-readers",
        title,
        f"It waited {duration(waiting)} of {duration(loads_wall_ns(trace))} for {threads}.{reached} {limit}",
        advice,
        cost_ns=waiting,
        numbers={
            "waiting_ns": waiting,
            "threads": len(weight_reading(trace).reader_threads),
            "storage_bytes": storage_bytes(trace),
            "read_bytes": weight_bytes(trace).read,
        },
    )


_MEASURED = {
    "processors": "Give the load processors of its own. Its readers and torch's threads compete as well: "
    "try it with OMP_NUM_THREADS=1.",
    "faults": "Faster storage would not help: the kernel maps pages one by one, of files and of new memory.",
    "cast": None,
}
"""What to do about a cause that the clocks of the readers prove; None: store in the dtype asked for."""


def _arriving(came: Arrival) -> tuple[str, str]:
    """Returns what is known of weights that something handed out, and what to do."""
    stored = came.storage_bytes
    part = f", {byte_count(stored)} of them from storage" if stored else ""
    if not came.in_background:
        return (
            f"These asked {came.handed_by} for {byte_count(came.bytes)}: how it reads was not seen.",
            "Trace the load once more without it, and compare the two.",
        )
    return (
        f"These waited in turn: the weights, {byte_count(came.bytes)}, were read by other threads, ahead of "
        f"them{part}. What those waited for is not recorded.",
        "See what this machine reads at best: hftrace floor. Try another number of threads that read ahead.",
    )


def _reading_limit(trace: Trace) -> tuple[str, str]:
    """Returns what limited those that read, as far as the counters prove it, and what to do about that."""
    read, stored = weight_bytes(trace).read, storage_bytes(trace)
    state = cache_state(resident_share_before(trace))
    changed = list(casts(tensor_sums(trace)))
    same_dtype = "Store the checkpoint in the dtype you ask for: then nothing is cast"
    same_dtype += "." if goes_to_a_device(trace) else ", and pages are only mapped."
    if stored is not None and read and stored >= STORAGE_SHARE * read:
        part = f"{byte_count(stored)} of {byte_count(read)} came from storage"
        if stored > read:  # the kernel reads ahead, and what else the process reads is in it
            part = f"{byte_count(stored)} came from storage for {byte_count(read)} of weights"
        if state == "warm":
            return (
                f"The files were in the page cache before, and {part} all the same: it did not keep them.",
                "Leave more memory to the page cache: it gives up files where processes need their room.",
            )
        return (
            f"Storage was a part of it: {part}.",
            "Read the files once before the load, so that they are in the page cache, or use faster storage.",
        )
    if stored is None and state != "warm":
        cache = f"the page cache was {'partly warm' if state == 'partly' else state}"
        found = "nothing is known of the page cache" if state is None else cache
        return (
            f"What limited them is not known: {found}, and what came from storage was not recorded.",
            same_dtype
            if changed
            else "Trace the load once more, with its files in the page cache, and compare the two.",
        )
    came = "Next to nothing came from storage" if stored is not None else "The page cache was warm"
    cause, words = reading_cause(trace)
    if cause in _MEASURED:
        return f"{came}: most of it was {words}.", _MEASURED[cause] or same_dtype
    stages = ["reading pages"]
    if changed:
        stages.append("casting {} to {}".format(*changed[0]))
    if goes_to_a_device(trace):
        stages.append("copying to a device")
    if len(stages) == 1:
        return f"{came}: the limit was {stages[0]} that were in memory.", "Faster storage would not help."
    floor = (
        "Faster storage would not help. Time safetensors.torch.load_file(path, device=...) on the same "
        "files: it says what this machine does without the loader."
    )
    advice = same_dtype if changed else floor
    return f"{came}: it was {' or '.join(stages)}; which of these is not recorded.", advice
