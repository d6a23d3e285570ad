"""What the values of options mean; the option's name is in what is said of a wrong one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hftrace.errors import UsageError
from hftrace.units import parse_size

PYTHON_CONSTANTS = {"None": None, "True": True, "False": False}
Value = TypeVar("Value")


def parse_option(option: str, parse: Callable[[str], Value], text: str) -> Value:
    """Returns the value of an option.

    Args:
        option: Its name, such as ``--memory-limit``.
        parse: Reads it; a function of :mod:`hftrace.units`.
        text: What was given.

    Raises:
        UsageError: It cannot be read; the message begins with the option's name.
    """
    try:
        return parse(text)
    except UsageError as error:
        raise UsageError(f"{option}: {error.message}") from None


def json_value(text: str) -> Any:
    """Returns what a text says as JSON, and the text itself where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def keyword_value(option: str, text: str) -> Any:
    """Returns the value of a keyword: JSON, one of Python's constants, or a bare word as the text that it is.

    Args:
        option: What is said of a wrong one begins with it.
        text: What was given.

    Raises:
        UsageError: It begins like JSON, and is none: as a text it would only fail much later.
    """
    plain = text.strip()
    if plain in PYTHON_CONSTANTS:
        # "False" as a text would be true.
        return PYTHON_CONSTANTS[plain]
    try:
        return json.loads(text)
    except RecursionError:
        raise UsageError(f"{option} nests too deeply") from None
    except ValueError as error:
        if plain[:1] not in '{["' and plain:
            return text
        # The value itself may be a secret.
        where = f" ({error.msg}, column {error.pos + 1})" if isinstance(error, json.JSONDecodeError) else ""
        raise UsageError(f"{option} is not valid JSON{where}: check its quotes and commas") from None


def max_memory(text: str) -> dict[str, Any]:
    """Returns what ``--max-memory`` says: bytes or sizes by device.

    Raises:
        UsageError: It is no JSON object of sizes.
    """
    value = keyword_value("--max-memory", text)
    example = '\'{"cpu": "10GB", "0": "20GB"}\''
    if not isinstance(value, dict) or not value:
        raise UsageError(f"--max-memory takes a JSON object, such as {example}")
    for device, size in value.items():
        if isinstance(size, bool) or not isinstance(size, (int, str)):
            raise UsageError(f"--max-memory of {device} is no size: write it like {example}")
        # No more than nothing may be put on a device, too.
        if size not in (0, "0", "0GB", "0GiB"):
            parse_option(f"--max-memory of {device}", parse_size, size)  # type: ignore[arg-type]
    return value


def json_inputs(text: str) -> dict[str, Any]:
    """Returns the inputs of a forward pass: a JSON object, or the content of a JSON file.

    Raises:
        UsageError: The file cannot be read, or what it says is no JSON object.
    """
    what = "--input"
    if text.endswith(".json"):
        what = f"the file {text}"
        try:
            text = Path(text).expanduser().read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"cannot read the inputs {text}: {reason}") from None
    value = json_value(text)
    if not isinstance(value, dict) or not value:
        raise UsageError(f"{what} must be a JSON object of inputs, such as '{{\"input_ids\": [[1, 2, 3]]}}'")
    return value


def cache_choice(cold: bool, warm: bool) -> str | None:
    """Returns ``cold``, ``warm`` or None from ``--cold`` and ``--warm``.

    Raises:
        UsageError: Both were given.
    """
    if cold and warm:
        raise UsageError("--cold and --warm are opposites: give one of them")
    return "cold" if cold else "warm" if warm else None
