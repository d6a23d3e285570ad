"""The published configurations that can be written: data, a file for each family.

Every value is the one of the ``config.json`` in the repository named by
``source`` on the Hugging Face Hub, in the keys that all transformers versions
from 4.36 on read (``rope_theta`` and ``torch_dtype`` rather than their later
names). Left out are the keys that do not shape a load: the class labels of
ImageNet, sampling settings, and the version that wrote the file.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from hftrace.errors import UsageError
from hftrace.synth.architectures.bert import BERT
from hftrace.synth.architectures.definition import Architecture, SpecialTokens
from hftrace.synth.architectures.gpt2 import GPT2
from hftrace.synth.architectures.llama import LLAMA
from hftrace.synth.architectures.mistral import MISTRAL
from hftrace.synth.architectures.qwen import QWEN
from hftrace.synth.architectures.t5 import T5
from hftrace.synth.architectures.vit import VIT
from hftrace.synth.architectures.whisper import WHISPER

_ALL = (*LLAMA, *MISTRAL, *QWEN, *GPT2, *BERT, *T5, *VIT, *WHISPER)

ARCHITECTURES: Mapping[str, Architecture] = {architecture.name: architecture for architecture in _ALL}
"""Every known architecture by name."""


def architecture(name: str) -> Architecture:
    """Returns the architecture of that name.

    Raises:
        UsageError: There is none; the message names all of them, and a close one.
    """
    found = ARCHITECTURES.get(name.strip().lower())
    if found is None:
        close = difflib.get_close_matches(name.strip().lower(), ARCHITECTURES, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise UsageError(f"no architecture is named {name!r}.{hint} Known names: {', '.join(ARCHITECTURES)}")
    return found


__all__ = ["ARCHITECTURES", "Architecture", "SpecialTokens", "architecture"]
