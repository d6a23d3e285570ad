"""What modules want to have called by ``load_state_dict``, which not every loader calls: hooks, and methods.

Found in the finished model. Those of torch and of the libraries that loaders know by themselves
are left out: who wrote a model of their own wrote the others.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from hftrace.record.held import AFTER_LOADING, BEFORE_LOADING, Held
from hftrace.record.identity import modules_of

MAX_HOOKS = 64
KNOWN = frozenset(
    {
        "torch",
        "transformers",
        "accelerate",
        "peft",
        "bitsandbytes",
        "torchao",
        "optimum",
        "compressed_tensors",
    }
)
ATTRIBUTES = {BEFORE_LOADING: "pre", AFTER_LOADING: "post"}
METHOD = "_load_from_state_dict"
"""By which a module takes its own tensors; a class may do so in its own way."""


def load_hooks(held: Held) -> list[dict[str, Any]]:
    """Returns the hooks: module, kind, function, its place, and whether the module has tensors of its own.

    Args:
        held: The finished model, and what its walk has come by.
    """
    found: list[dict[str, Any]] = []
    if not _has_any(held):
        return found
    for prefix, module in modules_of(held.root):
        asked = [
            (kind, hook)
            for attribute, kind in ATTRIBUTES.items()
            for hook in list((module.__dict__.get(attribute) or {}).values())
        ]
        if isinstance(module, sys.modules["torch"].nn.Module):
            asked.append(("method", getattr(type(module), METHOD, None)))
        for kind, hook in asked:
            function = _function(hook)
            if str(getattr(function, "__module__", "")).partition(".")[0] in KNOWN:
                continue
            if len(found) == MAX_HOOKS:
                return found
            found.append(
                {
                    "module": prefix.rstrip("."),
                    "kind": kind,
                    "function": str(getattr(function, "__qualname__", type(function).__name__)),
                    "source": _place(function),
                    "own_tensors": bool(module._parameters or module._buffers),
                }
            )
    return found


def _has_any(held: Held) -> bool:
    """Returns whether to ask each module, which takes long: nearly no model has any of these."""
    usual = getattr(sys.modules["torch"].nn.Module, METHOD)
    return (
        held.scripted
        or held.awaits_loading
        or any(getattr(kind, METHOD, usual) is not usual for kind in held.classes)
    )


def _function(hook: Any) -> Any:
    """Returns the function that a model's author wrote, without what torch puts around it."""
    while True:
        inner = hook.func if isinstance(hook, functools.partial) else getattr(hook, "hook", None)
        inner = getattr(hook, "__func__", None) if inner is None else inner
        if inner is None:
            return hook
        hook = inner


def _place(function: Any) -> str | None:
    code = getattr(function, "__code__", None)
    return None if code is None else f"{code.co_filename}:{code.co_firstlineno}"
