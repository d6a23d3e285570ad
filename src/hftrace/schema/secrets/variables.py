"""Secrets in the functions that an exception has left: local variables, and attributes of what they hold.

No code of the host is run for it: of an object only what is stored in it is looked at.
"""

from __future__ import annotations

import functools
import gc
import types
from collections.abc import Mapping
from typing import Any

from hftrace.schema.secrets.known import known
from hftrace.schema.secrets.names import is_secret_name, is_strong_name, words_of
from hftrace.schema.secrets.rules import Lazy, listed
from hftrace.schema.secrets.sources import attributes_of, learn_keywords

MIN_TOKEN = 8
MAX_WORD = 15
"""What is merely called a token is a vocabulary's word where it is shorter, or so many letters alone."""
MAX_OBJECTS = 200
MAX_ATTRIBUTES = 500
"""So many objects of a function, and attributes of each, are looked at."""

_SURE = frozenset(
    listed("""
    auth api access hf hub oauth bearer jwt secret session refresh security github gh gitlab bot deploy wandb
    login service private personal account admin client huggingface huggingfacehub write read
    """)
)
"""With one of these words, a token is no word of a vocabulary."""
_LIBRARIES = frozenset(
    listed("transformers huggingface_hub accelerate peft safetensors torch httpx httpcore requests urllib3")
)
"""What their objects know of secrets came from keywords, the environment or a file, and is known: a load that
fails leaves a dozen of their functions, and to look through all that these hold takes milliseconds."""
_OF_VOCABULARY = Lazy(r"##.*|[▁ĠĊ].*|</?[^<>]*>|\[[^\[\]]*\]")
_MORE_WORDS = frozenset(listed("cred creds pwd pw psw"))
"""Words that as the name of a variable can mean nothing else, though in a text they can."""


@functools.lru_cache(maxsize=4096)
def names_secret_variable(name: str) -> bool:
    """Returns whether a variable of this name may be a secret; a ``key`` of somebody's loop is none."""
    if is_strong_name(name) or name == "tok":
        return True
    words = words_of(name)
    return is_secret_name(name) and (not _MORE_WORDS.isdisjoint(words) or words[-1] == "pass")


def learn_frame(frame: types.FrameType) -> None:
    """Learns the secrets that a function held which an exception has left."""
    code = frame.f_code
    names = [
        name
        for name in (*code.co_varnames, *code.co_cellvars, *code.co_freevars)
        if names_secret_variable(name)
    ]
    if names:
        values = frame.f_locals
        learn_variables({name: values[name] for name in names if name in values})
    used = frame.f_globals
    learn_variables(
        {name: used[name] for name in code.co_names if name in used and names_secret_variable(name)}
    )
    if str(used.get("__name__")).partition(".")[0] in _LIBRARIES:
        return
    # Not by "f_locals": where it is a dictionary it is the one that the function's own "locals()" gave out.
    for value in gc.get_referents(frame)[:MAX_OBJECTS]:
        if value is not used:
            _learn_inside(_of_cell(value), 1)


def learn_variables(values: Mapping[str, Any]) -> None:
    """Learns variables whose names are those of secrets; a token may be a vocabulary's word."""
    for name, value in values.items():
        if "token" not in name.lower() and name != "tok":
            learn_keywords({name: value})
            continue
        kind = type(value)
        if issubclass(kind, (bytes, bytearray)):
            value = bytes(value[: 1 << 16]).decode("utf-8", "replace")
        if issubclass(type(value), str):
            if not _SURE.isdisjoint(words_of(name)) or not _is_of_vocabulary(value):
                known.learn(value)
        else:
            _learn_inside(value, 1)


def _is_of_vocabulary(word: str) -> bool:
    """Returns whether a value may be a word of a tokenizer's."""
    if _OF_VOCABULARY.pattern.fullmatch(word) or len(word) < MIN_TOKEN:
        return True
    return len(word) <= MAX_WORD and word.isalpha() and (word[1:].islower() or word.isupper())


def _of_cell(value: Any) -> Any:
    if type(value) is types.CellType:
        try:
            return value.cell_contents
        except ValueError:
            return None
    return value


_NO_HOLDERS = (types.ModuleType, types.FunctionType, types.CodeType, types.FrameType, types.TracebackType)


def _learn_inside(value: Any, deeper: int) -> None:
    """Learns what stands in an object or a dictionary under a secret's name.

    Args:
        value: Anything.
        deeper: So many levels of objects in it are looked at, too: ``self.client.password``.
    """
    kind = type(value)
    if issubclass(kind, (*_NO_HOLDERS, str, bytes, int, float, list, set, frozenset)):
        return
    if kind.__module__.partition(".")[0] in ("torch", "numpy"):
        return
    for name, item in list(attributes_of(value))[:MAX_ATTRIBUTES]:
        if type(name) is not str:
            continue
        if names_secret_variable(name):
            learn_variables({name: item})
        elif deeper and item is not value:
            _learn_inside(item, deeper - 1)
