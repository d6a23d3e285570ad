"""Hook points as data: one small file per library, one table per loader generation.

Adding a loader generation is a new table here; nothing else knows their names.
"""

from __future__ import annotations

import sys

from hftrace.record.hooks import (
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
from hftrace.record.hooks.points import HookPoint

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


def loader_generation() -> str | None:
    """Returns which of the four loaders the imported transformers has, by what is present.

    Returns:
        ``"A"`` to ``"D"``, or None while ``transformers.modeling_utils`` has
        not been imported.
    """
    modeling = sys.modules.get("transformers.modeling_utils")
    if modeling is None:
        return None
    names = vars(modeling)
    if "convert_and_load_state_dict_in_model" in names:
        return "D"
    if "_load_parameter_into_model" in names:
        return "C"
    if "_get_resolved_checkpoint_files" in names:
        return "B"
    return "A"


__all__ = ["POINTS", "HookPoint", "loader_generation"]
