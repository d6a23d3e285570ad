"""Takes secrets out of text and of facts before they reach a file.

Tokens, credentials in URLs and secrets in the environment never leave the
process (DESIGN.md section 5, promise 8). What is taken out is named, so that a
reader sees that something stood there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

REMOVED = "[removed]"

_TOKENS = re.compile(
    r"""
    # Hugging Face user tokens; hf_quantizer and other words of source code are none.
    \bhf_(?![a-z]{1,19}(?![A-Za-z0-9]))[A-Za-z0-9]{8,}
    | \bapi_org_[A-Za-z0-9]{8,}     # and those of organisations
    | \bgh[pousr]_[A-Za-z0-9]{16,}  # GitHub
    | \bgithub_pat_[A-Za-z0-9_]{16,}
    | \bAKIA[0-9A-Z]{16}\b          # AWS access key ids
    | (?<=[Bb]earer\ )[A-Za-z0-9._~+/=-]{8,}
    | (?<=[Bb]asic\ )(?=[A-Za-z0-9+/]*[0-9A-Z+/])[A-Za-z0-9+/]{8,}={0,2}
    """,
    re.VERBOSE,
)
_CREDENTIALS = re.compile(r"(?<=://)[^/\s?#\"'<>]*(?=@)")
_QUERY_SECRETS = re.compile(
    r"([?&](?:[^=&\s]*(?:token|secret|signature|credential|key|password|auth|policy)[^=&\s]*|sig)=)[^&\s\"'<>]+",
    re.IGNORECASE,
)
_SECRET_NAMES = re.compile(
    r"^tokens?$|(auth|access|api|hub|hf|bearer|session|refresh|security|user|id|github|gh)[_-]?token"
    r"|secret|passw|credential|authoriz|api[_-]?key|access[_-]?key|private[_-]?key|signature",
    re.IGNORECASE,
)
"""Names of secrets, whatever else is in them."""
_SUSPECT_NAMES = re.compile(r"token|auth|private", re.IGNORECASE)
"""Names of secrets, unless they are known to be something else."""
_HARMLESS_NAMES = re.compile(
    r"""
    tokeniz                                  # tokenizer, TOKENIZERS_PARALLELISM
    | tokens?_(id|idx|index|type|per|pos|embed|dim|size|length|count|limit|drop)
    | [a-z0-9]_tokens(_|$)                   # max_new_tokens, additional_special_tokens
    | (^|_)(bos|eos|unk|sep|pad|cls|mask|image|img|video|audio|vision|boi|eoi|eot|start|end|stop|prefix|suffix
        |middle|special|added|decoder|language|task)_token(_|$)
    | implicit_token
    | author(?!iz)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_OWN_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HUGGINGFACE_TOKEN")
"""Variables whose very values are taken out of any text, whatever they look like."""
MIN_SECRET = 8
"""Shorter values are no tokens, and may well stand in ordinary text."""


def is_secret_name(name: str) -> bool:
    """Returns whether a keyword or environment variable of this name holds a secret."""
    if name == "HF_HUB_DISABLE_IMPLICIT_TOKEN":
        return False
    if _SECRET_NAMES.search(name):
        return True
    return bool(_SUSPECT_NAMES.search(name)) and not _HARMLESS_NAMES.search(name)


def redact(text: str) -> str:
    """Returns ``text`` without tokens, credentials in URLs, and secrets in query strings."""
    for name in _OWN_SECRETS:
        value = os.environ.get(name, "").strip()
        if len(value) >= MIN_SECRET:
            text = text.replace(value, REMOVED)
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
        return {redact(str(key)): redact_value(item, str(key)) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [redact_value(item) for item in value]
    return redact(str(value))


def split_secrets(keywords: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divides keywords into those that may be written to a file, and those that hold a secret."""
    secret = {name: value for name, value in keywords.items() if redact_value(value, name) != value}
    return {name: value for name, value in keywords.items() if name not in secret}, secret


def redact_arguments(arguments: Sequence[str]) -> list[str]:
    """Returns a command line without secrets.

    ``--token X``, ``--token=X``, ``--kwarg token=X``, ``--kwarg=token=X`` and
    ``--kwarg 'headers={"authorization": "X"}'`` lose their value.
    """
    result: list[str] = []
    hide_next = False
    for argument in arguments:
        if hide_next and not argument.startswith("--"):
            result.append(REMOVED)
            hide_next = False
            continue
        hide_next = argument.startswith("-") and "=" not in argument and is_secret_name(argument.lstrip("-"))
        result.append(_redact_argument(argument))
    return result


def _redact_argument(argument: str) -> str:
    name, equals, value = argument.partition("=")
    if not equals or not _NAME.fullmatch(name):
        return _redact_json(argument)
    if is_secret_name(name.lstrip("-")):
        return f"{name}={REMOVED}"
    return f"{name}={_redact_argument(value)}"


_NAME = re.compile(r"-{0,2}[A-Za-z_][\w.-]*")


def _redact_json(text: str) -> str:
    """Redacts text; where it is a JSON object or list, what stands under a secret's name too."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            value = json.loads(text)
            if redact_value(value) != value:
                return json.dumps(redact_value(value))
        except (ValueError, RecursionError):
            pass
    return redact(text)
