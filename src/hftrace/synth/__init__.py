"""Real checkpoints with random weights, in the shape of known architectures.

The directory that :func:`write` makes loads with every transformers version
from 4.36 on (or from the one that brought the architecture), with no key
missing and none unexpected: the names and shapes are those of the published
checkpoints, and the configuration is theirs, at full size or scaled down.
"""

from __future__ import annotations

from hftrace.synth.architectures import ARCHITECTURES, Architecture, architecture
from hftrace.synth.cache import cache_directory, cache_path, cached, cached_plan
from hftrace.synth.layouts import TensorSpec
from hftrace.synth.planning import CheckpointPlan, Shard, plan, plan_config
from hftrace.synth.writer import WrittenCheckpoint, write, write_many

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "CheckpointPlan",
    "Shard",
    "TensorSpec",
    "WrittenCheckpoint",
    "architecture",
    "cache_directory",
    "cache_path",
    "cached",
    "cached_plan",
    "plan",
    "plan_config",
    "write",
    "write_many",
]
