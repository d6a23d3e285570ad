"""Code that came with a checkpoint: which files of it a load runs, and of which revision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hftrace.record.hooks.points import Call
from hftrace.record.recorder import Recorder
from hftrace.record.remote_code import PACKAGE, code_files, commit_of
from hftrace.record.thread_state import OpenSpan

CODE = "code"
"""Attribute of a load: its files of code, each with the classes that were taken from it."""
REVISIONS = ("revision", "code_revision")
_repos: dict[str, str] = {}
"""By the module of a class: the repository or folder that it was taken from, in this process."""


def given_revisions(call: Call) -> dict[str, str | None]:
    """Returns the revisions that the caller of a load gave; None for one that was left out."""
    inner = call.get("model_kwargs")
    more: Mapping[Any, Any] = inner if isinstance(inner, Mapping) else {}
    values = {name: call.get(name, more.get(name)) for name in REVISIONS}
    return {name: value if isinstance(value, str) else None for name, value in values.items()}


def named_class(call: Call) -> str:
    """Returns what to call the span: the class, as the config names it."""
    return str(call.get("class_reference"))


def code_taken(recorder: Recorder, span: OpenSpan, call: Call, result: Any) -> dict[str, Any] | None:
    """``get_class_from_dynamic_module``: notes the files behind a class at the load that asked for it."""
    if not isinstance(result, type):
        return None
    asked = str(call.get("pretrained_model_name_or_path"))
    other, separator, _ = str(call.get("class_reference")).rpartition("--")
    repo = other if separator else asked
    _repos[result.__module__] = repo
    _note(recorder, result, repo, asked)
    return {"class": result.__name__}


def note_class(recorder: Recorder, owner: type, asked: str | None) -> None:
    """Notes the files of a finished model's class, which an earlier load may have brought."""
    if owner.__module__.startswith(f"{PACKAGE}."):
        _note(recorder, owner, _repos.get(owner.__module__, ""), asked)


def _note(recorder: Recorder, owner: type, repo: str, asked: str | None) -> None:
    stack = recorder.state.stack
    # The loader resolves a revision before it hands it on: what counts is what its caller gave.
    given = next((above.given for above in stack if above.given is not None), {})
    revision = given.get("code_revision")
    if revision is None and repo == asked:
        revision = given.get("revision")
    commit = commit_of(owner)
    module = owner.__module__.rpartition(".")[2]
    known: dict[Any, dict[str, Any]] = {_key(each): each for each in stack[0].notes.get(CODE, ())}
    for file in code_files(owner):
        # Code from a folder has no revision.
        origin = {"repo": repo, "commit": commit, "revision": revision if commit else None}
        entry = {**file, **origin, "classes": []}
        entry = known.setdefault(_key(entry), entry)
        if file["file"] == f"{module}.py" and owner.__name__ not in entry["classes"]:
            entry["classes"].append(owner.__name__)
    if known:
        stack[0].notes[CODE] = list(known.values())


def _key(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """Returns what makes a file the same one: some releases keep a folder's once for each class."""
    return entry["file"], entry.get("sha256"), entry["repo"]
