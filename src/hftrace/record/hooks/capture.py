"""What hook points keep of a call: small functions from arguments and results to facts.

They run shielded, a few times per load (never per tensor), and store names,
numbers and strings only.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import types
from collections.abc import Iterable, Mapping
from typing import Any

from hftrace.record.hooks.points import Call
from hftrace.record.patching import original_code
from hftrace.record.recorder import Recorder
from hftrace.record.thread_state import OpenSpan
from hftrace.schema import lines
from hftrace.schema.redact import redact, redact_value
from hftrace.schema.secrets.sources import field_names


def basename(path: Any) -> str:
    """Returns the last part of a path or URL as text."""
    return os.path.basename(os.fspath(path)) if isinstance(path, (str, os.PathLike)) else str(path)


def describe_value(value: Any) -> Any:
    """Returns a keyword's value as JSON, without holding on to it: dtypes and devices by torch's names."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return redact_value(value)
    if isinstance(value, os.PathLike):
        return redact(os.fspath(value)) if isinstance(os.fspath(value), str) else str(value)
    if isinstance(value, Mapping):
        return {str(key): describe_value(item) for key, item in list(value.items())[:200]}
    if (fields := field_names(value)) is not None:
        return {name: describe_value(item) for name, item in zip(fields, value, strict=False)}
    if isinstance(value, (list, tuple, set)):
        return [describe_value(item) for item in list(value)[:200]]
    kind = type(value)
    if kind.__module__.partition(".")[0] == "torch" and kind.__name__ in ("dtype", "device"):
        return str(value).removeprefix("torch.")
    return f"<{kind.__name__}>"


PLUMBING = ("config", "_from_auto", "_from_pipeline", "_commit_hash", "adapter_kwargs")
"""Keywords that one function of transformers hands to the next."""


def given_keywords(call: Call, function: types.FunctionType) -> dict[str, Any]:
    """Returns the keywords that the caller gave, and not the defaults of the signature.

    What stands around a function is handed all of its parameters: those that
    were left out have their default. A caller who gives the very default has
    asked for nothing else, and is not told apart.

    Args:
        call: The call of a ``from_pretrained``.
        function: The function that is wrapped.
    """
    code = original_code(function)
    positional = code.co_varnames[: code.co_argcount]
    defaults = function.__defaults__ or ()
    known = dict(zip(positional[len(positional) - len(defaults) :], defaults, strict=True))
    given = {
        name: value
        for name, value in zip(positional, call.args, strict=False)
        if name in known and not _is_default(value, known[name])
    }
    known = function.__kwdefaults__ or {}
    given |= {
        name: value
        for name, value in call.kwargs.items()
        if name not in known or not _is_default(value, known[name])
    }
    return given


def _is_default(value: Any, default: Any) -> bool:
    plain = default is None or isinstance(default, (bool, int, float, str))
    return value is default or (plain and type(value) is type(default) and value == default)


