"""The code that came with a checkpoint: its files, where they are from, and whether they are what runs.

transformers copies the Python files of a checkpoint's folder into a package of its own, named in
many releases by the folder's last part alone, and keeps what it has imported. So of two folders
that end in the same name one may run the other's class.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import types
from collections.abc import Iterator
from typing import Any

from hftrace.record.patching import original_code

PACKAGE = "transformers_modules"
MAX_FILES = 20
COMMIT = re.compile(r"[0-9a-f]{40}")
_IMPORTED = re.compile(rb"^\s*(?:from|import)\s+\.([\w.]+)", re.MULTILINE)
"""What transformers looks for in a file itself, to know which others it has to bring."""


def code_files(owner: type) -> list[dict[str, Any]]:
    """Returns the files that a class is made of, as they are kept: name, path, SHA-256, bytes.

    That is the file which defines it, and those of the same checkpoint which that one imports, and so on.

    Args:
        owner: A class that transformers has imported from a checkpoint's files; of any other there are none.
    """
    beside = dict(_modules_beside(owner))
    waiting = [file for file, module in beside.items() if module.__name__ == owner.__module__]
    found: dict[str, dict[str, Any]] = {}
    while waiting and len(found) < MAX_FILES:
        file = waiting.pop(0)
        path = str(beside[file].__file__)
        if file in found:
            continue
        found[file] = {"file": file, "path": path}
        try:
            with open(path, "rb") as handle:
                content = handle.read()
        except OSError:  # gone since it was imported
            continue
        found[file].update(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        imported = {name.decode().replace(".", "/") + ".py" for name in _IMPORTED.findall(content)}
        waiting += sorted(imported & beside.keys())
    return list(found.values())


def commit_of(owner: type) -> str | None:
    """Returns the commit that a class came from, which the package of code from the Hub is named for."""
    parts = owner.__module__.split(".")
    return next((part for part in reversed(parts[1:-1]) if COMMIT.fullmatch(part)), None)


def _modules_beside(owner: type) -> Iterator[tuple[str, types.ModuleType]]:
    """Yields the modules that were imported from the files which a class came with, by the files' names."""
    if not owner.__module__.startswith(f"{PACKAGE}."):
        return
    package = owner.__module__.rpartition(".")[0]
    for name in sorted(name for name in list(sys.modules) if name.startswith(f"{package}.")):
        module = sys.modules.get(name)
        if module is not None and getattr(module, "__file__", None):
            file = name[len(package) + 1 :].replace(".", "/") + ".py"
            if os.path.basename(str(module.__file__)) != "__init__.py":
                yield file, module


def foreign_files(model_class: type, folder: str) -> list[str]:
    """Returns which of a folder's Python files are not what runs in a model of this class.

    The functions that run are compared with those that the file would give; nothing of it is run.

    Args:
        model_class: The class of the finished model.
        folder: The folder that was asked for.
    """
    if not os.path.isdir(folder):
        return []
    found: list[str] = []
    for file, module in _modules_beside(model_class):
        path = os.path.join(folder, file)
        if os.path.isfile(path) and len(found) < MAX_FILES and not _runs(module, path):
            found.append(file)
    return found


def _runs(module: types.ModuleType, path: str) -> bool:
    """Returns whether every function of a module is as a file has it."""
    with open(path, "rb") as handle:
        compiled = compile(handle.read(), str(module.__file__), "exec", dont_inherit=True)
    stored = dict(_named_codes(compiled, ""))
    return all(
        stored.get(function.__qualname__) == code
        for function in _functions(module)
        # What a decorator of another file put there is not this file's.
        if (code := original_code(function)).co_filename == module.__file__
        and "<" not in function.__qualname__
    )


def _named_codes(code: types.CodeType, prefix: str) -> Iterator[tuple[str, types.CodeType]]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield prefix + constant.co_name, constant
            yield from _named_codes(constant, f"{prefix}{constant.co_name}.")


def _functions(module: types.ModuleType) -> Iterator[types.FunctionType]:
    for value in list(vars(module).values()):
        inside = list(vars(value).values()) if isinstance(value, type) else [value]
        for each in inside:
            function = getattr(each, "__func__", each)
            if isinstance(function, types.FunctionType) and function.__module__ == module.__name__:
                yield function
