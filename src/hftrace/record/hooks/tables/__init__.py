"""Hook points as data: one small file per library, one table per loader generation.

Adding a loader generation is a new table here; nothing else knows their names.
"""

from __future__ import annotations

from hftrace.record.hooks.points import HookPoint
from hftrace.record.hooks.tables import (
    accelerate,
    entry,
    hub,
    imports,
    transformers_a,
    transformers_b,
    transformers_c,
    transformers_common,
    transformers_d,
)

POINTS: tuple[HookPoint, ...] = (
    *imports.POINTS,
    *entry.POINTS,
    *hub.POINTS,
    *transformers_common.POINTS,
    *transformers_a.POINTS,
    *transformers_b.POINTS,
    *transformers_c.POINTS,
    *transformers_d.POINTS,
    *accelerate.POINTS,
)
"""All hook points, in the order in which they are installed."""
