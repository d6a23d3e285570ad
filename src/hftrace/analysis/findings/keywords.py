"""The rule about keywords that change nothing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping

from hftrace.analysis.findings.rules import Finding, rule
from hftrace.analysis.model_loads import model_loads
from hftrace.analysis.request import asked_keywords
from hftrace.schema.trace import Trace

KNOWN_KEYWORDS = (
    "attn_implementation",
    "cache_dir",
    "code_revision",
    "config",
    "device_map",
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
    "trust_remote_code",
    "use_safetensors",
    "variant",
    "weights_only",
)
"""Keywords of ``from_pretrained`` that a misspelt one may have been meant for."""


@rule(
    ("R26", "ignored-keyword", "A keyword was given that this version of transformers ignores."),
    concerns="keyword",
)
def ignored_keywords(trace: Trace) -> Iterator[Finding]:
    """R26: keywords that were accepted, and that nothing reads."""
    installed = trace.environment.get("transformers") or "this version"
    said: set[str] = set()
    ignored = trace.request.get("ignored")
    for entry in ignored if isinstance(ignored, list) else []:
        if isinstance(entry, dict):
            said.add(str(entry.get("keyword")))
            versions = entry.get("versions")
            yield Finding(
                "R26",
                "ignored-keyword",
                f"{entry.get('keyword')} has no effect",
                f"transformers {installed} ignores {entry.get('keyword')}"
                + (f"; versions {versions} honour it." if versions else "."),
                "Leave it out, or use a version that honours it.",
            )
    yield from _refused(trace)
    for load in model_loads(trace):
        for name, use in load.uses.items():
            if use == "nowhere" and name not in said:
                said.add(name)
                meant = _meant(name)
                yield Finding(
                    "R26",
                    "ignored-keyword",
                    f"{name} has no effect",
                    f"{load.request.get('class') or load.name}.from_pretrained took {name} and handed it to "
                    f"nothing that reads it: neither the loader of transformers {installed}, nor the config, "
                    "nor the model's __init__.",
                    f"Did you mean {meant}?" if meant else "Leave it out, or use a version that honours it.",
                )


def _refused(trace: Trace) -> Iterator[Finding]:
    """Yields the keyword for which a load failed: nothing takes it."""
    error = trace.outcome.get("error")
    message = str(error.get("message") or "") if isinstance(error, Mapping) else ""
    found = re.search(r"unexpected keyword argument '(\w+)'", message)
    if found is None or found[1] not in asked_keywords(trace):
        return
    name = found[1]
    meant = _meant(name)
    yield Finding(
        "R26",
        "ignored-keyword",
        f"{name} is taken by nothing",
        f"from_pretrained handed {name}, which neither the loader nor the config knows, to the model's "
        "__init__, which refused it.",
        f"Did you mean {meant}?" if meant else "Leave it out.",
    )


def _meant(name: str) -> str | None:
    """Returns the keyword that a misspelt one may have been meant for."""
    close = difflib.get_close_matches(name, set(KNOWN_KEYWORDS) - {name}, 1, 0.8)
    return close[0] if close and name not in KNOWN_KEYWORDS else None
