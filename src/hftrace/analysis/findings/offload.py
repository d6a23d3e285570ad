"""R18: weights that are not on a device of the model's, and what that costs in its forward passes."""

from __future__ import annotations

from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.findings.rules import Finding, Where, rule, tensors_of
from hftrace.analysis.ledger.tensors import Total, tensor_sums
from hftrace.analysis.model_loads import model_loads
from hftrace.analysis.request import COMPUTED_MAPS
from hftrace.analysis.time.offloading import moved_models
from hftrace.analysis.time.placement import placements
from hftrace.schema.trace import Trace
from hftrace.units import byte_count, duration


@rule(
    ("R18", "offloaded-to-disk", "Weights stay on disk and are copied in every forward pass."),
    ("R18", "offloaded-to-cpu", "Weights stay in CPU memory and are copied in every forward pass."),
    concerns="time",
    severity="warning",
)
def offloaded(trace: Trace) -> Iterator[Finding]:
    """R18: weights that stay on disk or on the CPU and are moved in every forward pass."""
    reason, advice, severity = _why_offloaded(trace)
    models = moved_models(trace)
    how = "mapped again" if models and all(model.mapped for model in models) else "copied"
    for place, words in (("disk", "on disk"), ("cpu", "in CPU memory")):
        total = Total()
        for tensor_class, part in tensor_sums(trace).items():
            if tensor_class.offload == place or (place == "disk" and tensor_class.device == "disk"):
                total.add(part)
        if total.count:
            size = max(total.bytes, total.stored_bytes)
            yield Finding(
                "R18",
                f"offloaded-to-{place}",
                f"Weights stay {words}",
                f"{units.count(total.count, 'tensor')} of {byte_count(size)} {reason}; "
                f"they stay {words} and are {how} in every forward pass.{_paid(trace)}",
                advice,
                cost_bytes=size,
                view="offload" if models or placements(trace) else "",
                severity=severity,
                numbers={"tensors": total.count, "offloaded_bytes": size},
                where=Where(tensors=tensors_of(trace, "parameter", offload=place)),
            )


def _paid(trace: Trace) -> str:
    """Returns what the forward passes of the trace have paid for it; empty where it has none."""
    models = moved_models(trace)
    passes = sum(model.passes + model.unfinished for model in models)
    if not passes:
        return ""
    spent, whole = (
        sum(each) for each in zip(*((m.in_ns + m.out_ns, m.pass_ns) for m in models), strict=True)
    )
    share = "" if any(m.unfinished for m in models) else f" of {duration(whole)}"
    return (
        f" In the {units.count(passes, 'pass', 'passes')} of this trace the hooks took "
        f"{duration(spent)}{share}: --view offload."
    )


def _limits(trace: Trace) -> str:
    """Returns what the devices might have; empty where that is not known of one load alone."""
    known = [placement for placement in placements(trace) if placement.computed]
    if len(known) != 1:
        return ""
    (placement,) = known
    words = [
        f"{place.device} {byte_count(place.limit_bytes)}"
        for place in placement.places
        if place.limit_bytes is not None and place.device != "disk"
    ]
    if words and placement.largest_bytes:
        devices = [place.device for place in placement.places if place.device != "disk"]
        where = "" if len(devices) == 1 else " on each" if len(devices) == 2 else f" on {devices[0]} and cpu"
        words.append(f"less {byte_count(placement.largest_bytes)}{where} for the largest layer")
    return f" ({', '.join(words)})" if words else ""


def _why_offloaded(trace: Trace) -> tuple[str, str, str]:
    """Returns why weights are elsewhere than on the devices, what to change, and how much that matters."""
    maps = [load.keywords.get("device_map") for load in model_loads(trace)]
    if maps and all(asked in COMPUTED_MAPS for asked in maps):
        return (
            f"did not fit on the devices that the device_map may use{_limits(trace)}",
            "Use a smaller dtype or a quantised checkpoint, or give more with max_memory.",
            "warning",
        )
    if maps and all(asked is not None and asked not in COMPUTED_MAPS for asked in maps):
        return (
            "are not on a device of the model's, as the device_map asks",
            "Leave it so if this is meant; otherwise give these modules a device in the map, or pass "
            'device_map="auto".',
            "info",  # what was asked for is no fault
        )
    return (
        "are brought in by a hook when they are used",
        "Give these modules a device in the device_map, if there is room for them.",
        "info",
    )
