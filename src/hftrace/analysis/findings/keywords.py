"""The rule about keywords that change nothing."""

from __future__ import annotations

from collections.abc import Iterator

from hftrace.analysis.findings.rules import Finding, rule
from hftrace.analysis.keywords import meant_keyword, refused_keyword
from hftrace.analysis.model_loads import model_loads
from hftrace.schema.trace import Trace


@rule(
    ("R26", "ignored-keyword", "A keyword was given that this version of transformers ignores."),
    concerns="keyword",
    severity="warning",
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
                meant = meant_keyword(trace, name)
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
    name = refused_keyword(trace)
    if name is None:
        return
    meant = meant_keyword(trace, name)
    yield Finding(
        "R26",
        "ignored-keyword",
        f"{name} is taken by nothing",
        f"from_pretrained handed {name}, which neither the loader nor the config knows, to the model's "
        "__init__, which refused it.",
        f"Did you mean {meant}?" if meant else "Leave it out.",
        concerns="ending",  # it was not ignored
        severity="error",
    )
