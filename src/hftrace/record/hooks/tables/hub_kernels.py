"""Hook points of kernels from the Hub: fetching one, and putting it in the place of a model's own layers.

transformers gets kernels where a class names one (``use_kernels=True``) or the caller does
(``attn_implementation="org/name"``). Written for kernels 0.17.2 and tried with it and a kernel in
Python for the CPU, beside transformers 5.20.2 and 5.24.0; one that is compiled for a GPU was not.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.hooks.tables.surgery import OperationObserver
from hftrace.record.hooks.wrappers import SpanObserver, observed_by
from hftrace.record.identity import modules_of
from hftrace.record.recorder import Recorder
from hftrace.record.remote_code import COMMIT
from hftrace.record.thread_state import OpenSpan

IMPORTER = "kernels.importer"
SHORT = 8
"""So much of a commit is shown."""


def _asked(call: Call) -> str:
    """Returns the repository, with the version or revision that was asked for."""
    kernel = call.get("kernel")
    version = getattr(kernel, "version", None)
    number, revision = getattr(version, "version", None), getattr(version, "revision", None)
    asked = f"v{number}" if isinstance(number, int) else revision
    repository = str(getattr(kernel, "repo_id", "kernel"))
    if not isinstance(asked, str):
        return repository
    # A version that a class names has become its commit by now.
    return f"{repository}@{asked[:SHORT] if COMMIT.fullmatch(asked) else asked}"


def _found(recorder: Recorder, span: OpenSpan, call: Call, result: Any) -> dict[str, Any] | None:
    """Returns which kernel it is: its id, the commit, and the build that was chosen for this machine."""
    path = getattr(result, "__file__", None)
    if not isinstance(path, str):
        return None
    for kernel in _loaded():
        if getattr(kernel, "module", None) is result:
            folders = os.path.dirname(path).split(os.sep)
            return {
                "kernel": kernel.module.__name__,
                # Of its snapshot in the cache: what the package itself keeps is what was asked for.
                "commit": next((part for part in folders if COMMIT.fullmatch(part)), None),
                "build": folders[-1],
            }
    return None


def _loaded() -> list[Any]:
    known = getattr(sys.modules.get(IMPORTER), "_loaded_kernels", None)
    return list(known.values()) if isinstance(known, Mapping) else []


def _imported(call: Call) -> str:
    return os.path.basename(str(call.get("variant_path")))


class KernelizeObserver(OperationObserver):
    """``kernelize``: which classes of a model run a kernel's ``forward`` from now on."""

    argument: ClassVar[str] = "model"

    def begin(self, call: Call, started: int) -> OpenSpan | None:
        """Begins a span: a load's own inside of one, else a change of a known model."""
        stack = self.state.stack
        if not stack:
            return super().begin(call, started)
        if stack[0].phase != "load":
            return None
        found: OpenSpan | None = SpanObserver.begin(self, call, started)
        return found

    def finish(self, token: OpenSpan, call: Call, result: Any) -> None:
        """Ends the span, with the layers that were replaced."""
        attributes = None
        try:
            attributes = {"replaced": _replaced(call.get(self.argument))}
        finally:
            self.recorder.end(token, "ok", attributes)


def _replaced(model: Any) -> list[dict[str, Any]]:
    kernels = {kernel.module.__name__ for kernel in _loaded() if hasattr(kernel, "module")}
    found: Counter[tuple[str, str]] = Counter()
    for _, module in modules_of(model):
        function = getattr(vars(module).get("forward"), "__func__", None)
        if getattr(function, "__module__", None) in kernels:
            found[type(module).__name__, str(function.__module__)] += 1
    return [
        {"class": name, "kernel": kernel, "modules": count} for (name, kernel), count in sorted(found.items())
    ]


POINTS = (
    HookPoint("kernels.load:get_kernel_with_resolver", "resolve", optional=True, label=_asked, finish=_found),
    HookPoint(f"{IMPORTER}:_import_from_path", "import", optional=True, label=_imported),
    HookPoint(
        "transformers.integrations.hub_kernels:kernelize",
        "finalize",
        since="D",
        optional=True,
        handler=observed_by(KernelizeObserver, begins_load=True),
    ),
)
