"""What several views need of one trace, derived once and when first asked for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from hftrace.analysis.ledger import tensors
from hftrace.analysis.memory import peaks, usage
from hftrace.analysis.time import reading, ready
from hftrace.analysis.time.spans import UNATTRIBUTED, SpanIndex
from hftrace.schema.model import File
from hftrace.schema.trace import Trace

if TYPE_CHECKING:
    from hftrace.analysis.ending.death import Death
    from hftrace.analysis.memory.composition import Composition
    from hftrace.analysis.memory.device_peak import DevicePeak

LAZY_SHARE = 0.5
"""Share of the weights on CPU that must be missing from the process before a load is called lazy."""


class Derived:
    """A trace and what follows from it.

    Args:
        trace: The trace; it is never changed.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    @cached_property
    def index(self) -> SpanIndex:
        """Tree and exclusive times of the spans."""
        return SpanIndex(self.trace.spans)

    @cached_property
    def batches(self) -> list[tensors.Batch]:
        """The tensor ledger by all that few tensors differ in."""
        return tensors.batches(self.trace.tensors)

    @cached_property
    def sums(self) -> dict[tensors.TensorClass, tensors.Total]:
        """Sums of the tensor ledger by sort."""
        return tensors.totals(self.batches)

    @cached_property
    def reading(self) -> reading.Reading:
        """Shards, reader threads and waiting."""
        return reading.reading(self.trace, self.index, self.batches)

    @cached_property
    def peaks(self) -> peaks.Peaks:
        """Peaks of memory."""
        return peaks.peaks(self.trace)

    @cached_property
    def processes(self) -> list[usage.ProcessMemory]:
        """Memory over time of each loading process, the main one first."""
        return usage.processes(self)

    @cached_property
    def composition(self) -> Composition | None:
        """What memory was made of at the peak of the load that peaked highest; None where it is not known."""
        from hftrace.analysis.memory.composition import composition, main_load

        row = main_load(self)
        return None if row is None else composition(self, row)

    @cached_property
    def device_peaks(self) -> list[DevicePeak]:
        """What the memory of each device was made of at its peak, in the load that had most there."""
        from hftrace.analysis.memory.device_peak import device_peaks

        highest: dict[str, DevicePeak] = {}
        for row in self.index.load_rows:
            for peak in device_peaks(self, row):
                known = highest.get(peak.device)
                if known is None or peak.peak_bytes > known.peak_bytes:
                    highest[peak.device] = peak
        return [highest[device] for device in sorted(highest)]

    @cached_property
    def death(self) -> Death:
        """How the load ended."""
        from hftrace.analysis.ending.death import death

        return death(self)

    @cached_property
    def weight_files(self) -> list[File]:
        """The weight files that were found."""
        return reading.weight_files(self.trace.files)

    @cached_property
    def wall_ns(self) -> int:
        """Sum of the root spans of the main thread."""
        return sum(self.index.wall_ns(row) for row in self.index.main_roots)

    @cached_property
    def loads_wall_ns(self) -> int:
        """Wall time of all outermost loads."""
        return sum(self.index.wall_ns(row) for row in self.index.load_rows)

    @cached_property
    def phases(self) -> dict[str, int]:
        """Exclusive time by phase on the main thread, longest first."""
        return self.index.phase_times(self.index.main_roots)

    @cached_property
    def attributed(self) -> float | None:
        """Share of the loads' wall time that lies in a named phase; None where there is no load."""
        if not self.loads_wall_ns:
            return None
        return 1 - self.index.phase_times(self.index.load_rows).get(UNATTRIBUTED, 0) / self.loads_wall_ns

    @cached_property
    def weights_ns(self) -> int | None:
        """Wall time of the outermost ``weights`` spans of the main rank; None where there is none."""
        index = self.index
        lane = index.main_lane
        times = [
            index.wall_ns(row)
            for row, phase in enumerate(index.phases)
            if phase == "weights"
            and lane is not None
            and index.lanes[row].rank == lane.rank
            and not self._inside_weights(row)
        ]
        return sum(times) if times else None

    def _inside_weights(self, row: int) -> bool:
        parent = self.index.parents[row]
        while parent is not None:
            if self.index.phases[parent] == "weights":
                return True
            parent = self.index.parents[parent]
        return False

    @cached_property
    def waiting_ns(self) -> int:
        """How long threads that place weights waited for threads that read them."""
        return sum(self.reading.waiting_ns.values())

    @cached_property
    def checkpoint_bytes(self) -> int | None:
        """Size of the weight files, or of the stored tensors where no file is known."""
        sizes = [file.size_bytes for file in self.weight_files if file.size_bytes is not None]
        if sizes:
            return sum(sizes)
        return sum(total.stored_bytes for total in self.sums.values()) or None

    @cached_property
    def read_bytes(self) -> int | None:
        """Bytes of stored tensors that the loader read or mapped."""
        known = [file.read_bytes for file in self.weight_files if file.read_bytes is not None]
        if known:
            return sum(known)
        return sum(shard.bytes for shard in self.reading.shards) or None

    @cached_property
    def lazy_bytes(self) -> int:
        """Bytes of weights on CPU that the process had not touched when the load returned.

        Memory-mapped weights are in the model before they are in memory:
        then the process grew by less than the weights weigh.
        """
        index = self.index
        ranks = {lane.rank for lane in index.lanes}
        if len(ranks) > 1 or self.trace.outcome.get("status", "ok") != "ok":
            return 0
        expected = sum(
            total.bytes
            for sort, total in self.sums.items()
            if sort.device == "cpu" and sort.provenance == "checkpoint" and sort.offload is None
        )
        growth = 0
        for row in index.load_rows:
            span = self.trace.spans[row]
            before = (span.rss_anon_start_bytes, span.rss_file_start_bytes)
            after = (span.rss_anon_bytes, span.rss_file_bytes)
            if None in before or None in after:
                return 0
            growth += sum(filter(None, after)) - sum(filter(None, before))
        missing = expected - max(0, growth)
        return missing if expected and index.load_rows and missing >= LAZY_SHARE * expected else 0

    @cached_property
    def rate_bytes_per_s(self) -> float | None:
        """Bytes read over the time in ``weights``; None where the weights were only mapped."""
        if not self.read_bytes or not self.weights_ns or self.lazy_bytes:
            return None
        return self.read_bytes / (self.weights_ns / 1e9)

    @cached_property
    def resident_before(self) -> float | None:
        """Share of the checkpoint in the page cache when the load began."""
        return reading.resident_share(self.weight_files, "resident_before")

    @cached_property
    def resident_after(self) -> float | None:
        """The same when the load returned."""
        known = self.trace.outcome.get("returned_resident_share")
        if isinstance(known, (int, float)) and 0 <= known <= 1:
            return float(known)
        return reading.resident_share(self.weight_files, "resident_after")

    @cached_property
    def ready(self) -> ready.Ready | None:
        """The last load and what followed it: touch, forward, release; None where there is no load."""
        return ready.ready(self.trace, self.index)

    @cached_property
    def thread_names(self) -> dict[int, str]:
        """Names of threads by their id, as far as the header has them."""
        names: dict[int, str] = {}
        known = self.trace.header.get("threads")
        for entry in known if isinstance(known, list) else []:
            if isinstance(entry, dict) and isinstance(entry.get("thread"), int) and entry.get("name"):
                names[entry["thread"]] = str(entry["name"])
        return names
