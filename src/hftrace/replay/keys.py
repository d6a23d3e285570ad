"""Which checkpoint keys became which tensor of the model, and what the checkpoint holds under each key."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from hftrace.errors import HftraceError
from hftrace.replay.contents import CHANGED, Content, Contents, lost
from hftrace.replay.gguf import read_gguf_header
from hftrace.replay.headers import StoredTensor, read_safetensors_header
from hftrace.replay.loads import LoadRecord
from hftrace.replay.weight_files import WeightFile
from hftrace.schema.lines import Identity

STATE_DICT = ""
"""The "file" of tensors that the caller handed in as a state dict."""


class Stored(NamedTuple):
    """A tensor of the checkpoint, and where it is."""

    path: str
    """Empty for a state dict of the caller's."""
    file: str | None
    """The file's name; None for a state dict."""
    tensor: StoredTensor
    identity: Identity | None = None
    """What the file was; None where nobody has written it down."""


HEADERS = {".safetensors": read_safetensors_header, ".gguf": read_gguf_header}
"""What reads the header of a file, by how its name ends."""


class CheckpointHeaders:
    """Reads the headers of weight files, each once, however many loads read the file.

    Args:
        contents: Where the files can be read as they were.
    """

    def __init__(self, contents: Contents | None = None) -> None:
        self.contents = contents or Contents()
        self._read: dict[tuple[str, Identity | None], dict[str, Stored] | None] = {}

    def of(self, path: str, file: WeightFile | None) -> dict[str, Stored]:
        """Returns the tensors of a file by key; nothing where it has no header that can be read.

        Args:
            path: Where it was.
            file: What a load knew of it; None for one that no load has found.
        """
        return self._header(path, file) or {}

    def lost(self, path: str, file: WeightFile) -> str | None:
        """Returns why the header of a weight file cannot be read any more; None where it can, or has none.

        Of one that was not there when the load looked, or that has no header that can be read, the load
        itself says what is wrong with it.
        """
        if file.identity is None or self._header(path, file) is not None:
            return None
        return lost(path, file.identity) or CHANGED

    def lost_of(self, record: LoadRecord) -> str | None:
        """Returns the same of any weight file of a load."""
        return next((why for item in record.checkpoint.items() if (why := self.lost(*item))), None)

    def _header(self, path: str, file: WeightFile | None) -> dict[str, Stored] | None:
        """Returns what the header says; nothing where none can be read, None where the file is lost."""
        read = HEADERS.get(os.path.splitext(path)[1])
        if read is None or (file is not None and file.absent):
            return {}
        identity = file.identity if file is not None else None
        if (path, identity) not in self._read:
            places = self.contents.headers_of(path, identity)
            found = next((found for place in places if (found := _tensors(read, place)) is not None), {})
            name = os.path.basename(path)
            self._read[path, identity] = (
                {key: Stored(path, name, tensor, identity) for key, tensor in found.items()}
                if places or identity is None
                else None
            )
        return self._read[path, identity]


def _tensors(
    read: Callable[..., dict[str, StoredTensor]], content: Content
) -> dict[str, StoredTensor] | None:
    try:
        return read(content.place, whole=False, size=content.size)
    except HftraceError:
        return None  # the load itself says what is wrong with the file


def stored_tensors(record: LoadRecord, headers: CheckpointHeaders) -> dict[str, Stored]:
    """Returns every tensor of the checkpoint by key, from headers where the files have one."""
    found: dict[str, Stored] = {}
    for path, file in record.checkpoint.items():
        found.update(headers.of(path, file))
    for key, (source, tensor) in record.keys.items():
        known = record.checkpoint.get(source)
        identity = known.identity if known is not None else None
        found[key] = Stored(source, os.path.basename(source) if source else None, tensor, identity)
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
    if record.own_names:
        prefix = ""
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
