"""Hook points as data: one small file per library, and one per loader generation.

A generation's table is named for the release that it begins with. A new library,
or a new generation, is a file with ``POINTS`` and its name in
``TABLES``; nothing else knows their names.
"""

from __future__ import annotations

from importlib import import_module

from hftrace.record.hooks.points import HookPoint

TABLES = (
    "imports",
    "processes",
    "entry",
    "containers",
    "given",
    "opened",
    "hub",
    "hub_client",
    "hub_requests",
    "transformers_common",
    "transformers_4_36",
    "transformers_4_50",
    "transformers_4_51",
    "transformers_5_0",
    "gguf",
    "quantizers",
    "accelerate",
    "peft",
    "peft_hotswap",
    "surgery",
    "training",
    "generation",
    "pipelines",
    "diffusers",
    "sentence_transformers",
    "timm",
    "open_clip",
    "saving",
    "fms",
    "hub_kernels",
    "distributed",
    "distributed_checkpoint",
)
"""In the order in which their points are installed."""

POINTS: tuple[HookPoint, ...] = tuple(
    point for table in TABLES for point in import_module(f"{__name__}.{table}").POINTS
)
"""All hook points."""
