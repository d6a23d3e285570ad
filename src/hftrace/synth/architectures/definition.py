"""What is said of a known architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SpecialTokens:
    """The special tokens of an architecture's tokenizer.

    Attributes:
        ids: The published id of each token. The small tokenizer that is written
            keeps those that it has room for (see :mod:`hftrace.synth.tokenizer`).
        roles: The token of each role by the name that ``tokenizer_config.json``
            uses, such as ``bos_token``.
        template: The tokens around a text, ``$A`` being the text.
        type_ids: Whether the model reads ``token_type_ids``.
    """

    ids: Mapping[str, int]
    roles: Mapping[str, str]
    template: tuple[str, ...] = ("$A",)
    type_ids: bool = False


@dataclass(frozen=True)
class Architecture:
    """One known architecture.

    Attributes:
        name: What the command line calls it.
        source: The repository on the Hub whose configuration this is.
        config: Its configuration, without ``torch_dtype``.
        dtype: What the weights are stored in unless another is asked for:
            bfloat16 for large language models, the published one otherwise.
        auto_class: The transformers class that loads it whole.
        since: The first transformers version that knows the architecture.
        tokens: Its special tokens, for models of text.
        preprocessor: The content of ``preprocessor_config.json``, for the others.
    """

    name: str
    source: str
    config: Mapping[str, Any]
    dtype: str
    auto_class: str = "AutoModelForCausalLM"
    since: str = "4.36"
    tokens: SpecialTokens | None = None
    preprocessor: Mapping[str, Any] | None = field(default=None)
