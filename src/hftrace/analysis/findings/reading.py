"""Rules about the rate of reading, held against what this machine was measured to read."""

from __future__ import annotations

from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.findings.rules import Finding, Where, first_few, rule
from hftrace.analysis.time.arrival import comes_before
from hftrace.analysis.time.efficiency import AT_THE_LIMIT, efficiency
from hftrace.analysis.time.limit import STORAGE_SHARE
from hftrace.analysis.time.split import weights_split
from hftrace.analysis.time.weights import reading_ns, storage_bytes, weight_bytes, weight_files
from hftrace.schema.trace import Trace
from hftrace.units import byte_count, duration

MIN_READING_NS = 1_000_000_000
"""What takes less is not worth a change."""
SLOW = 0.5
"""The share of the floor below which reading from storage is slow: floors vary by a fifth, not by half."""
WAITED = 0.25
"""The share of the readers' time that they must have waited, where faults do not say it by their number."""
PER_FAULT_BYTES = 256_000
"""What a fault that waits for storage brings in, at least, where the kernel reads ahead: megabytes mostly."""
REMOTE = (
    "nfs",
    "lustre",
    "fuse",
    "9p",
    "cifs",
    "smb",
    "ceph",
    "gpfs",
    "beegfs",
    "virtiofs",
    "gcsfuse",
    "afs",
)
"""How file systems begin that are somewhere else, or in user space: there each page fault is a round trip."""


@rule(
    ("R04", "mmap-on-slow-storage", "Weights came from storage far slower than plain reads get them there."),
    concerns="time",
    severity="warning",
)
def mmap_on_slow_storage(trace: Trace) -> Iterator[Finding]:
    """R04: memory-mapped weights came page by page from storage that gives much more to plain reads."""
    reached, spent = efficiency(trace), reading_ns(trace)
    stored, read = storage_bytes(trace), weight_bytes(trace).read
    if reached is None or reached.source == "page cache" or reached.device is not None or not spent:
        return
    if comes_before(trace):
        return  # nothing was read by page faults, or not from storage
    if (
        reached.share >= SLOW
        or spent < MIN_READING_NS
        or not any(file.format == "safetensors" for file in weight_files(trace))
    ):
        return
    system, split = str(trace.environment.get("filesystem") or ""), weights_split(trace)
    remote = system.startswith(REMOTE)
    if not remote and (stored is None or not read or stored < STORAGE_SHARE * read):
        return
    if split is not None and split.waiting_ns < max(split.used.system_ns, split.used.user_ns):
        return  # a cast took the time, or what the kernel did
    paged = split is not None and split.used.major_faults * PER_FAULT_BYTES > (stored or 0) > 0
    waited = split is None or split.share("waiting") >= WAITED
    # On a machine that is busy with others a thread waits for a processor after each fault, besides.
    if not paged and not (remote and waited):
        return
    faults = f", {split.used.major_faults:,} faults that waited for storage" if split is not None else ""
    spared = round(spent * (1 - reached.share))
    yield Finding(
        "R04",
        "mmap-on-slow-storage",
        "Memory-mapped weights come slowly from storage",
        f"Weights were read at {units.rate(reached.rate)} from {system or 'storage'}; plain reads of such "
        f"files get {units.rate(reached.floor)} here, as hftrace floor has measured: "
        f"{units.share(reached.share)}"
        + (
            f". The threads that read waited {units.share(split.share('waiting'))} of their time"
            if split
            else ""
        )
        + faults
        + ".",
        "Read the files once before the load (cat *.safetensors > /dev/null, several at a time), or copy "
        "them to a local disk first: then the map finds its pages in the page cache.",
        cost_ns=spared,
        numbers={
            "rate_bytes_per_s": reached.rate,
            "floor_bytes_per_s": reached.floor,
            "storage_read_bytes": stored,
            "major_faults": split.used.major_faults if split is not None else None,
        },
        where=Where(files=first_few(file.name for file in weight_files(trace))),
    )


@rule(
    ("R05", "at-the-limit", "Weights were read as fast as this machine reads them."),
    concerns="time",
    severity="info",
)
def at_the_limit(trace: Trace) -> Iterator[Finding]:
    """R05: storage gave what it gives, so no option of the loader makes it faster."""
    reached, spent = efficiency(trace), reading_ns(trace)
    if reached is None or reached.share < AT_THE_LIMIT or reached.source == "page cache" or not spent:
        return
    if spent < MIN_READING_NS:
        return
    yield Finding(
        "R05",
        "at-the-limit",
        f"Storage was the limit: {units.share(min(1.0, reached.share))} of what it gives",
        f"{byte_count(weight_bytes(trace).read)} were read in {duration(spent)}, "
        f"{units.rate(reached.rate)}; hftrace floor has measured {units.rate(reached.floor)} here.",
        "No option of the loader helps: faster storage, fewer bytes, or files in the page cache before.",
        numbers={"rate_bytes_per_s": reached.rate, "floor_bytes_per_s": reached.floor},
    )
