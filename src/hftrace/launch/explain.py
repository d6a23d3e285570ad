"""Says in one sentence why a load failed, where the checkpoint itself shows it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from hftrace.errors import HftraceError
from hftrace.schema.checkpoint import read_safetensors_header
from hftrace.schema.model import Trace

UNRELATED = (
    "TypeError",
    "ImportError",
    "ModuleNotFoundError",
    "MemoryError",
    "NotImplementedError",
    "SystemExit",
)
"""Errors that no checkpoint is the cause of, whatever else may be wrong with it."""
WEIGHT_PATTERNS = ("*.safetensors", "*.bin", "*.gguf", "*.pt", "*.h5", "*.msgpack")


def explain_failure(trace: Trace) -> str:
    """Returns why the load failed, in one sentence.

    What can be seen in a local checkpoint (no config, no weights, a shard that
    is missing or cut off) is said in its own words; anything else is the
    first line of the exception.
    """
    error = trace.outcome.get("error") or {}
    message = str(error.get("message") or "").strip()
    first = next((line.strip() for line in message.splitlines() if line.strip()), "no message")
    kind = str(error.get("type") or "error").rpartition(".")[2]
    if kind not in UNRELATED:
        keywords = trace.request.get("keywords") or {}
        subfolder = keywords.get("subfolder") if isinstance(keywords, Mapping) else None
        gguf = isinstance(keywords, Mapping) and bool(keywords.get("gguf_file"))
        reason = None if gguf else _checkpoint_problem(str(trace.request.get("model") or ""), subfolder)
        if reason is not None:
            return reason
    return f"{kind}: {first[:300]}".rstrip(".")


def _checkpoint_problem(model: str, subfolder: object) -> str | None:
    if not model or not Path(model).is_dir():
        return None
    folder = Path(model, str(subfolder or ""))
    model = str(folder)
    has_config = (folder / "config.json").is_file()
    if not has_config and not (folder / "adapter_config.json").is_file():
        return f"{model} has no config.json: this is not a model directory"
    if has_config:
        try:
            json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            return f"{model}/config.json is not valid JSON ({str(error)[:80]})"
    if not any(True for pattern in WEIGHT_PATTERNS for _ in folder.glob(pattern)):
        return f"{model} has no weights: no *.safetensors, *.bin or *.gguf file is in it"
    return next(_weight_problems(folder), None)


def _weight_problems(folder: Path) -> Iterator[str]:
    for index in sorted(folder.glob("*.index.json")):
        try:
            weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            names = sorted({str(name) for name in weight_map.values()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            yield f"{index} is damaged: it has no weight_map"
            continue
        for name in names:
            if not (folder / name).is_file():
                yield f"{index.name} names {name}, which is not in {folder}: fetch the missing shard"
    for path in sorted(folder.glob("*.safetensors")):
        try:
            read_safetensors_header(path)
        except HftraceError as error:
            yield error.message
    for path in sorted(folder.glob("*.bin")):
        if os.path.getsize(path) == 0:
            yield f"{path} is empty: fetch it again"
