"""Makes a checkpoint cold or warm before its load, and says what became of it.

A load of a cold checkpoint reads from storage, one of a warm checkpoint from
the page cache: the same load may take ten times as long. The files are found
by name, without torch and without the Hub's client, because the loading
process may be another interpreter than this one.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hftrace import units
from hftrace.schema.vocabulary import WEIGHT_PATTERNS
from hftrace.system.page_cache import evict, resident, warm

COLD, WARM = "cold", "warm"
MAX_EVICTED_SHARE = 0.05
"""A checkpoint with a greater share left in the page cache was not evicted."""
MIN_WARM_SHARE = 0.95
ATTEMPTS = 3
"""Pages that are on their way to a list of the kernel's are dropped by a second call only."""

_STEMS = (("model", ".safetensors"), ("pytorch_model", ".bin"))


def checkpoint_files(model: str, keywords: Mapping[str, Any]) -> list[Path]:
    """Returns the weight files that a load of ``model`` will read, as far as they are on this machine.

    Args:
        model: A directory, or the id of a repository whose files are looked
            for in the local cache.
        keywords: Keywords of ``from_pretrained``; ``subfolder``,
            ``gguf_file``, ``variant``, ``use_safetensors``, ``revision`` and
            ``cache_dir`` say which files.

    Returns:
        Real files, links resolved, each one once; none where nothing is there.
    """
    folder = Path(model).expanduser() if os.path.isdir(os.path.expanduser(model)) else None
    if folder is None:
        folder = cached_snapshot(model, keywords)
    if folder is None:
        return []
    folder = folder / str(keywords.get("subfolder") or "")
    gguf = keywords.get("gguf_file")
    chosen = [folder / str(gguf)] if gguf else _weights_in(folder, keywords)
    real = dict.fromkeys(os.path.realpath(path) for path in chosen)
    return [Path(path) for path in real if os.path.isfile(path)]


def _weights_in(folder: Path, keywords: Mapping[str, Any]) -> list[Path]:
    """Returns the weight files of a directory, by the names and in the order that transformers looks."""
    variant = f".{keywords['variant']}" if keywords.get("variant") else ""
    wanted = keywords.get("use_safetensors")
    for stem, suffix in _STEMS:
        if (wanted is False and suffix == ".safetensors") or (wanted is True and suffix != ".safetensors"):
            continue
        single = folder / f"{stem}{variant}{suffix}"
        if single.is_file():
            return [single]
        shards = _shards(folder / f"{stem}{suffix}.index{variant}.json")
        if shards:
            return shards
    # None of the names that transformers looks for: an adapter, another library's model.
    return sorted({path for pattern in WEIGHT_PATTERNS for path in folder.glob(pattern)})


def _shards(index: Path) -> list[Path]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return [index.parent / name for name in sorted({str(name) for name in weight_map.values()})]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []  # the load itself will say what is wrong with it


def cache_folders(keywords: Mapping[str, Any]) -> list[Path]:
    """Returns where the Hub's client keeps its files: ``cache_dir``, else what the environment says."""
    if keywords.get("cache_dir"):
        return [Path(str(keywords["cache_dir"])).expanduser()]
    environment = os.environ
    home = environment.get("HF_HOME") or os.path.join(
        environment.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"
    )
    hub = environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE")
    # The last one is honoured by transformers 4.x alone.
    named = [hub or os.path.join(home, "hub"), environment.get("TRANSFORMERS_CACHE")]
    return [Path(os.path.expandvars(os.path.expanduser(name))) for name in named if name]


def cached_snapshot(model: str, keywords: Mapping[str, Any]) -> Path | None:
    """Returns the directory of a repository's files in the local cache, None where it is not there."""
    revision = str(keywords.get("revision") or "main")
    for cache in cache_folders(keywords):
        repository = cache / f"models--{model.replace('/', '--')}"
        try:
            commit = (repository / "refs" / revision).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            commit = revision  # a commit is its own name
        snapshot = repository / "snapshots" / commit
        if commit and snapshot.is_dir():
            return snapshot
    return None


def prepare(model: str, keywords: Mapping[str, Any], asked: str) -> dict[str, Any]:
    """Makes the checkpoint cold or warm, and returns what is said of it in the trace's request.

    Args:
        model: A directory or a Hub id.
        keywords: Keywords of ``from_pretrained``.
        asked: ``cold`` or ``warm``.

    Returns:
        ``asked``, ``files`` (count), ``bytes``, ``resident_before`` and
        ``resident_after`` (0 to 1, None where unknown), ``duration_ns``, and
        ``problem``: a sentence where it did not come out as asked. Nothing
        here raises: the load goes on, and its trace says how warm it was.
    """
    started = time.monotonic_ns()
    files = checkpoint_files(model, keywords)
    facts: dict[str, Any] = {
        "asked": asked,
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "resident_before": resident(files),
        "resident_after": None,
    }
    failure = None
    if files:
        try:
            if asked == WARM:
                warm(files)
            else:
                evict(files)
                for _ in range(ATTEMPTS - 1):
                    if (resident(files) or 0) <= MAX_EVICTED_SHARE:
                        break
                    evict(files)
        except OSError as error:
            failure = error.strerror or str(error)
        facts["resident_after"] = resident(files)
    facts["duration_ns"] = time.monotonic_ns() - started
    facts["problem"] = _problem(model, keywords, facts, failure)
    return facts


def _problem(
    model: str, keywords: Mapping[str, Any], facts: Mapping[str, Any], failure: str | None
) -> str | None:
    """Returns in one sentence why the checkpoint is not what was asked for, None where it is."""
    asked, after = facts["asked"], facts["resident_after"]
    if not facts["files"]:
        if os.path.isdir(os.path.expanduser(model)):
            return f"--{asked} found no weight files in {model}: check --subfolder, --variant and --gguf-file"
        cache = cache_folders(keywords)[0]
        return (
            f"--{asked} found nothing of {model} in the local cache {cache}: what the load downloads will be "
            "warm, so load it once before"
        )
    what = f"{units.count(facts['files'], 'weight file')} of {model}"
    if asked == COLD:
        because = failure or (
            "another process has them mapped, or their file system lives in memory; end that process, or "
            "copy the checkpoint to a disk"
        )
        if after is not None and after > MAX_EVICTED_SHARE:
            return (
                f"--cold could not evict {what}: {units.share(after)} is still in the page cache ({because})"
            )
    elif after is not None and after < MIN_WARM_SHARE and failure is None:
        return (
            f"--warm could not keep {what} in the page cache: {units.share(after)} is there, and free memory "
            "does not hold more"
        )
    if failure is not None:
        return f"--{asked} failed on {what}: {failure}"
    if after is None:
        return f"--{asked} was done to {what}, but this system does not say what is in the page cache"
    return None
