"""What the traces in one file are called."""

from __future__ import annotations

import os
from collections.abc import Sequence


def titles(paths: Sequence[str], count: int) -> list[str]:
    """Returns a name for each of ``count`` traces, by their files: whole paths only tell alike ones apart."""
    names = [os.path.basename(path) or path for path in paths]
    if len(set(names)) < len(names):
        names = list(paths)
    return [*names, *(f"trace {place + 1}" for place in range(len(names), count))]
