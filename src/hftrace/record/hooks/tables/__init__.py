"""Hook points as data: one small file per library, and one per loader generation.

A new library, or a new generation, is a file with ``POINTS`` and its name in
``TABLES``; nothing else knows their names.
"""

from __future__ import annotations

from importlib import import_module

from hftrace.record.hooks.points import HookPoint

TABLES = (
    "imports",
    "entry",
    "hub",
    "hub_client",
    "transformers_common",
    "transformers_a",
    "transformers_b",
    "transformers_c",
    "transformers_d",
    "accelerate",
)
"""In the order in which their points are installed."""

POINTS: tuple[HookPoint, ...] = tuple(
    point for table in TABLES for point in import_module(f"{__name__}.{table}").POINTS
)
"""All hook points."""
