"""Finds the last trace of the same load: how long this one is likely to take, and what it will need.

It is looked for in the folder where the trace will lie, and nowhere else: a person sees it there, and whoever
deletes it has deleted what was known. The same load is one that asked for the same, of the same weight files,
with the same libraries, variables and interpreter.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import importlib.metadata
import json
import os
import sys
import zlib
from pathlib import Path
from typing import Any

from hftrace.analysis.live import LastTime
from hftrace.analysis.memory.peaks import memory_peaks
from hftrace.analysis.time.ready import main_loads
from hftrace.analysis.time.session import session_bounds
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.weights import cache_state, resident_share_before
from hftrace.errors import HftraceError
from hftrace.launch.request import LoadRequest
from hftrace.record.environment import relevant_variables
from hftrace.schema.redact import split_secrets
from hftrace.schema.trace import Trace

MAX_TRACES = 20
"""So many of the newest traces of a folder are looked at: each costs its first part to read."""
HEAD_BYTES = 256 << 10
"""The header comes first, and has no more where a load is all that was recorded."""
MAX_BYTES = 4 << 20
"""A larger trace is not read: it would take a tenth of a second and more from the load beside it."""
PACKED = 6
"""A packed trace is about so many times larger than its file."""
LIBRARIES = ("torch", "transformers", "safetensors", "accelerate")


def asked_digest(request: LoadRequest) -> str:
    """Returns what stands for all that was asked of a load until its return, secrets left out."""
    load = request.load
    local = os.path.isdir(load.model) or os.path.isfile(load.model)
    asked = {
        "model": os.path.realpath(load.model) if local else load.model,
        "keywords": split_secrets(load.keywords)[0],
        "class": load.class_name,
        "task": load.task,
        "python": request.python,
        "cache": request.cache,
        "collector": request.collector,
        "beside": [request.torch_profile, request.memory_snapshot],
        "environment": sorted(request.environment),
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:32]


def last_time(request: LoadRequest, folder: Path) -> LastTime | None:
    """Returns what the last trace of the same load says; None where there is none, or that is not sure.

    Args:
        request: What is asked for now.
        folder: Where its trace will lie.
    """
    if request.python != sys.executable or request.environment:
        return None  # what another interpreter has is not known here
    wanted = f'"asked_digest":"{asked_digest(request)}"'.encode()
    for path in _newest(folder):
        with contextlib.suppress(OSError, HftraceError):
            if wanted in _head(path) and (found := _told(Trace.open(path), request)) is not None:
                return found
    return None


def _newest(folder: Path) -> list[Path]:
    found: list[tuple[int, str]] = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.name.endswith((".json", ".json.gz")) and entry.is_file():
                with contextlib.suppress(OSError):
                    facts = entry.stat()
                    if facts.st_size <= (MAX_BYTES // PACKED if entry.name.endswith(".gz") else MAX_BYTES):
                        found.append((facts.st_mtime_ns, entry.path))
    return [Path(path) for _, path in heapq.nlargest(MAX_TRACES, found)]


def _head(path: Path) -> bytes:
    with open(path, "rb") as handle:
        data = handle.read(HEAD_BYTES)
    if not data.startswith(b"\x1f\x8b"):
        return data
    with contextlib.suppress(zlib.error):
        return zlib.decompressobj(wbits=31).decompress(data, HEAD_BYTES)
    return b""


def _told(trace: Trace, request: LoadRequest) -> LastTime | None:
    """Returns what a trace says of its load, if it is of the same load and that ended well."""
    loads, bounds = main_loads(trace), session_bounds(trace)
    if (
        trace.header.get("asked_digest") != asked_digest(request)
        or trace.outcome.get("status") != "ok"
        or not loads
        or not bounds.known
        or not _same_surroundings(trace)
        or not _same_files(trace)
    ):
        return None
    index = span_index(trace)
    returned = index.ends[loads[0]]
    weights = [
        index.ends[row]
        for row, phase in enumerate(index.phases)
        if phase == "weights" and index.lanes[row] == index.lanes[loads[0]]
    ]
    peaks = memory_peaks(trace)
    return LastTime(
        returned_ns=returned - bounds.start_ns,
        after_weights_ns=max(0, returned - max(weights)) if weights else None,
        peak_bytes=peaks.rss_bytes,
        device_peaks=dict(peaks.device_bytes),
        cache=cache_state(resident_share_before(trace)),
    )


def _same_surroundings(trace: Trace) -> bool:
    environment = trace.environment
    for name in LIBRARIES:
        version: Any = None
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(name)
        # What was not imported has no version in the trace.
        if not _is_same(environment.get(name), version):
            return False
    return (environment.get("variables") or {}) == relevant_variables()


def _is_same(recorded: Any, installed: str | None) -> bool:
    """Returns whether a version that a module gave is the installed one, as far as both say it.

    A module's own may name the build (torch's ``2.13.0+cu130``) where that of its package does not.
    """
    if recorded is None or recorded == installed:
        return True
    if installed is None or not isinstance(recorded, str):
        return False
    return "+" not in installed and recorded.partition("+")[0] == installed


def _same_files(trace: Trace) -> bool:
    """Returns whether the weight files are those that were loaded: each as large, and not changed since."""
    weights = [file for file in trace.files if file.shard is not None and file.opened]
    for file in weights:
        if file.path is None or file.modified_ns is None:
            return False
        facts = os.stat(file.path)
        if (facts.st_size, facts.st_mtime_ns) != (file.size_bytes, file.modified_ns):
            return False
    return bool(weights)
