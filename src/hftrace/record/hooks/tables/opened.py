"""The hook point of ``safe_open``: a program, or a library, opens a safetensors file itself.

``safe_open`` is a type written in Rust, and no function of Python's runs when it
is called, but for one of torch's: the file is mapped, and asked for the storage
that is all of it (``untyped``, safetensors 0.3 and later). Which tensors are read,
and when, is not seen. Whose memory is the file's own is known from where it lies
(:mod:`hftrace.record.hooks.mapped`).

Outside of any load the opening of a file is one, once for each file, for the first
500. With a framework that is not torch, or a back end that maps nothing, it is not seen.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from hftrace.record.frames import is_own
from hftrace.record.hooks.capture import basename, note_checkpoint, note_file
from hftrace.record.hooks.handed import handed_of
from hftrace.record.hooks.parts import in_container, owner_of
from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.hooks.tables.entry import Entry
from hftrace.record.hooks.tables.given import FileObserver
from hftrace.record.hooks.wrappers import observed_by

WITH_HOOKS = frozenset({"accelerate", "hftrace", "peft", "safetensors", "transformers"})
"""Whose openings are part of something that is hooked itself, such as the forward of an offloaded model."""


BETWEEN = ("hftrace.record.hooks.", "hftrace.record.recorder", "torch.")
"""Modules whose frames lie between that code and here."""
MAX_TOLD = 500
"""Files that are loads; what reads a data set opens any number of them."""


class OpenObserver(FileObserver):
    """The storage of a mapped file is asked for, which ``safe_open`` does when it opens one."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._told: set[str] = set()

    def begin(self, call: Call, started: int) -> Any:
        """Begins a load where nothing else is being loaded; in a container it is a file of that."""
        stack, recorder = self.state.stack, self.recorder
        if stack:
            if in_container(stack):
                found = handed_of(recorder).mapped.add(call.first())
                # load_file says itself what it reads.
                if found is not None and stack[-1].phase != "shard":
                    note_file(recorder, basename(found.path), found.path, "local", shard=True)
                    note_checkpoint(recorder, found.path, found.identity)
                    recorder.facts("by_key", {"load": owner_of(stack).id, "path": found.path})
            return None
        if recorder.open_loads or _caller() in WITH_HOOKS:
            return None
        mapped = handed_of(recorder).mapped
        if len(self._told) >= MAX_TOLD:
            mapped.untold += 1
            return None
        found = mapped.add(call.first())
        if found is None or found.path in self._told:
            return None
        self._told.add(found.path)
        token = super().begin(Call(("filename",), (found.path,), {}), started)
        if isinstance(token, Entry):
            token.span.notes["file"] = basename(found.path)
            token.owner.notes["bytes"] = token.span.notes["bytes"] = found.end - found.start
        return token

    def name(self, call: Call) -> str:
        """Returns the function and the file."""
        return f"safe_open({basename(call.get('filename'))})"

    def finish(self, token: Any, call: Call, result: Any) -> None:
        """Ends it: what is returned here is none of the program's."""
        super().finish(token, call, None)

    def result_facts(self, token: Entry, call: Call, result: Any) -> dict[str, Any]:
        """Returns nothing: which tensors are read is not seen."""
        return {}


def _caller() -> str:
    """Returns the package of the code that opened the file."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and (is_own(frame.f_code.co_filename) or _module_of(frame).startswith(BETWEEN)):
        frame = frame.f_back
    return "" if frame is None else _module_of(frame).partition(".")[0]


def _module_of(frame: types.FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


POINTS = (
    HookPoint(
        "torch.storage:_StorageBase.untyped",
        "shard",
        handler=observed_by(OpenObserver, begins_load=True),
        optional=True,
        stands_for="safe_open",
    ),
)
