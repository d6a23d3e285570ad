"""Code that came with a checkpoint, and classes that a program has registered, in words."""

from __future__ import annotations

from collections.abc import Mapping

from hftrace.analysis.model_loads import ModelLoad, model_loads
from hftrace.analysis.own_code import CodeFile, code_files
from hftrace.analysis.values import text
from hftrace.schema.trace import Trace

MAX_FILES = 4
SHORT = 12
"""Digits of a commit, and of a hash, that are shown; ``--json`` has all of them."""


def describe_code(trace: Trace) -> str:
    """Returns which files of code a load ran, and of which revision; empty where there were none."""
    loads = model_loads(trace)
    if len(loads) != 1:
        return ""
    by_origin: dict[tuple[str, str | None, str | None], list[CodeFile]] = {}
    for file in code_files(loads[0].attributes):
        by_origin.setdefault((file.repo, file.commit, file.revision), []).append(file)
    said = []
    for (repo, commit, _), files in by_origin.items():
        names = [_file_words(file) for file in files[:MAX_FILES]]
        rest = len(files) - len(names)
        more = f" and {rest:,} more: --json" if rest else ""
        where = repo if commit and repo else "of the folder itself" if repo else "of an earlier load"
        at = f" at commit {commit[:SHORT]}, {_pin_words(files[0])}" if commit else ""
        said.append(f"{where}{at}: {', '.join(names)}{more}")
    return "; ".join([*said, *filter(None, [_registered(loads[0])])])


def _file_words(file: CodeFile) -> str:
    notes = [*file.classes, *([f"sha256 {file.sha256[:SHORT]}"] if file.sha256 else [])]
    return f"{file.file} ({', '.join(notes)})" if notes else file.file


def _pin_words(file: CodeFile) -> str:
    if file.pinned:
        return "as asked for"
    return f"asked for as {file.revision}" if file.revision else "no revision asked for"


def _registered(load: ModelLoad) -> str:
    """Returns which classes of the program's own stand for a model_type."""
    found = load.got.get("registered")
    if not isinstance(found, Mapping):
        return ""
    by_function = {"AutoConfig": found.get("config"), text(found.get("auto_class")) or "": found.get("class")}
    names = [
        f"{name} by {function}.register" for function, name in by_function.items() if text(name) and function
    ]
    source = text(load.got.get("source"))
    where = f"; {load.got.get('class')} is of {source}" if source else ""
    return f"registered for model_type {found.get('model_type')}: {', '.join(names)}{where}" if names else ""
