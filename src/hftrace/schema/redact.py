"""Takes secrets out of text and of facts before they reach a file.

Tokens, credentials in URLs and secrets in the environment never leave the
process (DESIGN.md section 5, promise 8). What is taken out is named, so that a
reader sees that something stood there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

REMOVED = "[removed]"

_TOKENS = re.compile(
    r"""
    \bhf_[A-Za-z0-9]{8,}            # Hugging Face user tokens
    | \bapi_org_[A-Za-z0-9]{8,}     # and those of organisations
    | \bgh[pousr]_[A-Za-z0-9]{16,}  # GitHub
    | \bAKIA[0-9A-Z]{16}\b          # AWS access key ids
    | (?<=[Bb]earer\ )[A-Za-z0-9._~+/=-]{8,}
    """,
    re.VERBOSE,
)
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@:]*(?::[^/\s@]*)?(?=@)")
_QUERY_SECRETS = re.compile(
    r"([?&](?:[^=&\s]*(?:token|secret|signature|credential|key|password|auth|policy)[^=&\s]*)=)[^&\s\"']+",
    re.IGNORECASE,
)
_SECRET_NAMES = re.compile(r"token|secret|passw|credential|auth|api_?key|access_?key|private", re.IGNORECASE)
_HARMLESS_NAMES = re.compile(
    r"tokenizer|tokens?_(id|type|per)|_token_id|max_.*tokens|HF_HUB_DISABLE_IMPLICIT_TOKEN", re.IGNORECASE
)


def is_secret_name(name: str) -> bool:
    """Returns whether a keyword or environment variable of this name holds a secret."""
    return bool(_SECRET_NAMES.search(name)) and not _HARMLESS_NAMES.search(name)


def redact(text: str) -> str:
    """Returns ``text`` without tokens, credentials in URLs, and secrets in query strings."""
    text = _TOKENS.sub(REMOVED, text)
    text = _CREDENTIALS.sub(REMOVED, text)
    return _QUERY_SECRETS.sub(rf"\g<1>{REMOVED}", text)


def redact_value(value: Any, name: str = "") -> Any:
    """Returns a JSON value without secrets, whatever stands under a secret's name included.

    Args:
        value: A string, number, None, or sequences and mappings of these;
            anything else becomes its redacted ``str``.
        name: The name it stands under.
    """
    if value is None or isinstance(value, (bool, int)):
        # ``token=True`` means "use the stored token" and is no secret.
        return value
    if name and is_secret_name(name):
        return REMOVED
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {str(key): redact_value(item, str(key)) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [redact_value(item) for item in value]
    return redact(str(value))


def redact_arguments(arguments: Sequence[str]) -> list[str]:
    """Returns a command line without secrets: ``--token X`` and ``--token=X`` lose their value."""
    result: list[str] = []
    hide_next = False
    for argument in arguments:
        if hide_next:
            result.append(REMOVED)
            hide_next = False
            continue
        name, equals, _ = argument.partition("=")
        if name.startswith("-") and is_secret_name(name):
            result.append(f"{name}={REMOVED}" if equals else argument)
            hide_next = not equals
        elif equals and is_secret_name(name):
            result.append(f"{name}={REMOVED}")
        else:
            result.append(redact(argument))
    return result
