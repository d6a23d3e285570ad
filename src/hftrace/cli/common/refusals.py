"""Models that cannot be loaded, as far as a look at the file system says it: refused at once."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hftrace.errors import UsageError
from hftrace.schema.vocabulary import WEIGHT_SUFFIXES

MAX_NAMED = 10
"""Files that one sentence names."""
FILE_SUFFIXES = (*WEIGHT_SUFFIXES, ".json", ".ckpt", ".onnx", ".zip")
"""No model on the Hub is called like a file."""

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
TRUE = ("1", "ON", "YES", "TRUE")
"""What the Hub's client takes for switched on."""
CACHES = (
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "TRANSFORMERS_CACHE",
    "PYTORCH_TRANSFORMERS_CACHE",
    "PYTORCH_PRETRAINED_BERT_CACHE",
)
"""Variables that say where the Hub's files are kept."""


def refuse_path(model: str, keywords: Mapping[str, Any]) -> None:
    """Refuses a path that is not there, and one that holds nothing to load; a Hub id passes.

    Args:
        model: As the user wrote it.
        keywords: Keywords of ``from_pretrained``.

    Raises:
        UsageError: It cannot be loaded.
    """
    if not model.strip():
        raise UsageError("the model has no name: give a directory, a GGUF file, a Hub id or synth:NAME")
    path = Path(model).expanduser()
    if path.is_dir():
        _refuse_directory(model, path, keywords)
        return
    if path.is_file():
        if path.suffix != ".gguf":
            raise UsageError(
                f"{model} is a file: name the directory of the model (a GGUF file can be named itself)"
            )
        if keywords.get("gguf_file"):
            raise UsageError(f"{model} is a GGUF file itself: leave out --gguf-file, or name its directory")
        if not path.stat().st_size:
            raise UsageError(f"{model} is empty: 0 bytes are no GGUF file")
        return
    folder = os.path.dirname(model)
    # "org/name.gguf" may be a repository, where there is no folder "org" here.
    if model.lower().endswith(FILE_SUFFIXES) and (not folder or os.path.isdir(os.path.expanduser(folder))):
        raise UsageError(f"no such file: {model}{_instead(folder)}")
    if (
        model.startswith(("/", "./", "../", "~", ".\\"))
        or model in (".", "..")
        or model.count("/") > 1
        or model.endswith("/")
    ):
        raise UsageError(f"no such directory: {model}; a Hub id has the form organisation/name")
    forbids = _offline(keywords)
    if "/" not in model and forbids and not _is_cached(model, keywords.get("cache_dir")):
        raise UsageError(
            f"there is no folder {model} here, the Hub's cache has no repository of this name, "
            f"and {forbids} forbids to ask the Hub"
        )


def _offline(keywords: Mapping[str, Any]) -> str | None:
    """Returns what forbids to ask the Hub; None where nothing does."""
    if keywords.get("local_files_only") is True:
        return "local_files_only"
    on = (name for name in OFFLINE if os.environ.get(name, "").upper() in TRUE)
    return next(on, None)


def _is_cached(model: str, named: object) -> bool:
    """Returns whether a place where the Hub's files may be kept has anything of a repository.

    Which one a library looks in depends on its version: all count that a variable names.
    """
    home = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    places = [str(named)] if named else []
    places += [os.environ[name] for name in CACHES if os.environ.get(name)]
    places += [
        os.path.join(os.environ.get("HF_HOME") or os.path.join(home, "huggingface"), folder)
        for folder in ("hub", "transformers")
    ]
    return any(Path(place).expanduser().joinpath(f"models--{model}").is_dir() for place in places)


def _instead(folder: str) -> str:
    """Returns which files there are in the place of one that is missing."""
    found = _names(os.path.expanduser(folder or "."), FILE_SUFFIXES)
    weights = [name for name in found if name.endswith(WEIGHT_SUFFIXES)]
    return f"; there is {_listed(weights)}" if weights else ""


def _refuse_directory(model: str, path: Path, keywords: Mapping[str, Any]) -> None:
    """Refuses a directory without a file, without the file that was named, or of GGUF files alone."""
    subfolder = str(keywords.get("subfolder") or "")
    inside = path / subfolder
    if subfolder and not inside.is_dir():
        raise UsageError(f"{model} has no folder {subfolder}: check --subfolder")
    try:
        names = sorted(os.listdir(inside))
    except OSError as error:
        raise UsageError(f"cannot read {inside}: {error.strerror or error}") from None
    named = keywords.get("gguf_file")
    files = [name for name in names if name.endswith(".gguf")]
    if named is not None:
        if not (inside / str(named)).exists():
            other = f"; there is {_listed(files)}" if files else ""
            raise UsageError(f"no such file: {inside / str(named)}{other}")
        return
    if not any((inside / name).is_file() for name in names):
        raise UsageError(f"{inside} holds no file{_deeper(inside)}")
    weights = [name for name in names if name.endswith(WEIGHT_SUFFIXES)]
    if not files or len(files) < len(weights):
        return
    # transformers looks for such a file by its name alone; without the name it says that there are none.
    if len(files) == 1:
        raise UsageError(
            f"{model} has a GGUF file and no other weights: add --gguf-file {shlex.quote(files[0])}"
        )
    raise UsageError(
        f"{model} has {len(files)} GGUF files and no other weights: "
        f"name one with --gguf-file ({_listed(files)})"
    )


def _names(folder: str, suffixes: tuple[str, ...]) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(suffixes))
    except OSError:
        return []


def _listed(names: list[str]) -> str:
    shown = ", ".join(map(shlex.quote, names[:MAX_NAMED]))
    return shown + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")


def _deeper(folder: Path) -> str:
    """Returns where a model may be that was looked for one level too high, in the Hub's cache above all."""
    for place in _places(folder):
        if (place / "config.json").is_file():
            return f": name the directory of the model, such as {place}"
    return ": name the directory that has the model's config.json and weights"


def _places(folder: Path) -> Iterator[Path]:
    for pattern in ("*", "snapshots/*"):
        yield from (path for path in sorted(folder.glob(pattern)) if path.is_dir())
