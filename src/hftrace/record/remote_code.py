"""Whether the code that came with a checkpoint is the code that runs.

transformers copies the Python files of a checkpoint's folder into a package of its own, named in
many releases by the folder's last part alone, and keeps what it has imported. So of two folders
that end in the same name one may run the other's class.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Iterator

from hftrace.record.patching import original_code

PACKAGE = "transformers_modules"
MAX_FILES = 20


def foreign_files(model_class: type, folder: str) -> list[str]:
    """Returns which of a folder's Python files are not what runs in a model of this class.

    The functions that run are compared with those that the file would give; nothing of it is run.

    Args:
        model_class: The class of the finished model.
        folder: The folder that was asked for.
    """
    package = model_class.__module__.rpartition(".")[0]
    if not model_class.__module__.startswith(f"{PACKAGE}.") or not os.path.isdir(folder):
        return []
    found: list[str] = []
    for name, module in sorted(sys.modules.items()):
        if not name.startswith(f"{package}.") or not getattr(module, "__file__", None):
            continue
        file = name[len(package) + 1 :].replace(".", "/") + ".py"
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
