"""What stands in for functions that a planned load must not run: files written, threads, devices."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from hftrace.record.child.plan_hollow import Hollow


class Inline(ThreadPoolExecutor):
    """Does at once what it is given: modes of torch hold for one thread.

    What is read ahead is read before it is needed, as where the readers are quicker than who waits for them.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Returns what is done already."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


@contextlib.contextmanager
def standing_in(mode: Hollow, gpus: list[int]) -> Iterator[None]:
    """Puts stand-ins in the place of functions while a load is planned.

    Args:
        mode: What counts.
        gpus: The bytes of each device that is only spoken of; none where the machine's own are meant.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_replaced({ThreadPoolExecutor: Inline}))
        for name in ("accelerate.utils.offload", "transformers.integrations.accelerate"):
            original = getattr(sys.modules.get(name), "offload_weight", None)
            if original is not None:
                stack.enter_context(_replaced({original: _offloading(mode)}))
        if gpus:
            stack.enter_context(_devices(gpus))
            stack.enter_context(_staying(mode))
            for name in ("accelerate.utils.modeling", "transformers.integrations.accelerate"):
                original = getattr(sys.modules.get(name), "infer_auto_device_map", None)
                if original is not None:
                    stack.enter_context(_replaced({original: _named(original)}))
        yield


def named_devices(device_map: Any) -> Any:
    """Returns a device map with names in place of numbers, which torch takes only where such a device is."""
    if isinstance(device_map, dict):
        names = {name: named_devices(place) for name, place in device_map.items()}
        return type(device_map)(names) if type(device_map) is not dict else names
    return f"cuda:{device_map}" if type(device_map) is int else device_map


def _named(original: Callable[..., Any]) -> Callable[..., Any]:
    def infer_auto_device_map(*args: Any, **kwargs: Any) -> Any:
        return named_devices(original(*args, **kwargs))

    return infer_auto_device_map


@contextlib.contextmanager
def _devices(sizes: list[int]) -> Iterator[None]:
    """Lets torch speak of devices that are not here: how many, and how much memory each has."""
    import torch

    def index(device: Any = None) -> int:
        if device is None:
            return 0
        return device if isinstance(device, int) else torch.device(device).index or 0

    answers: dict[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "device_count": lambda: len(sizes),
        "current_device": lambda: 0,
        "mem_get_info": lambda device=None: (sizes[index(device)], sizes[index(device)]),
        "synchronize": lambda device=None: None,
        "empty_cache": lambda: None,
        "memory_allocated": lambda device=None: 0,
        "memory_reserved": lambda device=None: 0,
    }
    places: list[tuple[Any, str, Any]] = [(torch.cuda, name, answer) for name, answer in answers.items()]
    for name, module in list(sys.modules.items()):
        # What it reserves is what the weights take right after; it would ask the driver first.
        if name.startswith("transformers") and "caching_allocator_warmup" in vars(module):
            places.append((module, "caching_allocator_warmup", lambda *_, **__: None))
    before = [(module, name, getattr(module, name)) for module, name, _ in places]
    try:
        for module, name, answer in places:
            setattr(module, name, answer)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def _staying(mode: Hollow) -> Any:
    """Returns a mode: ``tensor.to`` gives the tensor itself where it is there already, as torch does."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Staying(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func is torch.Tensor.to and len(args) > 1 and type(args[1]) is int:
                # So safetensors asks; torch would look for the accelerator that a bare number means.
                args = (args[0], torch.device("cuda", args[1]), *args[2:])
            if func is torch.Tensor.to and len(args) > 0 and not kwargs.get("copy"):
                known = mode.known(args[0])
                if known is not None and known.kind in _asked(args, kwargs):
                    return args[0]
            return func(*args, **kwargs)

    def _asked(args: Any, kwargs: dict[str, Any]) -> tuple[str, ...]:
        try:
            device, dtype, *_ = torch._C._nn._parse_to(*args[1:], **kwargs)
        except (RuntimeError, TypeError):
            return ()
        if device is None or dtype not in (None, args[0].dtype):
            return ()
        return (f"{device.type}:{device.index or 0}",)

    return Staying()


def _offloading(mode: Hollow) -> Callable[..., Any]:
    def offload_weight(weight: Any, weight_name: str, offload_folder: Any, index: Any = None) -> Any:
        dtype = "bfloat16" if "bfloat16" in str(weight.dtype) else str(weight.dtype).removeprefix("torch.")
        size = weight.numel() * weight.element_size()
        mode._read([weight])
        mode.ledger.add("disk", size)
        if index is not None:
            index[weight_name] = {"dtype": dtype, "shape": list(weight.shape)}
        return index

    return offload_weight


@contextlib.contextmanager
def _replaced(pairs: dict[Any, Any]) -> Iterator[None]:
    """Replaces objects wherever a module of transformers or accelerate has them by name."""
    done: list[tuple[Any, str, Any]] = []
    for name, module in list(sys.modules.items()):
        if not name.startswith(("transformers", "accelerate")) or module is None:
            continue
        for attribute, value in list(vars(module).items()):
            try:
                stand_in = pairs.get(value)
            except TypeError:
                continue  # what cannot be hashed is no function
            if stand_in is not None:
                done.append((module, attribute, value))
                setattr(module, attribute, stand_in)
    try:
        yield
    finally:
        for module, attribute, value in done:
            setattr(module, attribute, value)
