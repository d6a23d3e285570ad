"""Rules about weights: whether all of them arrived, where they were asked, as they were asked."""

from __future__ import annotations

from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.findings.rules import (
    Finding,
    rule,
    total_of,
    worst_names,
)
from hftrace.analysis.ledger.tensors import Total, tensor_sums
from hftrace.analysis.model_loads import model_loads
from hftrace.analysis.request import COMPUTED_MAPS
from hftrace.schema.trace import Trace
from hftrace.units import byte_count


@rule(
    ("R20", "missing-weights", "Parameters did not come from the checkpoint and were freshly initialised."),
    concerns="weights",
)
def missing_weights(trace: Trace) -> Iterator[Finding]:
    """R20: parameters that the checkpoint did not have."""
    total = total_of(trace, kind="parameter", provenance="initialized")
    if not total.count:
        return
    unused = total_of(trace, kind="unused")
    pairs = " The checkpoint has unused keys as well: renamed ones, perhaps." if unused.count else ""
    yield Finding(
        "R20",
        "missing-weights",
        f"{units.count(total.count, 'parameter')} not from the checkpoint",
        f"{byte_count(total.bytes)} of parameters were freshly initialised: "
        f"{worst_names(trace, 'parameter', 'initialized')}.{pairs}",
        "Train them, or load the class that the checkpoint was saved from: architectures in its config.json.",
        cost_bytes=total.bytes,
    )


@rule(
    ("R19", "left-on-meta", "Parameters have a shape and no data after the load."),
    concerns="weights",
)
def left_on_meta(trace: Trace) -> Iterator[Finding]:
    """R19: parameters that have no data after the load."""
    total = total_of(trace, kind="parameter", device="meta", offload=None)
    if total.count and trace.outcome.get("status", "ok") == "ok":
        yield Finding(
            "R19",
            "left-on-meta",
            f"{units.count(total.count, 'parameter')} left on the meta device",
            f"{byte_count(total.bytes)} have a shape and no data; the first use fails.",
            "Check the device_map and the checkpoint: hftrace show TRACE --view tensors --filter meta.",
            cost_bytes=total.bytes,
        )


@rule(
    ("R20", "unused-keys", "Keys of the checkpoint found no parameter."),
    concerns="weights",
)
def unused_keys(trace: Trace) -> Iterator[Finding]:
    """R20: checkpoint keys that went nowhere."""
    total = total_of(trace, kind="unused")
    if total.count:
        yield Finding(
            "R20",
            "unused-keys",
            f"{units.count(total.count, 'checkpoint key')} went nowhere",
            f"{byte_count(total.stored_bytes)} of the checkpoint found no parameter: "
            f"{worst_names(trace, 'unused', 'unused')}.",
            "Load the class that the checkpoint was saved from, unless you mean to drop these weights.",
            cost_bytes=total.stored_bytes,
        )


@rule(
    ("R18", "offloaded-to-disk", "Weights stay on disk and are copied in every forward pass."),
    ("R18", "offloaded-to-cpu", "Weights stay in CPU memory and are copied in every forward pass."),
    concerns="time",
)
def offloaded(trace: Trace) -> Iterator[Finding]:
    """R18: weights that stay on disk or on the CPU and are moved in every forward pass."""
    reason, advice = _why_offloaded(trace)
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
                f"they stay {words} and are copied in every forward pass.",
                advice,
                cost_bytes=size,
            )


def _why_offloaded(trace: Trace) -> tuple[str, str]:
    """Returns why weights are elsewhere than on the devices, and what to change."""
    maps = [load.keywords.get("device_map") for load in model_loads(trace)]
    if maps and all(asked in COMPUTED_MAPS for asked in maps):
        return (
            "did not fit on the devices that the device_map may use",
            "Use a smaller dtype or a quantised checkpoint, or give more with max_memory.",
        )
    if maps and all(asked is not None and asked not in COMPUTED_MAPS for asked in maps):
        return (
            "are not on a device of the model's, as the device_map asks",
            "Leave it so if this is meant; otherwise give these modules a device in the map, or pass "
            'device_map="auto".',
        )
    return (
        "are brought in by a hook when they are used",
        "Give these modules a device in the device_map, if there is room for them.",
    )
