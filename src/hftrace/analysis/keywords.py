"""Keywords that nothing takes: which one a load was refused for, and which one was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from hftrace.analysis.loader import loader_facts
from hftrace.analysis.request import asked_keywords
from hftrace.schema.trace import Trace

KNOWN_KEYWORDS = (
    "attn_implementation",
    "cache_dir",
    "code_revision",
    "config",
    "device_map",
    "distributed_config",
    "dtype",
    "force_download",
    "generation_config",
    "gguf_file",
    "ignore_mismatched_sizes",
    "key_mapping",
    "local_files_only",
    "low_cpu_mem_usage",
    "max_memory",
    "offload_buffers",
    "offload_folder",
    "output_loading_info",
    "quantization_config",
    "revision",
    "state_dict",
    "subfolder",
    "token",
    "torch_dtype",
    "tp_plan",
    "tp_size",
    "trust_remote_code",
    "use_safetensors",
    "variant",
    "weights_only",
)
"""Keywords of ``from_pretrained`` that a misspelt one may have been meant for."""
_DTYPE = ("dtype", "torch_dtype")


def meant_keyword(trace: Trace, name: str) -> str | None:
    """Returns the keyword that a misspelt one may have been meant for, as this loader calls it."""
    close = difflib.get_close_matches(name, set(KNOWN_KEYWORDS) - {name}, 1, 0.8)
    if not close or name in KNOWN_KEYWORDS:
        return None
    return (loader_facts(trace).dtype_keyword or close[0]) if close[0] in _DTYPE else close[0]


def refused_keyword(trace: Trace) -> str | None:
    """Returns the keyword that a load failed for because nothing takes it; None where that was not why."""
    error = trace.outcome.get("error")
    message = str(error.get("message") or "") if isinstance(error, Mapping) else ""
    found = re.search(r"unexpected keyword argument '(\w+)'", message)
    return found[1] if found is not None and found[1] in asked_keywords(trace) else None
