"""Lets the installed loader load a model without its weights: operations on them are not done, but counted.

While :class:`Hollow` is active, every operation of torch comes through it. What has to do with weights
gets an output of the right shape, dtype and place whose memory is reserved and never touched; what has
not is done as ever, so that a model computes what it must know of itself. The loader runs as it is, with all
that it decides, in every version and for every architecture; what it would have written is added up.
"""

from __future__ import annotations

import mmap
import weakref
from typing import Any

from hftrace.record.child.plan_ledger import ANON, FILE, Ledger
from hftrace.record.child.plan_operations import (
    Mapping,
    Source,
    Storage,
    UnknownError,
    as_meta,
    elements,
    has_own,
    is_saving,
    is_view,
    is_wrapped,
    joined,
    operation,
    replaced,
    tensors_in,
    written_by,
)

LARGE = 1 << 16
"""Bytes from which on a new tensor is reserved and not made: what a model computes of itself is smaller."""
MAPPED = 1 << 20
"""Bytes from which on it is a mapping of its own, of which the kernel and the allocator touch nothing."""
NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
DEVICE_BLOCK = 512
"""The caching allocator of an accelerator rounds to this."""


_NOTHING = Storage("", 0)
"""Stands for what was overwritten as a whole."""
_ITEM = "aten::_local_scalar_dense"
_COPY_TO = "aten::_to_copy"
_REAL = "aten::set_"
_LIKE = frozenset(
    f"aten::{name}"
    for name in (
        *("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like"),
        *("new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided"),
    )
)
"""They make a tensor of another one's kind and read nothing of it."""