def keywords_of(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a call's keywords as facts, without private plumbing, defaults of None, and secrets."""
    described = {
        name: describe_value(value)
        for name, value in kwargs.items()
        if value is not None and name not in PLUMBING
    }
    redacted = redact_value(described)
    assert isinstance(redacted, dict)
    return redacted


# -- files ------------------------------------------------------------------------------------


def absolute(path: str | os.PathLike[str]) -> str:
    """Returns a path that means the same file wherever the trace is made, and whoever asked for it how."""
    return os.path.abspath(os.fspath(path))


def note_file(recorder: Recorder, name: str, path: str | None, result: str, **more: Any) -> None:
    """Writes a row of the file ledger under the innermost span."""
    identity = None
    if path is not None:
        path = absolute(path)
        files = recorder.files
        identity = files.found(path) if recorder.open_loads else files.identity(path)
    fields = {"name": name, "path": path, "result": result, "identity": identity, **more}
    recorder.write(lines.File(recorder.current_id(), fields))


def asked_files(call: Call) -> list[str]:
    """Returns the names of the files that a call of a hub helper asks for, with their subfolder."""
    names = call.get("filenames")
    if names is None:
        names = call.get("filename")
    if isinstance(names, (str, os.PathLike)):
        names = [names]
    subfolder = call.get("subfolder") or ""
    prefix = f"{os.fspath(subfolder)}/" if subfolder else ""
    return [prefix + os.fspath(name) for name in names or [] if isinstance(name, (str, os.PathLike))]


def note_checkpoint(
    recorder: Recorder, files: Any, identity: lines.Identity | None = None
) -> dict[str, Any] | None:
    """Writes down the weight files of a load, and how much of each is in the page cache now.

    Args:
        recorder: Where to.
        files: A path, or several.
        identity: What the file was when it was read, where that was earlier.
    """
    if isinstance(files, (str, os.PathLike)):
        files = [files]
    if not isinstance(files, Iterable):
        return None
    paths = [absolute(path) for path in files if isinstance(path, (str, os.PathLike)) and os.fspath(path)]
    if not paths:
        return None
    current = recorder.current()
    if current is None:
        return None
    kept = recorder.files
    identities = [identity or kept.resolved(path) for path in paths]
    shares = [*map(kept.resident_share, paths, identities)]
    recorder.write(lines.Checkpoint(current.id, paths, shares, identities))
    if recorder.state.stack:
        _note_neighbours(recorder.state.stack[0], paths)
    recorder.first_checkpoint = recorder.first_checkpoint or paths[0]
    thread = threading.get_ident() if recorder.state.stack else None
    recorder.checkpoint_paths += [
        (thread, path) for path in paths if (thread, path) not in recorder.checkpoint_paths
    ]
    return {"files": len(paths), "bytes": sum(each.size for each in identities if each is not None)}


def noted_paths(recorder: Recorder) -> list[str]:
    """Returns the weight files that the open load of this thread has noted, or workers, perhaps its own."""
    threads = threading.get_ident(), None
    return list(dict.fromkeys(path for thread, path in recorder.checkpoint_paths if thread in threads))


def take_noted(recorder: Recorder) -> list[str]:
    """Returns the same and lets go of them, where the load has returned: they are looked for once more."""
    threads, paths = (threading.get_ident(), None), noted_paths(recorder)
    recorder.checkpoint_paths = [each for each in recorder.checkpoint_paths if each[0] not in threads]
    return paths


WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack")
MAX_NEIGHBOURS, MAX_ENTRIES = 200, 5000


def _note_neighbours(load: OpenSpan, paths: list[str]) -> None:
    """Notes, once for each load, which other weight files lie in the folders of those that it loads.

    Args:
        load: The load's span.
        paths: Its weight files.
    """
    if "weight_files" in load.notes:
        return
    load.notes["weight_files"] = [basename(path) for path in paths[:MAX_NEIGHBOURS]]
    own = {os.path.abspath(path) for path in paths}
    found: list[list[Any]] = []
    for folder in sorted({os.path.dirname(path) for path in own}):
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            found += [
                [entry.name, entry.stat().st_size]
                for entry in itertools.islice(entries, MAX_ENTRIES)
                if entry.name.endswith(WEIGHT_SUFFIXES) and entry.path not in own and entry.is_file()
            ]
    if found:
        load.notes["beside"] = sorted(found)[:MAX_NEIGHBOURS]


def resolved_files(recorder: Recorder, span: OpenSpan, call: Call, result: Any) -> dict[str, Any] | None:
    """``_get_resolved_checkpoint_files`` returns (files or None, metadata)."""
    return note_checkpoint(recorder, result[0]) if isinstance(result, tuple) and result else None


def shard_files(recorder: Recorder, span: OpenSpan, call: Call, result: Any) -> dict[str, Any] | None:
    """``get_checkpoint_shard_files`` returns (paths, metadata)."""
    if isinstance(result, tuple) and result and isinstance(result[0], list):
        return {"shards": len(result[0])}
    return None


def archive_files(recorder: Recorder, call: Call) -> dict[str, Any] | None:
    """``_load_pretrained_model`` is handed the files: by which name depends on the generation."""
    files = call.get("checkpoint_files")
    if files is None:
        files = call.get("resolved_archive_file")
    attributes = note_checkpoint(recorder, files) if files else None
    state_dict = call.get("state_dict")
    if isinstance(state_dict, Mapping) and not files:
        note_keys(recorder, "", state_dict)
        attributes = {"state_dict": len(state_dict)}
    renamed = old_renaming(recorder, call)
    return {**(attributes or {}), **renamed} if renamed else attributes


# -- keys and tensors ---------------------------------------------------------------------------


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "element_size") and hasattr(value, "numel")


def note_keys(recorder: Recorder, source: str, state_dict: Any) -> int:
    """Writes down the tensors of a state dict whose file has no header that can be read afterwards."""
    rows: list[Any] = []
    for key, value in state_dict.items():
        if _is_tensor(value):
            rows += (
                key,
                str(value.dtype).removeprefix("torch."),
                list(value.shape),
                value.numel() * value.element_size(),
            )
    if rows:
        recorder.write(lines.Keys(recorder.current_id(), source, rows))
    return len(rows) // 4


def loaded_state_dict(recorder: Recorder, span: OpenSpan, call: Call, result: Any) -> dict[str, Any] | None:
    """``load_state_dict(checkpoint_file)``: the keys of a pickle are known only now."""
    path = call.get("checkpoint_file")
    attributes: dict[str, Any] = {"file": basename(path)}
    if isinstance(path, (str, os.PathLike)) and not os.fspath(path).endswith(".safetensors"):
        if isinstance(result, Mapping):
            attributes["tensors"] = note_keys(recorder, absolute(path), result)
    elif isinstance(result, Mapping):
        attributes["tensors"] = len(result)
    # Later spans of the same shard (4.36 to 4.50) are not told which file it was.
    stack = recorder.state.stack
    if len(stack) > 1:
        stack[-2].notes["hftrace_file"] = basename(path)
    return attributes


