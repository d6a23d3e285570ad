"""Which checkpoint keys became which tensor of the model, and what the checkpoint holds under each key."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from hftrace.errors import HftraceError
from hftrace.replay.gguf import read_gguf_header
from hftrace.replay.headers import StoredTensor, read_safetensors_header
from hftrace.replay.loads import LoadRecord

STATE_DICT = ""
"""The "file" of tensors that the caller handed in as a state dict."""


class Stored(NamedTuple):
    """A tensor of the checkpoint, and where it is."""

    path: str
    """Empty for a state dict of the caller's."""
    file: str | None
    """The file's name; None for a state dict."""
    tensor: StoredTensor


class CheckpointHeaders:
    """Reads the headers of weight files, each once, however many loads read the file."""

    def __init__(self) -> None:
        self._read: dict[str, dict[str, Stored]] = {}

    def of(self, path: str) -> dict[str, Stored]:
        """Returns the tensors of a file by key; nothing where it has no header that can be read."""
        if path not in self._read:
            self._read[path] = _header(path)
        return self._read[path]


def _header(path: str) -> dict[str, Stored]:
    read = {".safetensors": read_safetensors_header, ".gguf": read_gguf_header}.get(os.path.splitext(path)[1])
    if read is None:
        return {}
    try:
        found = read(path, whole=False)
    except HftraceError:
        return {}  # the load itself says what is wrong with the file
    file = os.path.basename(path)
    return {key: Stored(path, file, tensor) for key, tensor in found.items()}


def stored_tensors(record: LoadRecord, headers: CheckpointHeaders) -> dict[str, Stored]:
    """Returns every tensor of the checkpoint by key, from headers where the files have one."""
    found: dict[str, Stored] = {}
    for path in record.checkpoint:
        found.update(headers.of(path))
    for key, (source, tensor) in record.keys.items():
        found[key] = Stored(source, os.path.basename(source) if source else None, tensor)
    return found


def _with_prefix(name: str, prefix: str) -> Iterable[str]:
    """Yields a name as it is, and below and without the base model's own, as the loaders of 4.x try it."""
    yield name
    if prefix:
        yield f"{prefix}.{name}"
        if name.startswith(f"{prefix}."):
            yield name[len(prefix) + 1 :]


def _candidates(key: str, prefix: str) -> Iterable[str]:
    """Yields names that loaders of 4.x try for a checkpoint key, where they were not seen to.

    ``_fix_state_dict_key_on_load``, ``modeling_utils.py`` 4.36 to 4.57.
    """
    fixed = key
    if key.endswith("LayerNorm.beta"):
        fixed = f"{key[: -len('beta')]}bias"
    elif key.endswith("LayerNorm.gamma"):
        fixed = f"{key[: -len('gamma')]}weight"
    elif "beta" in key:
        fixed = key.replace("beta", "bias")
    elif "gamma" in key:
        fixed = key.replace("gamma", "weight")
    variants = [key, fixed] if fixed != key else [key]
    for name in list(variants):
        for old, new in (
            ("weight_g", "parametrizations.weight.original0"),
            ("weight_v", "parametrizations.weight.original1"),
        ):
            if name.endswith(old):
                variants.append(name[: -len(old)] + new)
            elif name.endswith(new):
                variants.append(name[: -len(new)] + old)
    for name in variants:
        yield from _with_prefix(name, prefix)


def keys_by_name(
    record: LoadRecord, stored: dict[str, Stored], names: set[str], prefix: str
) -> dict[str, list[str]]:
    """Returns, by the model's name, the checkpoint keys that the loader put there.

    Several keys of one tensor stand in the order of ``stored``, which is the checkpoint's: file by file,
    as the data lies. The loader itself keeps them in a set, whose order means nothing.
    """
    sources = {target: convert.sources for target, convert in record.converts.items()}
    if sources:
        position = {key: at for at, key in enumerate(stored)}
        for target, keys in sources.items():
            if len(keys) > 1:
                sources[target] = sorted(keys, key=lambda key: position.get(key, len(position)))
        return sources
    for key in stored:
        renamed = record.renames.get(key)
        if renamed is not None or record.renames_known:
            # Up to 4.50 the names are relative to the base model once it is loaded into.
            options = _with_prefix(renamed or key, prefix)
        else:
            options = _candidates(key, prefix)
        for name in options:
            if name in names:
                sources.setdefault(name, [key])
                break
    return sources
