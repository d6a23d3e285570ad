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
        yield


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
