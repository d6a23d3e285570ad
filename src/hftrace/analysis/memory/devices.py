"""What a trace says of its devices: a cell of a device column, and the environment's description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hftrace.analysis.values import integer
from hftrace.schema.trace import Trace


def device_sizes(values: Any) -> dict[str, int]:
    """Returns a device column's cell, bytes by device; what is no number is left out."""
    if not isinstance(values, dict):
        return {}
    return {str(device): size for device, size in values.items() if integer(size) is not None}


def described_device(trace: Trace, name: str) -> Mapping[str, Any]:
    """Returns what the environment says of a device, such as ``cuda:0``; empty where it says nothing."""
    devices = trace.environment.get("devices")
    for each in devices if isinstance(devices, list) else []:
        if isinstance(each, Mapping) and each.get("device") == name:
            return each
    return {}