def shard_of_call(recorder: Recorder, call: Call) -> dict[str, Any] | None:
    """Names the shard that ``_load_state_dict_into_*`` works on."""
    path = call.get("shard_file")
    if path is None:
        above = recorder.current()
        path = above.notes.get("hftrace_file") if above else None
    return {"file": basename(path)} if path else None


def shard_argument(recorder: Recorder, call: Call) -> dict[str, Any] | None:
    """``load_shard_file(args)`` gets one packed tuple whose first item is the file."""
    packed = call.first()
    path = packed[0] if isinstance(packed, tuple) and packed else None
    return {"file": basename(path)} if path else None


def renaming(recorder: Recorder, span: OpenSpan, call: Call, result: Any) -> dict[str, Any] | None:
    """``_get_key_renaming_mapping`` returns {checkpoint key: model key} (4.50 to 4.57)."""
    if not isinstance(result, Mapping):
        return None
    changed = [part for pair in result.items() if pair[0] != pair[1] for part in pair]
    if changed:
        recorder.write(lines.Renames(span.id, changed))
    return {"keys": len(result), "renamed": len(changed) // 2}


def old_renaming(recorder: Recorder, call: Call) -> dict[str, Any] | None:
    """Up to 4.49 ``_load_pretrained_model`` is handed the checkpoint's keys, and renames each of them.

    From 4.48 on a method does it, which a model class may override. Before
    that a function inside did the same as the first release with the method.
    """
    keys = call.get("loaded_keys")
    if not isinstance(keys, (list, tuple)):
        return None
    rename = getattr(call.first(), "_fix_state_dict_key_on_load", _renamed)
    changed: list[str] = []
    for key in keys:
        name = rename(key)
        name = name[0] if isinstance(name, tuple) else name
        if name != key:
            changed += (key, name)
    current = recorder.current()
    if changed and current is not None:
        recorder.write(lines.Renames(current.id, changed))
    return {"keys": len(keys), "renamed": len(changed) // 2}


def _renamed(key: str) -> str:
    """Returns the name of a key in 4.36 to 4.47: ``_fix_key`` in ``_load_pretrained_model``."""
    for old, new in (("beta", "bias"), ("gamma", "weight")):
        if old in key:
            return key.replace(old, new)
    return key


MAX_NAMES = 10_000
"""How many names of a kind a report keeps."""


def _names(values: Any) -> list[str]:
    return sorted(
        str(value[0]) if isinstance(value, tuple) and value else str(value)
        for value in list(values or [])[:MAX_NAMES]
    )


def _shapes(values: Any) -> list[Any]:
    """Returns name and both shapes of what 5.x says did not fit."""
    return [
        [str(value[0]), list(map(int, value[1])), list(map(int, value[2]))]
        for value in list(values or [])[:MAX_NAMES]
        if isinstance(value, tuple) and len(value) == 3
    ]


def loading_report(recorder: Recorder, span: OpenSpan, call: Call, result: Any) -> dict[str, Any] | None:
    """Keeps which keys were missing, unexpected or mismatched, whatever form the result has."""
    report = (
        result[0] if isinstance(result, tuple) and result and hasattr(result[0], "missing_keys") else result
    )
    if hasattr(report, "missing_keys"):
        found = {
            name: _names(getattr(report, f"{name}_keys", None))
            for name in ("missing", "unexpected", "mismatched")
        }
    elif isinstance(result, tuple) and len(result) >= 4:
        found = {
            "missing": _names(result[1]),
            "unexpected": _names(result[2]),
            "mismatched": _names(result[3]),
        }
    else:
        return None
    # Said even where there are none: a key that went nowhere, and that is not among them, was meant to.
    facts: dict[str, Any] = {name: keys for name, keys in found.items() if keys or name == "unexpected"}
    shapes = _shapes(getattr(report, "mismatched_keys", None))
    if shapes:
        facts["mismatched_shapes"] = shapes
    # Pipeline parallel: another rank has them. Which ones, is most of the checkpoint.
    skipped = getattr(report, "skipped_pp_keys", None)
    if skipped:
        facts["elsewhere"] = len(skipped)
    return facts


def chosen_class(recorder: Recorder, span: OpenSpan, call: Call, result: Any) -> dict[str, Any] | None:
    """``_get_model_class`` returns the class: its own functions are hooked now, in this span's time."""
    if not isinstance(result, type):
        return None
    if recorder.on_model_class is not None:
        recorder.on_model_class(result)
    return {"class": result.__name__}


def tied_before_dispatch(recorder: Recorder, call: Call) -> dict[str, Any] | None:
    """Notes which parameters are one object, before hooks replace them by separate meta tensors."""
    model = call.get("model")
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    tied = [names for names in groups.values() if len(names) > 1]
    if tied:
        recorder.facts("ties", {"groups": tied})
    return None
