"""Why keys of a checkpoint went nowhere, as far as the loader's own reports and names tell."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Container, Iterator, Mapping, Set

from hftrace.replay.keys import Stored
from hftrace.replay.loads import LoadRecord
from hftrace.replay.reported import MAX_REPORTED, OF_ADAPTER
from hftrace.replay.rows import chosen
from hftrace.schema.model import Table, Tensor
from hftrace.schema.vocabulary import GGUF_TABLES

_SHARD = re.compile(r"-\d{5}-of-\d{5}\b")
WRAPPED = "base_model.model."
"""What PEFT puts before the names of a model that it wraps; transformers' own adapters are without it."""


def why_unused(
    record: LoadRecord,
    placed: Mapping[str, str],
    unused: list[tuple[str, Stored]],
    stored: Mapping[str, Stored],
    prefix: str,
) -> dict[str, str | None]:
    """Returns words of evidence by key; None where nothing is known, or no word fits.

    Args:
        record: The load.
        placed: The first key of each tensor of the model that has one.
        unused: The keys.
        stored: The whole checkpoint.
        prefix: The base model's name.
    """
    reasons = _expected(record, unused)
    renamed = [key for key, name in record.renames.items() if not _same_but_for(prefix, key, name)]
    reasons.update(dict.fromkeys(renamed, "renamed"))
    reasons.update(_overtaken(record, placed, unused, stored))
    return reasons


def no_index_names(keys: list[str], stored: Mapping[str, Stored], record: LoadRecord) -> bool:
    """Returns whether a loader that goes by an index did not know of keys that are in the shards.

    Args:
        keys: Of a tensor that it called missing.
        stored: The whole checkpoint.
        record: The load.
    """
    unexpected = record.reported.get("unexpected")
    if unexpected is None or len(unexpected) >= MAX_REPORTED:
        return False
    names = {name for key in keys for name in (key, record.renames.get(key, key))}
    return unexpected.isdisjoint(names) and all(_SHARD.search(stored[key].file or "") for key in keys)


def taken_by_own_code(
    written: Mapping[str, list[int]], unused: list[tuple[str, Stored]]
) -> dict[str, str | None]:
    """Returns keys that a module's own code may have made a tensor of, as ``_load_from_state_dict`` may.

    Args:
        written: Shapes by the name of tensors that were initialised, and written by somebody else after that.
        unused: The keys.
    """
    sizes = {(name.rpartition(".")[0], math.prod(shape)) for name, shape in written.items()}
    return {
        key: "own_code"
        for key, found in unused
        if (key.rpartition(".")[0], math.prod(found.tensor.shape)) in sizes
    }


def _expected(record: LoadRecord, unused: list[tuple[str, Stored]]) -> dict[str, str | None]:
    """Returns why keys went nowhere that the loader did not call unexpected.

    Their class leaves them out, or PEFT has them elsewhere.
    """
    if record.reported.get(OF_ADAPTER) == set():
        taken = {key: "adapter_code" for key, found in unused if _is_adapters(found)}
        return {**taken, **_left_out(record, unused)}
    return _left_out(record, unused)


def left_out_told(unused: list[Table[Tensor]], model: Table[Tensor]) -> list[Table[Tensor]]:
    """Returns keys that went nowhere; PEFT has none of them elsewhere whose tensor is there without it.

    PEFT names none that it left out for its shape (``ignore_mismatched_sizes``), nor one it was not given.

    Args:
        unused: The keys.
        model: The tensors of the finished model, of all loads and files.
    """
    if any("adapter_code" in table.column("evidence") for table in unused):
        columns = map(model.column, ("name", "file", "provenance"))
        waiting = {
            key
            for name, file, provenance in zip(*columns, strict=True)
            if name is not None and provenance != "tied" and not _is_adapters_file(file)
            for key in _adapter_keys(name)
        }
        for table in unused:
            evidence = table.column("evidence")
            for at, keys in enumerate(table.column("keys")):
                left = any(key.removeprefix(WRAPPED) in waiting for key in keys)
                evidence[at] = None if left and evidence[at] == "adapter_code" else evidence[at]
    return unused


