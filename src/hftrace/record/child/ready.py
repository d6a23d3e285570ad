"""What may be asked of ``hftrace load`` after the load: touch, forward, generate, and so on.

A load may return having read almost nothing, with weights that are only
mapped into memory. ``touch`` reads every page of them, ``forward`` does one
real forward pass, ``generate`` gets a first answer, ``verify`` holds the model
against its files and ``stats`` measures what no file has (neither is done
here), and ``release`` shows what the process keeps once the model is gone.
Each is a span of its own beside the load, never a part of it.
"""

from __future__ import annotations

import gc
import itertools
import mmap
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hftrace.record.child.answer import Answer
from hftrace.record.child.inputs import InputError, build_inputs, given_inputs, main_device
from hftrace.record.recorder import Recorder, clock
from hftrace.record.snapshot import model_of
from hftrace.record.thread_state import OpenSpan
from hftrace.schema.redact import redact
from hftrace.schema.vocabulary import AFTER_LOAD

PIECE_BYTES = 1 << 28
"""How much is touched in one go, between two looks at the clock."""
TELL_NS = 5_000_000_000


class Readiness:
    """Does what was asked for after one load.

    Args:
        recorder: Who records it; made before the load begins, because what a
            release gives back is measured against the memory of this moment.
        request: ``touch``, ``forward``, ``verify``, ``stats`` and ``release`` (true or false),
            ``inputs`` (keywords of the forward pass, or None), and ``generate`` (see
            :class:`hftrace.record.child.answer.Answer`, or None).
        looks: What does ``verify`` and ``stats``, each as a span of its own.
    """

    def __init__(
        self,
        recorder: Recorder,
        request: dict[str, Any],
        looks: Mapping[str, Callable[[Recorder], None]] | None = None,
    ) -> None:
        self._recorder = recorder
        self._asked = [step for step in AFTER_LOAD if request.get(step)]
        self._looks = looks or {}
        self._inputs: dict[str, Any] | None = request.get("inputs")
        self._answer: Answer | None = None
        if request.get("generate"):
            self._answer = Answer(
                str(request.get("model")), dict(request.get("keywords") or {}), request["generate"]
            )
        self._before = recorder.memory.current()
        self._devices_before = recorder.devices.read(reset=False) or {}

    def run(self, held: list[Any]) -> None:
        """Does it: touch, forward, generate, verify, stats, release.

        A step that fails is a span with an error, and the next one is tried.

        Args:
            held: What ``from_pretrained`` returned, as the only item of a
                list that nobody else has a reference into: a release empties it.
        """
        if "touch" in self._asked:
            self._step("touch", "touch every page", lambda span: self._touch(span, held))
        if "forward" in self._asked:
            self._step("forward", self._name(held), lambda span: self._forward(span, held))
        if self._answer is not None:
            self._generate(self._answer, held)
        for step in ("verify", "stats"):
            if step in self._asked and step in self._looks:
                self._looks[step](self._recorder)
        if "release" in self._asked:
            self._step("release", "release the model", lambda span: self._release(span, held))

    def _step(self, phase: str, name: str, action: Callable[[OpenSpan], None]) -> bool:
        """Does one step; returns whether it was done."""
        recorder = self._recorder
        span = recorder.begin(phase, name)
        try:
            action(span)
        except Exception as error:
            message = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            recorder.end(span, "error", {"error": redact(message.strip(": "))[:2000]})
        except BaseException as error:
            recorder.fail(span, error)
            raise
        else:
            recorder.end(span)
            return True
        return False

    # -- touch ------------------------------------------------------------------------------------

    def _touch(self, span: OpenSpan, held: list[Any]) -> None:
        model = _module(held)
        extents, tensors, elsewhere = _extents(model)
        touched = 0
        told = clock()
        for storage, parts in extents:
            for first, last in parts:
                for start in range(first, last, PIECE_BYTES):
                    end = min(start + PIECE_BYTES, last)
                    _read_pages(storage, start, end)
                    touched += end - start
                    if clock() - told > TELL_NS:
                        # Slow storage is no stall: who watches the journal must see that it goes on.
                        told = clock()
                        self._recorder.facts("progress", {"touched_bytes": touched})
        span.notes.update({"bytes": touched, "tensors": tensors})
        if elsewhere:
            span.notes["elsewhere"] = elsewhere

    # -- forward ----------------------------------------------------------------------------------

    @staticmethod
    def _name(held: list[Any]) -> str:
        model = model_of(held[0])
        return f"{type(model).__name__}.forward" if model is not None else "forward"

    def _forward(self, span: OpenSpan, held: list[Any]) -> None:
        import torch

        model = _module(held)
        with torch.inference_mode():
            inputs = build_inputs(model) if self._inputs is None else given_inputs(model, self._inputs)
            span.notes["inputs_from"] = "config" if self._inputs is None else "--input"
            span.notes["inputs"] = {name: _described(value) for name, value in inputs.items()}
            device = main_device(model)
            span.notes["device"] = str(device)
            returned = model(**inputs)
            # The call of a kernel returns before the kernel has run.
            _synchronize(device)
            span.notes["returned"] = type(returned).__name__

    # -- generate ---------------------------------------------------------------------------------

    def _generate(self, answer: Answer, held: list[Any]) -> None:
        def with_model(action: Callable[[OpenSpan, Any], None]) -> Callable[[OpenSpan], None]:
            def step(span: OpenSpan) -> None:
                span.notes["asked"] = "generate"
                action(span, _module(held))

            return step

        model = model_of(held[0])
        name = f"{type(model).__name__}.generate" if model is not None else "generate"
        del model
        # Each needs what the one before it made. A load inside of a span of ours is a part of that.
        if self._step("tokenizer", "AutoTokenizer", with_model(answer.load_tokenizer)) and self._step(
            "tokenize", "tokenize", with_model(answer.tokenize)
        ):
            self._step("generate", name, with_model(answer.generate))

    # -- release ----------------------------------------------------------------------------------

    def _release(self, span: OpenSpan, held: list[Any]) -> None:
        model = model_of(held[0]) if held else None
        try:
            alive = weakref.ref(model) if model is not None else None
        except TypeError:
            alive = None
        del model
        held.clear()
        gc.collect()
        _empty_device_caches()
        after = self._recorder.memory.current()
        span.notes["kept_anon_bytes"] = _kept(self._before.rss_anon, after.rss_anon)
        span.notes["kept_file_bytes"] = _kept(self._before.rss_file, after.rss_file)
        if alive is not None:
            span.notes["freed"] = alive() is None
        devices = self._recorder.devices.read(reset=False)
        if devices:
            span.notes["kept_device_bytes"] = {
                name: max(0, values[1] - self._devices_before.get(name, [0, 0])[1])
                for name, values in devices.items()
            }


