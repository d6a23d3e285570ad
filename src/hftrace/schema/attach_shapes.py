"""The shapes of what is known of a process that somebody attached to."""

from __future__ import annotations

from hftrace.schema.shapes import FLAG, INTEGER, TEXT, Shape

_UNDER_WAY = {
    "thread": TEXT,
    "main": FLAG,
    "function": TEXT,
    "caller": TEXT,
    "stack": TEXT,
    "waits": {"call": TEXT, "file": TEXT},
}
"""A load that had begun before."""
ATTACHED: dict[str, Shape] = {
    "time_ns": INTEGER,
    "under_way": [_UNDER_WAY],
    "still_under_way": [_UNDER_WAY],
}
"""Facts of the header; in a journal the time is a raw clock reading."""
