"""The ledgers of one load: where every tensor of the model came from, and every file that was asked for.

Joins three things that are known apart: what the loader did (events of the
journal), what the files say (their headers), and what the finished model holds
(the snapshot at return). The truth about a tensor's provenance is decided here
and nowhere else.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hftrace.errors import HftraceError
from hftrace.replay.headers import StoredTensor, read_safetensors_header
from hftrace.schema.model import File, Tensor

KIND_PARAMETER, KIND_BUFFER, KIND_COMPUTED = 0, 1, 2
"""What a row of the snapshot is; the last is a buffer outside of the state dict."""

STATE_DICT = ""
"""The "file" of tensors that the caller handed in as a state dict."""


class Placement(NamedTuple):
    """A tensor (or a module's tensors) was put into the model."""

    name: str
    start: int
    end: int
    thread: int


class Timeline:
    """Which span of one thread was innermost at a time.

    Args:
        spans: ``(id, start, end)`` of spans that nest.
    """

    def __init__(self, spans: Iterable[tuple[int, int, int]]) -> None:
        ordered = sorted(spans, key=lambda item: (item[1], -item[2], item[0]))
        self._times: list[int] = []
        self._inner: list[int | None] = []
        stack: list[tuple[int, int]] = []
        for identity, start, end in ordered:
            self._close(stack, start)
            self._set(start, identity)
            stack.append((identity, end))
        self._close(stack, None)

    def _close(self, stack: list[tuple[int, int]], until: int | None) -> None:
        while stack and (until is None or stack[-1][1] <= until):
            _, end = stack.pop()
            self._set(end, stack[-1][0] if stack else None)

    def _set(self, time_ns: int, identity: int | None) -> None:
        if self._times and self._times[-1] == time_ns:
            self._inner[-1] = identity
        else:
            self._times.append(time_ns)
            self._inner.append(identity)

    def innermost(self, time_ns: int) -> int | None:
        """Returns the span, or None outside of all."""
        index = bisect.bisect_right(self._times, time_ns) - 1
        return self._inner[index] if index >= 0 else None

    def edge_between(self, after: int, before: int) -> bool:
        """Returns whether any span begins or ends strictly between two times."""
        return bisect.bisect_left(self._times, before) > bisect.bisect_right(self._times, after)


@dataclass
class LoadRecord:
    """Everything that was recorded of one outermost load; times are raw clock readings."""

    span: int
    thread: int
    start: int
    end: int
    status: str
    timelines: dict[int, Timeline]
    phases: dict[int, str]
    span_files: dict[int, str]
    span_starts: dict[int, int]
    parents: dict[int, int | None]
    requests: dict[tuple[str, str], int]
    """HTTP requests by the (repository, file name) that they were for."""
    slices: dict[int, str] = field(default_factory=dict)
    keys: dict[str, tuple[str, StoredTensor]] = field(default_factory=dict)
    """Tensors of pickles and state dicts: key to (path, what is stored)."""
    renames: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    downloads: list[dict[str, Any]] = field(default_factory=list)
    checkpoint: dict[str, list[Any]] = field(default_factory=dict)
    """Weight files: path to [resident before, resident after, span that resolved it]."""
    model: dict[str, Any] | None = None
    layouts: list[list[Any]] = field(default_factory=list)
    rows: list[Any] = field(default_factory=list)
    tie_groups: list[list[str]] = field(default_factory=list)
    reads: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    converts: dict[str, tuple[list[str], list[str], int, int]] = field(default_factory=dict)
    places: list[Placement] = field(default_factory=list)
    modules: list[Placement] = field(default_factory=list)

    def add_keys(self, source: str, rows: list[Any]) -> None:
        """Adds the tensors of a pickle or state dict, ``[key, dtype, shape, bytes, ...]``."""
        for key, dtype, shape, size in zip(rows[0::4], rows[1::4], rows[2::4], rows[3::4], strict=False):
            self.keys[key] = (source, StoredTensor(dtype, shape, None, size))

    def innermost(self, thread: int, time_ns: int) -> int | None:
        """Returns the innermost span; that of the load's own thread for a worker without spans."""
        timeline = self.timelines.get(thread)
        found = timeline.innermost(time_ns) if timeline is not None else None
        if found is None and thread != self.thread:
            found = self.timelines[self.thread].innermost(time_ns)
        return found


class _Stored(NamedTuple):
    path: str
    tensor: StoredTensor


def stored_tensors(record: LoadRecord) -> dict[str, _Stored]:
    """Returns every tensor of the checkpoint by key, from headers where the files have one."""
    found: dict[str, _Stored] = {}
    for path in record.checkpoint:
        if path.endswith(".safetensors"):
            try:
                for key, tensor in read_safetensors_header(path, whole=False).items():
                    found[key] = _Stored(path, tensor)
            except HftraceError:
                continue  # the load itself says what is wrong with the file
    for key, (source, tensor) in record.keys.items():
        found[key] = _Stored(source, tensor)
    return found


def _candidates(key: str, prefix: str) -> Iterable[str]:
    """Yields the names that the loaders of 4.x try for a checkpoint key, in their order.

    ``_fix_state_dict_key_on_load`` and the base model's prefix,
    ``modeling_utils.py`` 4.36 to 4.57.
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
    yield from variants
    if prefix:
        for name in variants:
            yield f"{prefix}.{name}"
            if name.startswith(f"{prefix}."):
                yield name[len(prefix) + 1 :]


def _key_of_name(
    record: LoadRecord, stored: dict[str, _Stored], names: set[str], prefix: str
) -> dict[str, list[str]]:
    """Returns, by the model's name, the checkpoint keys that the loader put there."""
    sources = {target: keys for target, (keys, _, _, _) in record.converts.items()}
    if sources:
        return sources
    for key in stored:
        renamed = record.renames.get(key)
        options: Iterable[str]
        if renamed is not None:
            # In 4.50 the names are relative to the base model once it is loaded into.
            options = (renamed, f"{prefix}.{renamed}") if prefix else (renamed,)
        else:
            options = _candidates(key, prefix)
        for name in options:
            if name in names:
                sources.setdefault(name, [key])
                break
    return sources


class _Times(NamedTuple):
    read_start: int | None
    read_end: int | None
    placed: int | None
    thread: int | None


_NO_TIMES = _Times(None, None, None, None)


class _TensorTimes:
    """When each tensor was read and placed, in whatever way this loader generation lets us see it."""

    def __init__(self, record: LoadRecord, prefix: str) -> None:
        self.record = record
        self.prefix = prefix
        self.placed: dict[str, Placement] = {}
        self.began: dict[str, int] = {}
        if not record.reads:
            self._between_placements()
        else:
            for place in record.places:
                self.placed[place.name] = place
        self.modules: dict[str, list[Placement]] = {}
        for place in record.modules:
            if not self.placed or place.name:
                self.modules.setdefault(place.name, []).append(place)

    def _between_placements(self) -> None:
        """Up to 4.57 one thread reads, casts and places in turn.

        The reading of a tensor lies between the placement of the one before
        it, or the start of its shard, and its own.
        """
        last: dict[tuple[int, int | None], int] = {}
        for place in self.record.places:
            span = self.record.innermost(place.thread, place.start)
            if self.record.phases.get(span or -1) != "shard":
                continue
            where = (place.thread, span)
            before = last.get(where, self.record.span_starts.get(span or -1, place.start))
            if place.name not in self.placed:
                self.began[place.name] = before
                self.placed[place.name] = place
            last[where] = place.end

    def _variants(self, name: str, keys: list[str]) -> list[str]:
        variants = [name]
        if self.prefix and name.startswith(f"{self.prefix}."):
            variants.append(name[len(self.prefix) + 1 :])
        return variants + [key for key in keys if key != name]

    def _module(self, prefix: str, path: str | None) -> Placement | None:
        """Returns when a module copied its tensors from a file.

        4.50 lets every module of the model look into every shard.
        """
        calls = self.modules.get(prefix)
        if calls is None:
            return None
        file = os.path.basename(path or "")
        for call in calls if len(calls) > 1 else ():
            if self.record.span_files.get(self.record.innermost(call.thread, call.start) or -1) == file:
                return call
        return calls[-1]

    def of(self, name: str, keys: list[str], path: str | None) -> _Times:
        """Returns the times of the tensor ``name`` that comes from ``keys`` of the file ``path``."""
        reads = [self.record.reads[key] for key in keys if key in self.record.reads]
        if reads:
            place = self.placed.get(name)
            return _Times(
                min(read[0] for read in reads),
                max(read[1] for read in reads),
                place.end if place else None,
                reads[0][2],
            )
        for variant in self._variants(name, keys):
            place = self.placed.get(variant)
            if place is not None:
                return _Times(self.began.get(variant, place.start), place.start, place.end, place.thread)
            module = self._module(variant.rpartition(".")[0] + "." if "." in variant else "", path)
            if module is not None:
                return _Times(module.start, module.end, module.end, module.thread)
        return _NO_TIMES


def build_ledger(record: LoadRecord, *, complete: bool) -> tuple[list[Tensor], list[File]]:
    """Returns the tensor ledger and the file ledger of one load.

    Args:
        record: What was recorded.
        complete: False where the process died: keys whose turn had not come
            then have no provenance, instead of counting as unused.
    """
    stored = stored_tensors(record)
    if record.model is not None:
        tensors = _model_ledger(record, stored)
    else:
        tensors = _unfinished_ledger(record, stored)
    return tensors, _file_ledger(record, tensors, finished=complete and record.status == "ok")


def _model_ledger(record: LoadRecord, stored: dict[str, _Stored]) -> list[Tensor]:
    assert record.model is not None
    model = record.model
    prefix = str(model.get("base_model_prefix") or "")
    rows = list(zip(record.rows[0::4], record.rows[1::4], record.rows[2::4], record.rows[3::4], strict=False))
    loadable = {name for name, kind, _, _ in rows if kind != KIND_COMPUTED}
    sources = _key_of_name(record, stored, loadable, prefix)
    tied_to = _ties(record, rows, sources)
    clockwork = _TensorTimes(record, prefix)
    device_map = model.get("device_map") or {}
    ledger: list[Tensor] = []
    consumed: set[str] = set()
    for name, kind, layout, _ in rows:
        dtype, device, shape, size, offloaded = record.layouts[layout]
        keys = sources.get(name, []) if kind != KIND_COMPUTED else []
        keys = [key for key in keys if key in stored]
        conversion = record.converts.get(name)
        operations = conversion[1] if conversion else []
        first = stored[keys[0]] if keys else None
        if (
            first is not None
            and len(keys) == 1
            and not operations
            and model.get("quantizer") is None
            and first.tensor.shape != shape
            and _count(first.tensor.shape) != _count(shape)
        ):
            # A mismatch that the caller chose to ignore: the key went nowhere.
            keys, first = [], None
        consumed.update(keys)
        times = clockwork.of(name, keys, first.path if first else None) if keys else _NO_TIMES
        ledger.append(
            Tensor(
                name=name,
                kind="parameter" if kind == KIND_PARAMETER else "buffer",
                provenance=_provenance(
                    kind, keys, operations, first, dtype, device, offloaded, name in tied_to, model
                ),
                keys=keys,
                file=os.path.basename(first.path) if first and first.path != STATE_DICT else None,
                offset=first.tensor.offset if first else None,
                shape=shape,
                stored_dtype=first.tensor.dtype if first else None,
                dtype=dtype,
                stored_bytes=sum(stored[key].tensor.bytes for key in keys) if keys else None,
                bytes=size,
                device=device,
                tied_to=tied_to.get(name),
                read_start_ns=times.read_start,
                read_end_ns=times.read_end,
                placed_ns=times.placed,
                thread=times.thread,
                span=record.innermost(times.thread, times.read_start)
                if times.thread is not None and times.read_start is not None
                else None,
                convert_start_ns=conversion[2] if conversion and keys else None,
                convert_end_ns=conversion[3] if conversion and keys else None,
                offload=_offload_place(name, device_map) if offloaded and device == "meta" else None,
            )
        )
    for key, (path, tensor) in stored.items():
        if key not in consumed:
            ledger.append(_unused(key, path, tensor))
    return ledger


def _count(shape: list[int]) -> int:
    count = 1
    for dimension in shape:
        count *= dimension
    return count


def _unused(key: str, path: str, tensor: StoredTensor) -> Tensor:
    return Tensor(
        name=None,
        kind="unused",
        provenance="unused",
        keys=[key],
        file=os.path.basename(path) if path != STATE_DICT else None,
        offset=tensor.offset,
        shape=tensor.shape,
        stored_dtype=tensor.dtype,
        dtype=None,
        stored_bytes=tensor.bytes,
        bytes=None,
        device=None,
        tied_to=None,
        read_start_ns=None,
        read_end_ns=None,
        placed_ns=None,
        thread=None,
        span=None,
    )


def _provenance(
    kind: int,
    keys: list[str],
    operations: list[str],
    first: _Stored | None,
    dtype: str,
    device: str,
    offloaded: bool,
    tied: bool,
    model: dict[str, Any],
) -> str:
    if tied:
        return "tied"
    if offloaded and device == "meta":
        return "offloaded"
    if device == "meta":
        return "meta"
    if first is not None:
        if model.get("quantizer") is not None and _is_quantized(first.tensor.dtype, dtype, operations):
            return "quantized"
        if operations or len(keys) > 1:
            return "converted"
        return "state_dict" if first.path == STATE_DICT else "checkpoint"
    return "initialized" if kind == KIND_PARAMETER else "computed"


def _is_quantized(stored: str, dtype: str, operations: list[str]) -> bool:
    """A floating tensor that became integers or 8-bit floats, or went through a quantiser's operation."""
    narrow = dtype.startswith(("int", "uint", "float8", "float4")) and stored != dtype
    return narrow or any("Quantize" in operation or "Deserialize" in operation for operation in operations)


def _offload_place(name: str, device_map: dict[str, str]) -> str:
    """Returns where a device map puts a tensor: the longest module name that holds it decides."""
    module = name
    while True:
        if module in device_map:
            return device_map[module]
        if not module:
            return "cpu"
        module = module.rpartition(".")[0]


def _ties(
    record: LoadRecord, rows: list[tuple[str, int, int, int]], sources: dict[str, list[str]]
) -> dict[str, str]:
    """Returns, for each tied tensor but the one that holds the weights, the name of that one.

    Tensors are tied when they are one object. Hooks that offload replace them
    by separate meta tensors, so the groups from before the dispatch count too.
    """
    groups: dict[int, list[str]] = {}
    known = set()
    for name, _, _, identity in rows:
        groups.setdefault(identity, []).append(name)
        known.add(name)
    families = [names for names in groups.values() if len(names) > 1]
    families += [[name for name in names if name in known] for names in record.tie_groups]
    tied: dict[str, str] = {}
    for names in families:
        if len(names) < 2 or any(name in tied for name in names):
            continue
        # The one that has a checkpoint key holds the weights; the first in the model's order otherwise.
        owner = next((name for name in names if name in sources), names[0])
        for name in names:
            if name != owner:
                tied[name] = owner
    return tied


def _unfinished_ledger(record: LoadRecord, stored: dict[str, _Stored]) -> list[Tensor]:
    """The ledger of a load that did not return a model: what had been read and placed by then."""
    target_of = {key: target for target, (keys, _, _, _) in record.converts.items() for key in keys}
    clockwork = _TensorTimes(record, "")
    ledger: list[Tensor] = []
    for key, (path, tensor) in stored.items():
        name = target_of.get(key) or record.renames.get(key)
        times = clockwork.of(name or key, [key], path)
        if name is None and (times.placed is not None or key in record.reads):
            name = key
        done = times.placed is not None
        ledger.append(
            Tensor(
                name=name,
                kind="parameter",
                provenance=("state_dict" if path == STATE_DICT else "checkpoint") if done else None,
                keys=[key],
                file=os.path.basename(path) if path != STATE_DICT else None,
                offset=tensor.offset,
                shape=tensor.shape,
                stored_dtype=tensor.dtype,
                dtype=None,
                stored_bytes=tensor.bytes,
                bytes=None,
                device=None,
                tied_to=None,
                read_start_ns=times.read_start,
                read_end_ns=times.read_end,
                placed_ns=times.placed,
                thread=times.thread,
                span=record.innermost(times.thread, times.read_start)
                if times.thread is not None and times.read_start is not None
                else None,
            )
        )
    return ledger


# -- files ----------------------------------------------------------------------------------------


def file_format(name: str) -> str:
    """Returns a file's format by its name."""
    suffix = name.rpartition(".")[2].lower()
    return {"bin": "pickle", "pt": "pickle", "pth": "pickle", "jsonl": "json"}.get(suffix, suffix)


def _file_ledger(record: LoadRecord, tensors: list[Tensor], *, finished: bool) -> list[File]:
    read_bytes: dict[str, int] = {}
    opened: set[str] = set()
    for tensor in tensors:
        if tensor.file is not None and tensor.read_start_ns is not None:
            read_bytes[tensor.file] = read_bytes.get(tensor.file, 0) + (tensor.stored_bytes or 0)
            opened.add(tensor.file)
    opened.update(record.span_files.values())
    entries = _FileEntries()
    for span, fields in record.asked:
        entries.add(span, fields)
    for index, (path, (before, after, span)) in enumerate(record.checkpoint.items()):
        result = "local" if os.sep + "snapshots" + os.sep not in path else "cached"
        entry = entries.add(
            span, {"name": os.path.basename(path), "path": path, "result": result}, again=False
        )
        entry.update(shard=index, resident_before=before, resident_after=after)
        if entry["size_bytes"] is None:
            try:
                entry["size_bytes"] = os.stat(path).st_size
            except OSError:
                pass
    for download in record.downloads:
        entries.book(download)
    pending = dict(record.requests)
    ledger = []
    for entry in entries.rows:
        base = os.path.basename(entry["path"]) if entry["path"] else entry["name"]
        is_weights = "shard" in entry
        ledger.append(
            File(
                name=entry["name"],
                path=entry["path"],
                asked_by=entry["asked_by"],
                result=entry["result"],
                size_bytes=entry["size_bytes"],
                downloaded_bytes=entry.get("downloaded_bytes"),
                requests=pending.pop((entry["where"], entry["name"]), 0),
                shard=entry.get("shard"),
                format=file_format(entry["name"]),
                resident_before=entry.get("resident_before"),
                resident_after=entry.get("resident_after"),
                opened=(base in opened) if is_weights else None,
                read_bytes=read_bytes.get(base, 0) if is_weights and (finished or base in opened) else None,
                asked=max(1, entry["asked"]),
            )
        )
    # Threads come back in any order; shards are shown in theirs.
    ledger.sort(key=lambda row: (row.asked_by or 0, -1 if row.shard is None else row.shard))
    return ledger


class _FileEntries:
    """The rows of the file ledger while they are put together: one for each file, however often asked for.

    A file is known by its path where it was found, else by its name and the
    repository or directory that was asked.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._by_path: dict[str, dict[str, Any]] = {}
        self._by_name: dict[tuple[str, str], dict[str, Any]] = {}

    def add(self, span: int, fields: dict[str, Any], *, again: bool = True) -> dict[str, Any]:
        """Adds what was heard of a file to its row, and returns the row.

        Args:
            span: The span that asked.
            fields: Of a line of kind :data:`~hftrace.schema.journal.FILE`.
            again: Whether this is one more question for the file, and no more
                than news of it.
        """
        name, path = str(fields["name"]), fields.get("path")
        where = os.path.normpath(str(fields.get("where") or os.path.dirname(path or "") or "."))
        row = self._by_path.get(path) if path else None
        row = row or self._by_name.get((where, name))
        if row is None or (path and row["path"] not in (None, path)):
            row = {"name": name, "where": where, "path": None, "asked_by": span, "asked": 0, "certainty": -1}
            self.rows.append(row)
        certainty = _certainty(fields)
        if certainty > row["certainty"]:
            row.update(certainty=certainty, result=fields.get("result", "error"), path=path)
        if row.get("size_bytes") is None:
            row["size_bytes"] = fields.get("size")
        if again and not fields.get("client"):
            row["asked"] += 1
        if path:
            self._by_path.setdefault(path, row)
        self._by_name.setdefault((where, name), row)
        return row

    def book(self, download: dict[str, Any]) -> None:
        """Marks the file that a download was for."""
        name = str(download.get("name") or "")
        where = download.get("where")
        if where is not None:
            row = self._by_name.get((os.path.normpath(where), name))
        else:
            # Outside of hf_hub_download it is what the progress bar shows: the last 40 characters.
            shown = name.removeprefix("(…)")
            matches = (
                row["name"] == name or (shown != name and row["name"].endswith(shown)) for row in self.rows
            )
            row = next((row for row, match in zip(self.rows, matches, strict=True) if match), None)
        if row is None:
            return
        row["downloaded_bytes"] = (row.get("downloaded_bytes") or 0) + int(download.get("bytes") or 0)
        if download.get("ok", True) and row["path"]:
            row["result"] = "downloaded"


def _certainty(fields: dict[str, Any]) -> int:
    """Returns how much a note says: a file found is certain; else the client knows better than the loader."""
    if fields.get("path"):
        return 4
    return 2 * bool(fields.get("client")) + (fields.get("result") == "error")
