"""What the values of options mean; the option's name is in what is said of a wrong one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hftrace.errors import UsageError

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
