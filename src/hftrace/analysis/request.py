"""What was asked of a load: the keywords of its call, and the device that the model was asked onto."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hftrace.schema.trace import Trace

COMPUTED_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
"""Values of ``device_map`` for which transformers computes the map; any other is the caller's own."""
SEVERAL = (*COMPUTED_MAPS, "disk")
"""Values of ``device_map`` that name no device of the model's."""


def asked_keywords(trace: Trace) -> Mapping[str, Any]:
    """Returns the keywords of the request."""
    keywords = trace.request.get("keywords")
    return keywords if isinstance(keywords, Mapping) else {}


def whole_model_device(trace: Trace) -> str | None:
    """Returns the device, such as ``cpu`` or ``cuda:0``, that the whole model was asked onto, if one."""
    asked = asked_keywords(trace).get("device_map")
    if isinstance(asked, Mapping) and set(asked) == {""}:
        asked = asked[""]
    return None if asked in SEVERAL else device_of(asked)


def device_of(asked: Any) -> str | None:
    """Returns the device that a value of ``device_map`` names, by torch's name; None where it names none.

    ``disk`` is what stays in files. A bare ``cuda`` is taken for the first one.
    """
    if asked == "disk":
        return "disk"
    found = re.fullmatch(r"(?:([a-z]+):)?(\d+)|([a-z]+)", str(asked)) if asked is not None else None
    if found is None:
        return None
    if found[2] is not None:
        return f"{found[1] or 'cuda'}:{found[2]}"
    return found[3] if found[3] in ("cpu", "meta") else f"{found[3]}:0"
