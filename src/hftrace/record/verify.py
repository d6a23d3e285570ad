"""Holds every tensor of a finished model against the bytes of the files that it is said to come from.

``--verify`` does it after the measured part. It is independent of what was
recorded while the model was loaded: the values are read again, by the libraries
that own the formats, cast as the loader casts, and compared. Nothing of the
model is written; one stored tensor at a time is in memory, and pages of
memory-mapped weights are read, which makes them resident.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hftrace.record.rebuild import UnknownOperationError, rebuilt
from hftrace.record.recorder import Recorder, clock
from hftrace.schema import lines
from hftrace.schema.verification import Check

PIECE_ELEMENTS = 1 << 24
"""What is compared in one go."""
ROWS_PER_LINE = 500
TELL_NS = 5_000_000_000
TOLERANCES = ((3.0, 0.6), (6.0, 0.2), (12.0, 0.07))
"""Bits of a quantised value, at most, and how far it may be from the stored one, as a share of the greatest
magnitude in the tensor. Half a step of the coarsest formats in use: nf4 and int4, e4m3 and int8."""


def verify_model(recorder: Recorder, span: int, model: Any, checks: Sequence[Check]) -> dict[str, int]:
    """Verifies one model, and writes the result of each tensor to the journal.

    Args:
        recorder: Where to.
        span: The load that made the model.
        model: The torch module; None where it is gone.
        checks: What its tensors are said to hold.

    Returns:
        How many tensors were the same, different, and not compared.
    """
    import torch

    counts = {"verified": 0, "different": 0, "unverified": 0}
    verifier = _Verifier(model) if model is not None else None
    rows: list[Any] = []
    told = clock()
    done = 0
    with torch.no_grad():
        for check in checks:
            if verifier is None:
                found = lines.Verification(check.name, None, None, None, "gone")
            else:
                try:
                    found = verifier.verify(check)
                except Exception as error:
                    recorder.error("verify", error)
                    found = lines.Verification(check.name, None, None, None, "error")
            word = {True: "verified", False: "different", None: "unverified"}[found.verified]
            counts[word] += 1
            rows += found
            done += 1
            if len(rows) >= ROWS_PER_LINE * len(found):
                recorder.write(lines.Verified(span, rows))
                rows = []
            if clock() - told > TELL_NS:
                # A large model is no stall: who watches the journal must see that it goes on.
                told = clock()
                recorder.facts("progress", {"verified_tensors": done})
    if rows:
        recorder.write(lines.Verified(span, rows))
    return counts


class _UnverifiedError(Exception):
    """Carries the word for why a tensor cannot be verified."""


class _Verifier:
    """Verifies the tensors of one model, one after the other."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._files = _Files()

    def verify(self, check: Check) -> lines.Verification:
        """Returns how one tensor compares with the files."""
        self._files.readable = check.readable
        try:
            verified, difference, tolerance = self._compare(check)
        except _UnverifiedError as reason:
            return lines.Verification(check.name, None, None, None, str(reason))
        except UnknownOperationError:
            return lines.Verification(check.name, None, None, None, "operations")
        return lines.Verification(check.name, verified, difference, tolerance, None)

    def _compare(self, check: Check) -> tuple[bool, float | None, float | None]:
        tensor = self._tensor(check.name)
        if check.tied_to is not None and tensor is self._tensor(check.tied_to) and not tensor.is_meta:
            return True, None, None  # the one that it is tied to is verified itself
        if not check.sources:
            raise _UnverifiedError("unreadable")
        if any(not path for path, _ in check.sources):
            raise _UnverifiedError("state_dict")
        if any(path.endswith(".gguf") for path, _ in check.sources):
            raise _UnverifiedError("gguf")
        if hasattr(tensor, "_local_tensor"):
            raise _UnverifiedError("part")
        held = self._offloaded(check.name) if tensor.is_meta else tensor.detach()
        values = _dequantized(held)
        if values is not None:
            return self._compare_quantized(check, held, values)
        stored = self._stored(check, held)
        if tuple(stored.shape) != tuple(held.shape):
            if stored.numel() != held.numel() or stored.numel() != 1:
                return False, None, None
            stored = stored.reshape(held.shape)
        same, difference = compare(held, stored)
        return same, difference, None

    def _compare_quantized(
        self, check: Check, held: Any, values: Any
    ) -> tuple[bool, float | None, float | None]:
        """Compares what a quantised tensor stands for with what is stored."""
        if len(check.sources) != 1:
            return self._compare_codes(check, held)
        stored = self._files.read(*check.sources[0])
        if not stored.is_floating_point() or stored.numel() != values.numel():
            return self._compare_codes(check, held)
        stored = stored.reshape(values.shape)
        bits = 8 * sum(part.nbytes for part in _parts(held)) / max(1, values.numel())
        share = next((share for most, share in TOLERANCES if bits <= most), 0.0)
        tolerance = share * float(stored.abs().max()) if stored.numel() else 0.0
        same, difference = compare(values, stored.to(values.dtype))
        if same:
            return True, None, tolerance
        return difference is not None and difference <= tolerance, difference, tolerance

    def _compare_codes(self, check: Check, held: Any) -> tuple[bool, float | None, float | None]:
        """Compares the codes of a tensor that was quantised in its file already."""
        main = [source for source in check.sources if source[1] == check.name]
        stored = self._files.read(*(main[0] if main else check.sources[0]))
        for part in _parts(held):
            if part.dtype == stored.dtype and part.numel() == stored.numel():
                same, difference = compare(part, stored.reshape(part.shape))
                return same, difference, None
        raise _UnverifiedError("format")

    def _stored(self, check: Check, held: Any) -> Any:
        """Returns what a tensor should hold, in its dtype."""

        def read(path: str, key: str) -> Any:
            stored = self._files.read(path, key)
            if stored.dtype != held.dtype and not (
                held.is_floating_point()
                and stored.is_floating_point()
                and min(held.element_size(), stored.element_size()) > 1
            ):
                raise _UnverifiedError("format")  # codes are not cast, they stand for other numbers
            return stored

        if len(check.sources) == 1 and not check.operations:
            return read(*check.sources[0])
        if not check.operations:
            codes = [source for source in check.sources if source[1] == check.name]
            if not codes:
                raise UnknownOperationError
            return read(*codes[0])
        return rebuilt(
            check, lambda path, key: read(path, key).to(held.dtype), lambda name: self._tensor(name).shape
        )

    def _tensor(self, name: str) -> Any:
        module, _, last = name.rpartition(".")
        owner: Any = self._model
        for part in module.split(".") if module else ():
            owner = owner._modules.get(part)
            if owner is None:
                raise _UnverifiedError("replaced")
        tensor = owner._parameters.get(last)
        if tensor is None:
            tensor = owner._buffers.get(last)
        if tensor is None:
            raise _UnverifiedError("replaced")
        return tensor

    def _offloaded(self, name: str) -> Any:
        """Returns what a hook of accelerate would bring in for a tensor without data."""
        path, _, last = name.rpartition(".")
        owner = self._model.get_submodule(path) if path else self._model
        pending = [owner.__dict__.get("_hf_hook")]
        if pending == [None]:
            raise _UnverifiedError("meta")
        while pending:
            hook = pending.pop()
            pending += getattr(hook, "hooks", ())
            weights = getattr(hook, "weights_map", None)
            if weights is not None:
                try:
                    value = weights[last]
                except Exception:
                    continue
                if not value.is_meta:
                    return value.detach()
        raise _UnverifiedError("offloaded")