def without_placed(
    table: Table[Tensor], paths: Mapping[str, str], placed: Container[tuple[str, str | None]]
) -> Table[Tensor]:
    """Returns a ledger without keys that went nowhere in its load, and somewhere in another one.

    Args:
        table: The ledger of a load.
        paths: Of its files, by their names.
        placed: File and key of what the other loads have put into their models.
    """
    if not placed:
        return table
    columns = map(table.column, ("kind", "file", "keys"))
    rows = [
        row
        for row, (kind, file, keys) in enumerate(zip(*columns, strict=True))
        if kind != "unused" or not keys or (paths.get(file or "", file), keys[0]) not in placed
    ]
    return table if len(rows) == len(table) else chosen(table, rows)


def _adapter_keys(name: str) -> Iterator[str]:
    """Yields what a tensor of an adapter may be called in its file: without the adapter's name."""
    parts = name.removeprefix(WRAPPED).split(".")
    yield ".".join(parts[:-1])  # lora_embedding_A.default
    yield ".".join([*parts[:-2], parts[-1]])  # lora_A.default.weight
    yield ".".join([*parts[:-3], parts[-1]])  # modules_to_save.default.weight


def _is_adapters_file(file: str | None) -> bool:
    return os.path.basename(file or "").startswith("adapter_model.")


def _is_adapters(found: Stored) -> bool:
    return _is_adapters_file(found.file)


def _left_out(record: LoadRecord, unused: list[tuple[str, Stored]]) -> dict[str, str | None]:
    unexpected = record.reported.get("unexpected")
    if unexpected is None or len(unexpected) >= MAX_REPORTED:
        return {}
    # What became of the file's tensors before the loader saw any; nothing where it read the file itself.
    unpacked = {turn.key: turn.names for turn in record.unpackings}
    left = {
        key
        for key, found in unused
        # What its class says is said of the model's own files, not of an adapter's.
        if not _is_adapters(found)
        and (
            key in GGUF_TABLES or (bool(unpacked[key]) and unexpected.isdisjoint(unpacked[key]))
            if key in unpacked
            else key not in unexpected and record.renames.get(key) not in unexpected
        )
    }
    own = {name for key, _ in unused for name in (key, record.renames.get(key), *unpacked.get(key, ()))}
    return {**dict.fromkeys(left, "ignored"), **_called_otherwise(left, unexpected.difference(own))}


def _called_otherwise(left: Set[str], nobodys: Set[str]) -> dict[str, str | None]:
    """Returns keys that may be those that the loader called unexpected by names that no key has.

    5.x says of a key that it renames, and that fits nothing, only what it calls it then (gamma, weight).

    Args:
        left: Keys that the loader did not call unexpected.
        nobodys: Names that it did, of no key.
    """
    keys, names = (_by_module(each) for each in (left, nobodys))
    found: dict[str, str | None] = {}
    for module in keys.keys() & names.keys():
        word = "renamed" if len(keys[module]) == len(names[module]) else None
        found.update(dict.fromkeys(keys.pop(module), word))
        names.pop(module)
    if names:  # of keys elsewhere, several of which may have become one: any of the rest may be among them
        found.update(dict.fromkeys(key for each in keys.values() for key in each))
    return found


def _by_module(names: Set[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.rpartition(".")[0], []).append(name)
    return found


def _same_but_for(prefix: str, key: str, name: str) -> bool:
    """Returns whether a key was given or relieved of the base model's name, which is no renaming."""
    return bool(prefix) and f"{prefix}." in (name.removesuffix(key), key.removesuffix(name))


def _overtaken(
    record: LoadRecord,
    placed: Mapping[str, str],
    unused: list[tuple[str, Stored]],
    stored: Mapping[str, Stored],
) -> dict[str, str | None]:
    """Returns what became of keys whose place in the model another key has taken: they were not left out."""
    found: dict[str, str | None] = {}
    for key, old in unused:
        taker = placed.get(record.renames.get(key, key))
        if taker is not None:
            apart = os.path.dirname(stored[taker].path) != os.path.dirname(old.path)
            found[key] = "overtaken" if apart else None
    return found
