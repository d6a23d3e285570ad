"""Which keywords the installed transformers honours, and by which name it takes a dtype.

Found out by what its functions take, never by its version; the version ranges
are for the reader of the message (measured on 20 releases).
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hftrace.record.hooks import generations
from hftrace.record.hooks.generations import installed_loader


def _model_function(name: str) -> types.FunctionType | None:
    modeling = sys.modules["transformers.modeling_utils"]
    raw = vars(modeling.PreTrainedModel).get(name)
    function = inspect.unwrap(getattr(raw, "__func__", raw)) if raw is not None else None
    return function if isinstance(function, types.FunctionType) else None


def _takes(function_name: str, parameter: str) -> bool:
    function = _model_function(function_name)
    return function is not None and parameter in inspect.signature(function).parameters


def dtype_keyword() -> str:
    """Returns the name by which ``from_pretrained`` of the imported transformers takes a dtype."""
    loader = installed_loader()
    return generations.dtype_keyword(loader.generation if loader else None)


@dataclass(frozen=True)
class Keyword:
    """A keyword of ``from_pretrained`` that not every version honours.

    Args:
        name: The keyword.
        versions: Which versions honour it, for the reader.
        honoured: Whether this one does.
        refused: True where other versions raise instead of ignoring it.
    """

    name: str
    versions: str
    honoured: Callable[[], bool]
    refused: bool = False


KEYWORDS = (
    Keyword("_fast_init", "4.36 to 4.50", lambda: _takes("_load_pretrained_model", "_fast_init")),
    Keyword(
        "low_cpu_mem_usage", "4.36 to 4.50", lambda: _takes("_load_pretrained_model", "low_cpu_mem_usage")
    ),
    Keyword(
        "offload_state_dict", "4.36 to 4.56", lambda: _takes("_load_pretrained_model", "offload_state_dict")
    ),
    Keyword("weights_only", "4.46 on", lambda: _takes("from_pretrained", "weights_only"), refused=True),
    Keyword("disable_mmap", "5.8 on", lambda: _takes("from_pretrained", "disable_mmap"), refused=True),
)


def ignored_keywords(keywords: dict[str, Any]) -> list[dict[str, str]]:
    """Returns those of ``keywords`` that the imported transformers takes and ignores.

    Args:
        keywords: What ``from_pretrained`` will be given.

    Returns:
        Objects with ``keyword`` and ``versions`` (the range that honours it).
    """
    return [
        {"keyword": keyword.name, "versions": keyword.versions}
        for keyword in KEYWORDS
        if keyword.name in keywords and not keyword.refused and not keyword.honoured()
    ]
