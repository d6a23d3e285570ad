"""Variants of one load: what differs between them, as the command line writes it.

A variant is a name and items: keywords of ``from_pretrained``, environment
variables, an interpreter, or presets that stand for some of these::

    fast-init
    device-map=auto
    bf16+no-async
    mine: bf16, device_map=auto, env.HF_DEACTIVATE_ASYNC_LOAD=1, python=/envs/old/bin/python
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hftrace.errors import UsageError
from hftrace.launch.items import split
from hftrace.launch.quantization import METHODS, parse_quantization
from hftrace.schema.redact import REMOVED, redact_arguments

ENVIRONMENT = "env."
PYTHON = "python"
SCRATCH_DIRECTORY = "(a directory for the run)"
"""Stands in a preset for a directory that is made by a run and removed after it."""


@dataclass(frozen=True)
class VariantSpec:
    """What one variant is loaded with.

    Args:
        name: What it is called.
        keywords: Of ``from_pretrained``, as JSON values.
        environment: Variables that are set for it.
        python: Its interpreter; None for the one that hftrace runs in.
        without: Keywords that it does not have, whatever is common to all variants.
        collector: What Python's collector of cycles does: see :class:`hftrace.launch.request.LoadRequest`.
    """

    name: str
    keywords: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    python: str | None = None
    without: frozenset[str] = frozenset()
    collector: str | None = None


PRESETS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fast-init": {"_fast_init": True},
    "no-fast-init": {"_fast_init": False},
    "low-cpu-mem": {"low_cpu_mem_usage": True},
    "device-map": {"device_map": "auto"},
    "fp32": {"dtype": "float32"},
    "bf16": {"dtype": "bfloat16"},
    "fp16": {"dtype": "float16"},
    "auto-dtype": {"dtype": "auto"},
    "safetensors": {"use_safetensors": True},
    "bin": {"use_safetensors": False},
    # Switches of the loaders themselves: asynchronous reading is 5.x, parallel shards are 4.53 to 4.57.
    "no-async": {"env.HF_DEACTIVATE_ASYNC_LOAD": "1"},
    "parallel": {"env.HF_ENABLE_PARALLEL_LOADING": "1"},
    "no-mmap": {"disable_mmap": True},
    "offload": {"device_map": {"": "disk"}, "offload_folder": SCRATCH_DIRECTORY},
    **{name: {"quantization_config": dict(method)} for name, method in METHODS.items()},
}
"""What each preset stands for."""
DTYPE_KEYWORDS = frozenset({"dtype", "torch_dtype"})
"""Two names of one keyword."""
RENAMED = {"fast_init": "_fast_init"}
"""Options of a load whose keyword is called otherwise."""
QUANTIZATION = "quantization"
"""The item, and the option of a load, that names a method of quantising."""
TAKES_VALUE = {"device-map": "device_map"}
"""Presets that may be given a value, and the keyword that gets it."""
_NAME = re.compile(r"[A-Za-z0-9][\w.+=-]*")


def parse_variant(text: str) -> VariantSpec:
    """Returns the variant that a text describes.

    Raises:
        UsageError: An item is neither a preset nor ``key=value``.
    """
    head, colon, rest = text.partition(":")
    named = bool(colon) and _NAME.fullmatch(head.strip()) is not None and "=" not in head
    name, items = (head.strip(), split(rest, "+,")) if named else (text.strip(), split(text, "+,"))
    if not name or (named and not items):
        raise UsageError(f"the variant {text!r} says nothing: write a preset, or NAME: key=value, ...")
    name = _public(name)
    keywords: dict[str, Any] = {}
    environment: dict[str, str] = {}
    python: str | None = None
    for item in items:
        for key, value in _item(item, text).items():
            if key == PYTHON:
                python = str(value)
            elif key.startswith(ENVIRONMENT):
                environment[key[len(ENVIRONMENT) :]] = str(value)
            else:
                keywords[key] = value
    return VariantSpec(name, keywords, environment, python)


def _public(name: str) -> str:
    """Returns the name of a variant without secrets: it stands in names of files, and on the screen."""
    items = redact_arguments(split(name, "+,"))
    return ", ".join(items) if REMOVED in "".join(items) else name


def _item(item: str, text: str) -> dict[str, Any]:
    key, equals, value = (part.strip() for part in item.partition("="))
    if key in PRESETS and not equals:
        return PRESETS[key]
    if key in TAKES_VALUE:
        return {TAKES_VALUE[key]: _value(value, file=True)}
    if not equals or not key:
        known = ", ".join(PRESETS)
        raise UsageError(f"{item!r} in the variant {text!r} is no preset ({known}) and no key=value")
    if key == PYTHON or key.startswith(ENVIRONMENT):
        return {key: value}
    if key == QUANTIZATION:
        return {"quantization_config": parse_quantization(value)}
    return {keyword(key): _value(value, file=keyword(key) == "device_map")}


def keyword(name: str) -> str:
    """Returns the keyword of ``from_pretrained`` that a name stands for.

    ``--attn-implementation`` of a load is ``attn-implementation=`` in a variant, or the keyword itself.
    """
    plain = name.replace("-", "_")
    return RENAMED.get(plain, plain)


def _value(text: str, *, file: bool = False) -> Any:
    """Returns a value as JSON where it is some, else as text; ``none`` is null.

    Raises:
        UsageError: A JSON file cannot be read.
    """
    if file and text.endswith(".json"):
        try:
            return json.loads(Path(text).expanduser().read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f"cannot read the device map {text}: {error}") from None
    if text.lower() == "none":
        return None
    for candidate in (text, text.lower()):
        try:
            return json.loads(candidate)
        except (ValueError, RecursionError):
            continue
    if text[:1] in ("{", "[", '"'):
        raise UsageError(f"{text[:40]} begins like JSON and is none: check its quotes and commas")
    return text


def grid(axes: Iterable[str]) -> list[VariantSpec]:
    """Returns a variant for each combination of ``KEY=VALUE,VALUE,...``.

    Raises:
        UsageError: An axis is not of that form, or has a single key twice.
    """
    choices: list[tuple[str, list[str]]] = []
    for axis in axes:
        key, equals, values = (part.strip() for part in axis.partition("="))
        options = split(values)
        if not equals or not key or not options:
            raise UsageError(f"{axis!r} is no axis of a sweep: write KEY=VALUE,VALUE,...")
        if key in {known for known, _ in choices}:
            raise UsageError(f"{key} is an axis twice: give all its values in one")
        choices.append((key, options))
    combinations = itertools.product(*(options for _, options in choices))
    keys = [key for key, _ in choices]
    return [_combined(keys, values) for values in combinations]


def _combined(keys: Sequence[str], values: Sequence[str]) -> VariantSpec:
    pairs = [f"{key}={value}" for key, value in zip(keys, values, strict=True)]
    spec = parse_variant(f"sweep: {', '.join(pairs)}")
    given = {key: value for key, value in spec.keywords.items() if value is not None}
    without = frozenset(spec.keywords.keys() - given.keys())
    return VariantSpec(" ".join(redact_arguments(pairs)), given, spec.environment, spec.python, without)


def distinct(specs: Sequence[VariantSpec]) -> list[VariantSpec]:
    """Returns the variants.

    Raises:
        UsageError: There are fewer than two, or two have the same name.
    """
    named: list[VariantSpec] = []
    if len(specs) < 2:
        raise UsageError("one variant is nothing to compare: give --variant twice or more")
    for number, spec in enumerate(specs):
        # What told them apart may have been a secret.
        count = sum(other.name == spec.name for other in specs[:number]) if REMOVED in spec.name else 0
        named.append(replace(spec, name=f"{spec.name} ({count + 1})") if count else spec)
    names = [spec.name for spec in named]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two variants are called {twice}: name one of them, as 'NAME: {twice}'")
    return named
