"""Hook points of what writes a model, or what belongs to it, to a folder or to the Hub: phase ``save``.

The outermost call is the span, because a model saves its configs as well; what is
saved to be pushed to the Hub is a span inside of that. What a call has written
is told from what its folder held before.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.hooks.wrappers import SpanObserver, observed_by
from hftrace.record.recorder import clock
from hftrace.record.thread_state import OpenSpan
from hftrace.schema.redact import redact

MAX_FILES = 10_000
"""A folder with more is not looked through to its end."""
PUSH = "push_to_hub"


class _Held(NamedTuple):
    """A file, as far as it takes to see that it was written."""

    size: int
    mtime_ns: int
    inode: int


_Files = dict[str, _Held]


class Saving(NamedTuple):
    """A call that saves."""

    span: OpenSpan
    folder: str | None
    before: _Files | None
    """What was in it; None where it is not to be looked through."""


class SaveObserver(SpanObserver):
    """A call that writes files: into which folder, how many, and how large they are together."""

    def begin(self, call: Call, started: int) -> Saving | None:
        """Begins a span, unless it is a part of another call that saves."""
        stack = self.state.stack
        if any(span.phase == "save" and not span.name.endswith(f".{PUSH}") for span in stack):
            return None
        name = f"{type(call.first()).__name__}.{self.point.function.rpartition('.')[2]}"
        if stack and stack[-1].name == name:
            return None  # a class's own, which calls its base's
        where = self.folder(call)
        noted = {"folder": redact(where)} if where is not None else self.noted(call)
        span = self.recorder.begin("save", name, self.number, noted, started)
        return Saving(span, where, None if where is None else _files(where))

    def finish(self, token: Saving, call: Call, result: Any) -> None:
        """Ends it, and looks at what is in the folder now."""
        ended = clock()
        now = None if token.folder is None or token.before is None else _files(token.folder)
        facts = None
        if now is not None and token.before is not None:
            written = [held for path, held in now.items() if token.before.get(path) != held]
            facts = {"files": len(written), "bytes": sum(held.size for held in written)}
        self.recorder.end(token.span, "ok", facts, ended)

    def fail(self, token: Saving, call: Call, error: BaseException) -> None:
        """Ends it as failed."""
        self.recorder.fail(token.span, error)

    def folder(self, call: Call) -> str | None:
        """Returns the folder that is written to, as the caller names it."""
        where = call.get("save_directory")
        return os.fsdecode(where) if isinstance(where, (str, os.PathLike)) else None

    def noted(self, call: Call) -> dict[str, Any]:
        """Returns what is put down of a call that names no folder."""
        return {}


class PushObserver(SaveObserver):
    """A call that uploads what it saves to a folder of its own first."""

    def folder(self, call: Call) -> str | None:
        """Returns None: the folder is gone when the call returns."""
        return None

    def noted(self, call: Call) -> dict[str, Any]:
        """Returns the repository."""
        repository = call.get("repo_id")
        return {"repo": redact(repository)} if isinstance(repository, str) else {}


def _files(folder: str) -> _Files | None:
    """Returns the files of a folder; None where there are too many, or it cannot be read."""
    found: _Files = {}
    try:
        for place, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(place, name)
                status = os.stat(path)
                found[path] = _Held(status.st_size, status.st_mtime_ns, status.st_ino)
            if len(found) > MAX_FILES:
                return None
    except OSError:
        return None
    return found


_save_handler = observed_by(SaveObserver, begins_load=True)
_push_handler = observed_by(PushObserver, begins_load=True)
_CLASSES = (
    ("transformers.modeling_utils:PreTrainedModel", "", ""),
    ("transformers.configuration_utils:PretrainedConfig", "", "C"),
    ("transformers.configuration_utils:PreTrainedConfig", "D", ""),
    ("transformers.generation.configuration_utils:GenerationConfig", "", ""),
    ("transformers.tokenization_utils_base:PreTrainedTokenizerBase", "", ""),
    ("transformers.processing_utils:ProcessorMixin", "", ""),
    ("transformers.feature_extraction_utils:FeatureExtractionMixin", "", ""),
    ("transformers.image_processing_base:ImageProcessingMixin", "", ""),
    ("peft.peft_model:PeftModel", "", ""),
)
"""What has a ``save_pretrained`` of its own, from which loader generation on, and until which."""

POINTS = (
    *(
        HookPoint(
            f"{owner}.save_pretrained",
            "save",
            since=since,
            until=until,
            optional=True,
            handler=_save_handler,
        )
        for owner, since, until in _CLASSES
    ),
    HookPoint(f"transformers.utils.hub:PushToHubMixin.{PUSH}", "save", optional=True, handler=_push_handler),
    # Some classes have a copy of it (copy_func), or one of their own around it.
    *(
        HookPoint(f"{owner}.{PUSH}", "save", since=since, until=until, optional=True, handler=_push_handler)
        for owner, since, until in _CLASSES
    ),
)