class Hollow:
    """Counts what operations on weights take instead of doing them.

    Args:
        ledger: Where it is added up.
        devices: Whether devices are planned with that this machine need not have.
    """

    def __init__(self, ledger: Ledger, devices: bool = False) -> None:
        self._mode = _mode(self, devices)
        self.ledger = ledger
        self.looked: list[str] = []
        """Operations that looked at a value that is not there."""
        self._storages: dict[int, Storage] = {}
        self._mappings: list[Mapping] = []
        self._from_file: Any = None

    def __enter__(self) -> Hollow:
        import torch

        self._from_file = vars(torch.UntypedStorage).get("from_file", torch.UntypedStorage.from_file)
        original = torch.UntypedStorage.from_file

        def from_file(path: Any, shared: bool = False, nbytes: int = 0) -> Any:
            storage = original(path, shared, nbytes)
            mapping = Mapping(str(path), storage.data_ptr(), nbytes)
            self._mappings.append(mapping)
            weakref.finalize(storage, self._unmap, mapping).atexit = False
            return storage

        torch.UntypedStorage.from_file = staticmethod(from_file)
        self._mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        import torch

        self._mode.__exit__(*error)
        torch.UntypedStorage.from_file = self._from_file

    def _unmap(self, mapping: Mapping) -> None:
        if mapping in self._mappings:
            self._mappings.remove(mapping)
        self.ledger.take(FILE, mapping.counted)

    # -- what is known of a tensor ---------------------------------------------------------------------

    def known(self, tensor: Any) -> Storage | None:
        """Returns what is known of a tensor's storage; None for one of no concern."""
        return None if is_wrapped(tensor) else self._storages.get(tensor.untyped_storage()._cdata)

    def mapped(self, tensor: Any) -> tuple[Mapping, int] | None:
        """Returns the weight file that a tensor lies in, and where in it."""
        if tensor.device.type != "cpu" or not self._mappings or is_wrapped(tensor):
            return None
        at = tensor.untyped_storage().data_ptr()
        for mapping in reversed(self._mappings):
            if mapping.start <= at < mapping.end:
                return mapping, tensor.data_ptr() - mapping.start
        return None

    def _register(self, tensor: Any, storage: Storage) -> None:
        raw = tensor.untyped_storage()
        key = raw._cdata
        self._storages[key] = storage
        weakref.finalize(raw, self._forget, key, storage).atexit = False

    def _forget(self, key: int, storage: Storage) -> None:
        if self._storages.get(key) is storage:
            del self._storages[key]
        if storage.counted:
            self.ledger.take(storage.kind, storage.written)

    def _write(self, storage: Storage, count: int) -> None:
        more = min(count, storage.size - storage.written)
        if more > 0:
            storage.written += more
            if storage.counted:
                self.ledger.add(storage.kind, more)

    # -- making ----------------------------------------------------------------------------------------

    def _reserve(self, like: Any, kind: str) -> Any:
        """Returns a tensor like a meta tensor whose memory nobody has touched."""
        import torch

        size = like.untyped_storage().nbytes() if like.numel() else 0
        if size >= MAPPED:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE
            raw = torch.frombuffer(mmap.mmap(-1, size, flags=flags), dtype=torch.uint8).untyped_storage()
            made = torch.empty(0, dtype=like.dtype).set_(
                raw, like.storage_offset(), like.shape, like.stride()
            )
        else:
            made = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype)
        taken = made.untyped_storage().nbytes()
        if kind != ANON:
            taken = -(-taken // DEVICE_BLOCK) * DEVICE_BLOCK
        storage = Storage(kind, taken)
        self._register(made, storage)
        if kind != ANON:
            self._write(storage, taken)  # an accelerator gives its memory when it is asked
        return made

    # -- operations ------------------------------------------------------------------------------------

    def dispatch(self, func: Any, types: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Does an operation, or what is done in its place."""
        if any(has_own(each) for each in types):
            return NotImplemented  # a kind of tensor with operations of its own, which come through here
        tensors = list(tensors_in((args, kwargs)))
        kind = _kind(kwargs.get("device"), tensors, self)
        if func._schema.name == _REAL:
            return func(*args, **kwargs)
        if not tensors:
            return self._made(func, args, kwargs, kind)
        if func._schema.name in _LIKE:
            return self._like(func, args, kwargs, tensors, kind)
        involved = any(self._is_weight(each) for each in tensors)
        if not involved and kind == ANON:
            return self._done(func, args, kwargs)
        if func._schema.name == _ITEM:
            if (known := self.known(tensors[0])) is not None and known.blank and not is_saving():
                self.looked.append(str(func))
            return self._peeked(tensors[0], func, args, kwargs)
        written = written_by(func, args, kwargs)
        if not written and is_view(func):
            return func(*args, **kwargs)
        if func._schema.name == _COPY_TO and self._is_there(tensors[0], kwargs, kind):
            return tensors[0].view(tensors[0].shape)
        if all(each.device.type == "meta" for each in tensors) and kind == ANON:
            return func(*args, **kwargs)
        if written:
            return self._overwrite(func, args, kwargs, written, tensors)
        if not involved:
            return self._elsewhere(func, args, kwargs, kind)
        return self._computed(func, args, kwargs, tensors, kind)

    def _done(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Returns what an operation gives that is done as ever.

        What a model computes of itself may be large, and gone before a weight comes: old versions have
        tables of all positions in each layer.
        """
        result = func(*args, **kwargs)
        if any(each.numel() * each.element_size() >= MAPPED for each in tensors_in(result)):
            self.ledger.settle()
        return result

    def _peeked(self, tensor: Any, func: Any, args: Any, kwargs: Any) -> Any:
        """Returns one value; what the kernel maps around it of a weight file is here in truth."""
        found = self.mapped(tensor)
        if found is None:
            return func(*args, **kwargs)
        before = self.ledger.file_bytes()
        result = func(*args, **kwargs)
        found[0].peeked += max(0, self.ledger.file_bytes() - before)
        return result

    def _is_weight(self, tensor: Any) -> bool:
        known = self.known(tensor)
        return known is not None or self.mapped(tensor) is not None

    def _is_there(self, tensor: Any, kwargs: Any, kind: str) -> bool:
        """Returns whether a tensor that is said to be on a device is asked for there once more."""
        known = self.known(tensor)
        return (
            known is not None and known.kind == kind != ANON and kwargs.get("dtype") in (None, tensor.dtype)
        )

    def _made(self, func: Any, args: Any, kwargs: Any, kind: str) -> Any:
        """Returns what a function makes of nothing."""
        import torch

        device = kwargs.get("device")
        if device is not None and torch.device(device).type == "meta":
            return func(*args, **kwargs)
        shape = args[0] if args and isinstance(args[0], (list, tuple)) else None
        if kind == ANON and (shape is None or elements(shape) * 8 < LARGE):
            return func(*args, **kwargs)
        if kind != ANON and (shape is None or elements(shape) * 8 < LARGE):
            return self._elsewhere(func, args, kwargs, kind)
        asked = {**kwargs, "device": "meta", **({"pin_memory": False} if "pin_memory" in kwargs else {})}
        return self._reserved(func, func(*args, **asked), kind)

    def _reserved(self, func: Any, like: Any, kind: str) -> Any:
        """Returns what a function that fills, or fills nothing, gives."""
        made = self._reserve(like, kind)
        if "empty" not in func._schema.name:
            self._write(self._storages[made.untyped_storage()._cdata], made.numel() * made.element_size())
        return made

    def _like(self, func: Any, args: Any, kwargs: Any, tensors: list[Any], kind: str) -> Any:
        """Returns a tensor of another one's kind."""
        import torch

        device = kwargs.get("device")
        if torch.device(device if device is not None else tensors[0].device).type == "meta":
            return func(*args, **kwargs)
        asked = {**kwargs, "device": "meta", **({"pin_memory": False} if "pin_memory" in kwargs else {})}
        with self.ledger.own_work():
            like = func(*as_meta(args), **as_meta(asked))
        if like.numel() * like.element_size() >= LARGE:
            return self._reserved(func, like, kind)
        if kind != ANON:
            return self._elsewhere(func, args, kwargs, kind)
        return func(*args, **kwargs)

    def _elsewhere(self, func: Any, args: Any, kwargs: Any, kind: str) -> Any:
        """Returns what is computed of no weight on a device: computed here, and counted there."""
        import torch

        if "device" in kwargs:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        result = func(*args, **kwargs)
        for made in tensors_in(result):
            if self.known(made) is None and made.device.type != "meta":
                size = -(-made.untyped_storage().nbytes() // DEVICE_BLOCK) * DEVICE_BLOCK
                storage = Storage(kind, size, blank=False)
                self._register(made, storage)
                self._write(storage, size)
        return result

    def _overwrite(self, func: Any, args: Any, kwargs: Any, written: list[Any], tensors: list[Any]) -> Any:
        """Counts an operation that writes into what is there."""
        self._read([each for each in tensors if not any(each is one for one in written)])
        inputs = [each for each in tensors if not any(each is one for one in written)]
        for target in written:
            if target.device.type == "meta":
                continue
            known = self.known(target)
            if known is None:
                if self.mapped(target) is not None:
                    self._read([target])  # a private mapping: the page is read, then becomes anonymous
                inside = self.mapped(target) is not None
                known = Storage(ANON, target.untyped_storage().nbytes(), counted=inside)
                self._register(target, known)
            self._write(known, target.numel() * target.element_size())
            known.blank = True
            kept = known if target.numel() * target.element_size() < known.size else _NOTHING
            known.sources = joined(self._sources(inputs), kept.sources)
            known.operations = kept.operations | {func._schema.name} | self._operations(inputs)
        returns = list(func._schema.returns)
        if not returns:
            return None
        return written[0] if len(returns) == 1 else tuple(written[: len(returns)])

    def _computed(self, func: Any, args: Any, kwargs: Any, tensors: list[Any], kind: str) -> Any:
        """Returns outputs that are there in all but their values."""
        import torch

        asked = {**kwargs, "device": torch.device("meta")} if kwargs.get("device") is not None else kwargs
        target = torch.device(kwargs["device"]).type if kwargs.get("device") is not None else ""
        try:
            with self.ledger.own_work():
                result = func(*as_meta(args), **as_meta(asked))
        except NotImplementedError:
            raise UnknownError(f"torch cannot say what {func} gives without doing it") from None
        if target == "meta":
            return result  # whose values nobody needs: nothing is read
        self._read(tensors)
        sources, operations = self._sources(tensors), self._operations(tensors) | {operation(func, args)}
        name = kind

        def real(made: Any) -> Any:
            hollow = self._reserve(made, name)
            storage = self._storages[hollow.untyped_storage()._cdata]
            storage.sources, storage.operations = sources, operations
            self._write(storage, storage.size)
            return hollow

        if not any(True for _ in tensors_in(result)):
            self.looked.append(str(func))
            return func(*args, **kwargs) if result is None else result
        return replaced(result, real)

    def _read(self, tensors: list[Any]) -> None:
        for each in tensors:
            found = self.mapped(each)
            if found is None:
                continue
            mapping, offset = found
            self.ledger.add(FILE, mapping.read(offset, each.numel() * each.element_size()))

    def _sources(self, tensors: list[Any]) -> frozenset[Source]:
        found: frozenset[Source] = frozenset()
        for each in tensors:
            place = self.mapped(each)
            if place is not None:
                found = joined(found, frozenset({(place[0].path, place[1], each.dtype)}))
            elif (known := self.known(each)) is not None:
                found = joined(found, known.sources)
        return found

    def _operations(self, tensors: list[Any]) -> frozenset[str]:
        return frozenset().union(
            *(known.operations for each in tensors if (known := self.known(each)) is not None)
        )


def _kind(device: Any, tensors: list[Any], mode: Hollow) -> str:
    """Returns what kind of memory the output of an operation takes."""
    import torch

    if device is not None:
        asked = torch.device(device)
        if asked.type in ("cpu", "meta"):
            return ANON
        return f"{asked.type}:{asked.index or 0}"
    for each in tensors:
        known = mode.known(each)
        if known is not None and known.kind != ANON:
            return known.kind
    return ANON


def _mode(hollow: Hollow, devices: bool) -> Any:
    """Returns the mode of torch through which operations come."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Mode(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return hollow.dispatch(func, types, args, kwargs or {})

        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            # The compiler would be imported for being told to look away, which no load does.
            return False

    mode = Mode()
    if devices:
        # A mode of this kind keeps torch from initialising a device that is only spoken of.
        mode._mode_key = torch._C._TorchDispatchModeKey.FAKE
    return mode