def _kept(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else max(0, after - before)


def _module(held: list[Any]) -> Any:
    """Returns the model in what the load returned.

    Raises:
        InputError: There is none.
    """
    model = model_of(held[0])
    if model is None:
        kind = type(held[0])
        raise InputError(
            f"from_pretrained returned a {kind.__module__}.{kind.__qualname__}, which is no torch.nn.Module"
        )
    return model


def _tensors(model: Any) -> Iterator[Any]:
    """Yields the plain tensors that hold the data of parameters and buffers, each object once."""
    seen: dict[int, Any] = {}  # the tensors themselves too: while they live, no other has their id
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        pending = [tensor]
        while pending:
            current = pending.pop()
            if id(current) in seen:
                continue
            seen[id(current)] = current
            flatten = getattr(current, "__tensor_flatten__", None)
            if flatten is None:
                yield current
            else:
                # A wrapper (quantised by torchao, a piece of a distributed tensor) has no storage of its own.
                pending += [getattr(current, name) for name in flatten()[0]]


def _extents(model: Any) -> tuple[list[tuple[Any, list[tuple[int, int]]]], int, dict[str, int]]:
    """Returns where the data of a model lies in CPU memory.

    Returns:
        Each storage with its stretches of bytes ``(start, end)``, merged; how
        many tensors that are; how many lie on which other device.
    """
    storages: dict[int, tuple[Any, list[tuple[int, int]]]] = {}
    tensors = 0
    elsewhere: dict[str, int] = {}
    for tensor in _tensors(model):
        if tensor.device.type != "cpu":
            device = str(tensor.device)
            elsewhere[device] = elsewhere.get(device, 0) + 1
            continue
        storage = tensor.untyped_storage()
        size = tensor.element_size()
        last = sum((count - 1) * step for count, step in zip(tensor.shape, tensor.stride(), strict=True))
        start = tensor.storage_offset() * size
        end = min(start + (last + 1) * size, storage.nbytes())
        tensors += 1
        if tensor.numel() and end > start:
            # Tied weights share a storage; a slice of a mapped file may share it with all others.
            storages.setdefault(storage.data_ptr(), (storage, []))[1].append((start, end))
    merged = []
    for storage, parts in storages.values():
        union: list[tuple[int, int]] = []
        for start, end in sorted(parts):
            if union and start <= union[-1][1]:
                union[-1] = (union[-1][0], max(end, union[-1][1]))
            else:
                union.append((start, end))
        merged.append((storage, union))
    return merged, tensors, elsewhere


def _read_pages(storage: Any, start: int, end: int) -> None:
    """Reads one byte of every page of a stretch of a storage, whatever dtype lies in it."""
    import torch

    count = -(-(end - start) // mmap.PAGESIZE)
    first_of_each = torch.empty(0, dtype=torch.uint8).set_(storage, start, (count,), (mmap.PAGESIZE,))
    last = torch.empty(0, dtype=torch.uint8).set_(storage, end - 1, (1,), (1,))
    first_of_each.sum()
    last.sum()


def _described(value: Any) -> str:
    """Returns an input as ``int64[1, 8]``; of anything else the type."""
    shape = getattr(value, "shape", None)
    if shape is None:
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')}{list(shape)}"


def _accelerator() -> Any:
    """Returns the module of the accelerator in use, None where none is; never initialises one."""
    torch = sys.modules["torch"]
    cuda = getattr(torch, "cuda", None)
    if cuda is not None and cuda.is_initialized():
        return cuda
    accelerator = getattr(torch, "accelerator", None)
    if accelerator is None or not accelerator.is_available():
        return None
    return None if accelerator.current_accelerator().type == "cuda" else accelerator


def _synchronize(device: Any) -> None:
    module = _accelerator() if device.type != "cpu" else None
    if module is not None:
        module.synchronize()


def _empty_device_caches() -> None:
    module = _accelerator()
    empty = getattr(module, "empty_cache", None)
    if empty is None and module is not None:
        # Before torch.accelerator could do it (2.9), each kind of device had a function of its own.
        kind = module.current_accelerator().type
        empty = getattr(getattr(sys.modules["torch"], kind, None), "empty_cache", None)
    if empty is not None:
        empty()