def _parts(tensor: Any) -> Iterator[Any]:
    """Yields the plain tensors that a tensor's data lies in."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        yield tensor
        return
    for name in flatten()[0]:
        yield from _parts(getattr(tensor, name))


def _dequantized(tensor: Any) -> Any:
    """Returns the numbers that a quantised tensor stands for; None for a plain one."""
    state = getattr(tensor, "quant_state", None)
    if state is not None:  # bitsandbytes, 4 bits
        functional = importlib.import_module("bitsandbytes.functional")
        return functional.dequantize_4bit(tensor.data, state)
    scales = getattr(tensor, "SCB", None)
    if scales is not None:  # bitsandbytes, 8 bits
        codes = tensor.CB if getattr(tensor, "CB", None) is not None else tensor.data
        return codes.float() * scales.reshape(-1, 1).float() / 127
    if hasattr(tensor, "__tensor_flatten__"):  # torchao, quanto
        if hasattr(tensor, "_data") and hasattr(tensor._data, "unpack"):
            # Quanto unpacks codes of a few bits with code that it first compiles, for a minute.
            raise _UnverifiedError("unreadable")
        return tensor.dequantize()
    return None


def compare(held: Any, stored: Any) -> tuple[bool, float | None]:
    """Returns whether a tensor holds the stored values, cast to its dtype, and the greatest difference.

    Args:
        held: The tensor, on any device.
        stored: One of the same shape, on the CPU.
    """
    import torch

    if held.dim() == 0:
        held, stored = held.reshape(1), stored.reshape(1)
    same = True
    greatest: float | None = None
    rows = max(1, PIECE_ELEMENTS // max(1, math.prod(held.shape[1:])))
    for start in range(0, held.shape[0], rows):
        mine = held[start : start + rows].cpu()
        theirs = stored[start : start + rows].to(mine.dtype).cpu()
        if mine.is_floating_point() and mine.element_size() == 1:
            equal = bool((mine.contiguous().view(torch.uint8) == theirs.contiguous().view(torch.uint8)).all())
        else:
            equal = torch.equal(mine, theirs)
        if equal:
            continue
        wide = torch.complex128 if mine.is_complex() else torch.float64
        left, right = mine.to(wide), theirs.to(wide)
        # What is no number on both sides is the same.
        differs = (left != right) & ~(left.isnan() & right.isnan())
        if not bool(differs.any()):
            continue
        same = False
        worst = float((left - right)[differs].abs().max())
        if math.isfinite(worst):
            greatest = worst if greatest is None else max(greatest, worst)
    return same, greatest


class _Files:
    """Reads stored tensors, with the libraries that own the formats."""

    def __init__(self) -> None:
        self.readable: Mapping[str, str | None] = {}
        """Where to read the files of the load in hand: see :class:`~hftrace.schema.verification.Check`."""
        self._opened: dict[str, Any] = {}
        self._pickle: tuple[str, Any] = ("", {})

    def read(self, path: str, key: str) -> Any:
        """Returns a stored tensor.

        Raises:
            _UnverifiedError: It cannot be read.
        """
        place = self.readable.get(path, path)
        if place is None:
            raise _UnverifiedError("changed")
        try:
            if path.endswith(".safetensors"):
                return self._safetensors(place).get_tensor(key)
            if path.endswith((".bin", ".pt", ".pth")):
                return _below(self._pickled(place), key)
        except Exception:
            raise _UnverifiedError("unreadable") from None
        raise _UnverifiedError("format" if os.path.exists(place) else "unreadable")

    def _safetensors(self, place: str) -> Any:
        if place not in self._opened:
            from safetensors import safe_open

            self._opened[place] = safe_open(place, framework="pt")
        return self._opened[place]

    def _pickled(self, place: str) -> Any:
        if self._pickle[0] != place:
            import torch

            # One at a time: what cannot be mapped is in memory as a whole.
            self._pickle = ("", {})
            try:
                content = torch.load(place, map_location="cpu", weights_only=True, mmap=True)
            except (RuntimeError, ValueError):
                content = torch.load(place, map_location="cpu", weights_only=True)
            self._pickle = (place, content)
        return self._pickle[1]


def _below(content: Any, key: str) -> Any:
    """Returns the tensor of a pickle that has a key, which may begin with one of another dictionary in it."""
    if key in content:
        return content[key]
    inner = (
        (each, key.removeprefix(f"{name}.")) for name, each in content.items() if isinstance(each, Mapping)
    )
    return next(each[rest] for each, rest in inner if rest != key and rest in each)


def verify_models(
    recorder: Recorder, models: Iterable[tuple[int, Any]], checks: dict[int, list[Check]]
) -> dict[str, int]:
    """Verifies the models of several loads; returns the sum of what :func:`verify_model` does.

    Args:
        recorder: Where the results go.
        models: The span of each load and its model, or None where it is gone.
        checks: By the span of the load.
    """
    total: dict[str, int] = {}
    for span, model in models:
        for word, count in verify_model(recorder, span, model, checks.get(span, ())).items():
            total[word] = total.get(word, 0) + count
    return total
