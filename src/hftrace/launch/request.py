"""What is asked of a run: what to load, what is done around it, and how it is watched."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hftrace.launch.sampling import DEFAULT_RATE_HZ
from hftrace.launch.watchdog import DEFAULT_STALL_SECONDS


@dataclass(frozen=True)
class LoadSpec:
    """What to load: all that decides which model comes out.

    Args:
        model: A directory or a Hub id.
        asked: What the user called it, where that is something else (``synth:NAME``).
        keywords: Keywords of ``from_pretrained`` as JSON values, the revision among them.
        class_name: The class to load with; None finds it from the config.
        task: A task instead of a class.
    """

    model: str
    asked: str | None = None
    keywords: Mapping[str, Any] = field(default_factory=dict)
    class_name: str | None = None
    task: str | None = None


@dataclass(frozen=True)
class WatchOptions:
    """How the loading process is watched from outside, and when it is ended.

    Args:
        sample_hz: Readings of the process's memory per second; 0 for none.
        memory_limit_bytes: Kill the load when its anonymous memory is larger.
        timeout_seconds: Kill the load when it takes longer, with all that follows it.
        stall_seconds: After so long without an event, say what all threads are doing; 0 for never.
    """

    sample_hz: float = DEFAULT_RATE_HZ
    memory_limit_bytes: int | None = None
    timeout_seconds: float | None = None
    stall_seconds: float = DEFAULT_STALL_SECONDS


@dataclass(frozen=True)
class Prompt:
    """What a model is asked after its load.

    Args:
        text: The prompt.
        max_new_tokens: The most tokens of the answer.
        chat: Whether the text is a message that the tokenizer's chat template writes.
    """

    text: str
    max_new_tokens: int
    chat: bool = False


@dataclass(frozen=True)
class LoadRequest:
    """One run of a load: in which process, with what before and after it.

    Args:
        load: What to load.
        watch: How the process is watched.
        python: The interpreter of the loading process.
        environment: Variables that are set for it, beside those of this process.
        quiet_bars: Whether to switch transformers' progress bars off.
        cache: ``cold`` or ``warm`` to have the weight files out of, or in, the page
            cache before the load; None leaves it as it is.
        touch: Whether to read every page of the weights once the load has returned.
        forward: Whether to do one forward pass after that.
        inputs: Its keywords as JSON values; None builds them from the config.
        generate: What to ask the model after that.
        verify: Whether to hold the model against its files after that.
        stats: Whether to measure the tensors that no file has, after that.
        digest: Whether to take digests of the model, and to verify it.
        collector: What Python's collector of cycles does during the load: ``off``, ``freeze``, or None for
            what it does by itself.
        release: Whether to let go of the model at the end, and measure what stays.
        torch_profile: Whether torch's profiler runs beside it.
        memory_snapshot: Whether the history of torch's CUDA allocator is kept beside it.
    """

    load: LoadSpec
    watch: WatchOptions = field(default_factory=WatchOptions)
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)
    quiet_bars: bool = False
    cache: str | None = None
    touch: bool = False
    forward: bool = False
    inputs: Mapping[str, Any] | None = None
    generate: Prompt | None = None
    verify: bool = False
    stats: bool = False
    digest: bool = False
    collector: str | None = None
    release: bool = False
    torch_profile: bool = False
    memory_snapshot: bool = False
