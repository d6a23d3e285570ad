"""The child of ``hftrace plan``: the installed loader loads the model, and no weight is read.

See :mod:`hftrace.record.child.plan_hollow`. What comes out is ``plan.json`` in the run's directory.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hftrace.record import gil
from hftrace.record.child.load import (
    REQUEST_FILE,
    SECRETS_VARIABLE,
    RequestError,
    _answer_no_prompt,
    _keywords,
    _resolve_class,
)
from hftrace.record.child.plan_operations import UnknownError
from hftrace.record.child.plan_remote import refuse_weights, weightless
from hftrace.record.child.quantization import QuantizationError, check_installed, check_possible
from hftrace.record.environment import library_versions
from hftrace.record.hooks.generations import loader_facts
from hftrace.schema.redact import learn_call, redact
from hftrace.system.memory import HostMemory

PLAN_FILE = "plan.json"
OPTIONS_FILE = "options.json"
PIPELINE_FILE = "model_index.json"


_PERHAPS_OURS = (RuntimeError, TypeError, AttributeError, AssertionError, IndexError)
"""What code that meets weights without values may raise, whatever the load itself does."""


class _Unrecorded:
    """Stands where a load has its recorder: nothing of a plan is recorded."""

    def begin(self, *_: Any) -> None:
        return None

    def end(self, *_: Any) -> None:
        return None


def main(directory: str) -> int:
    """Plans the load that ``directory`` asks for; returns the exit code."""
    folder = Path(directory)
    request = json.loads((folder / REQUEST_FILE).read_text(encoding="utf-8"))
    secret = os.environ.pop(SECRETS_VARIABLE, None)
    if secret is not None:
        hidden = json.loads(secret)
        keywords = {**(request.get("keywords") or {}), **hidden.pop("keywords", {})}
        request.update(hidden, keywords=keywords)
    request["plan"] = json.loads((folder / OPTIONS_FILE).read_text(encoding="utf-8"))
    learn_call(str(request.get("model")), request.get("keywords") or {})
    found: dict[str, Any]
    try:
        found = _plan(request, folder)
    except (RequestError, QuantizationError) as error:
        found = {"usage": redact(str(error))}
    except Exception as error:
        behind = _behind(error)
        said = str(behind).strip().splitlines() or ["no message"]
        name = "" if isinstance(behind, UnknownError) else f"{type(behind).__name__}: "
        words = redact(f"{name}{said[0][:400]}")
        if isinstance(error, _PERHAPS_OURS) and behind is error:
            hint = "Weights that are not there may be why: try the load"
            words = f"the loader ended with {words.rstrip('.')}. {hint}"
        found = {"error": words, "refusal": _is_refusal(error)}
        if os.environ.get("HFTRACE_DEBUG"):
            raise
    (folder / PLAN_FILE).write_text(json.dumps(found), encoding="utf-8")
    return 0


def _is_refusal(error: Exception) -> bool:
    """Returns whether it is the plan that cannot be made, and not the load."""
    return isinstance(_behind(error), UnknownError) or isinstance(error, _PERHAPS_OURS)


def _behind(error: BaseException) -> BaseException:
    """Returns the refusal that the loader has made another error of; without one, the error itself."""
    seen: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in seen:
        if isinstance(found, UnknownError):
            return found
        seen.append(found)
        found = found.__cause__ or found.__context__
    return error


def _plan(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    reason = gil.refusal()
    if reason is not None:
        raise RequestError(reason)
    memory = HostMemory(reset=False)
    quantization = (request.get("keywords") or {}).get("quantization_config")
    check_installed(quantization)
    import transformers

    refuse_weights()
    asked = dict(request.get("keywords") or {})
    _check_pipeline(Path(request["model"]))
    model, asked = weightless(str(request["model"]), asked, folder)
    request = {**request, "model": model, "keywords": asked}
    check_possible(quantization, model)
    _answer_no_prompt()
    transformers.utils.logging.disable_progress_bar()
    importlib.import_module("transformers.modeling_utils")
    keywords = _keywords(dict(asked))
    _check_devices(keywords.get("device_map"), request["plan"])
    owner = _resolve_class(_Unrecorded(), transformers, request, keywords)  # type: ignore[arg-type]
    imported = memory.current()

    from hftrace.record.child.plan_dry import dry_load

    found = dry_load(owner, model, keywords, request["plan"], folder, _reader(memory))
    return {
        **found,
        "asked_class": owner.__name__,
        "import": {"anon_bytes": imported.rss_anon, "file_bytes": imported.rss_file},
        "versions": library_versions(),
        "loader": loader_facts(),
        "python": sys.executable,
    }


def _check_pipeline(folder: Path) -> None:
    """Refuses the folder of a pipeline of diffusers, which holds several models."""
    index = folder / PIPELINE_FILE
    if (folder / "config.json").exists() or not index.is_file():
        return
    try:
        parts = json.loads(index.read_text(encoding="utf-8"))
        ours = [
            name for name, where in parts.items() if isinstance(where, list) and where[0] == "transformers"
        ]
    except (OSError, ValueError, AttributeError, IndexError, RecursionError):
        ours = []
    models = [name for name in ours if (folder / name / "config.json").exists()]
    words = f"name one of its folders: {', '.join(models)}" if models else "it has no model of transformers"
    raise RequestError(
        f"{folder} is a pipeline of diffusers, and a plan is of one model of transformers: {words}"
    )


def _check_devices(device_map: Any, options: dict[str, Any]) -> None:
    """Refuses a map to devices that are not here, and of which nobody said how large they are."""
    places = device_map.values() if isinstance(device_map, dict) else [device_map]
    named = any(str(place).startswith("cuda") or type(place) is int for place in places)
    if named and not options.get("gpus") and not sys.modules["torch"].cuda.is_available():
        raise RequestError("device_map names a GPU, and there is none here: --gpu SIZE says how large it is")


def _reader(memory: HostMemory) -> Callable[[], tuple[int, int]]:
    def read() -> tuple[int, int]:
        reading = memory.current()
        return reading.rss_anon or 0, (reading.rss_file or 0) + (reading.rss_shmem or 0)

    return read
