"""A trace as one block of GitHub Flavored Markdown for an issue: what maintainers ask for first.

Text from a trace may hold anything. It stands in code spans and fenced blocks, where GitHub renders neither
markup nor mentions.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hftrace import units
from hftrace._version import __version__
from hftrace.analysis.time.phases import phase_times
from hftrace.analysis.time.session import session_wall_ns, unrecorded_ns
from hftrace.analysis.values import natural, text
from hftrace.render.compare.markdown import code
from hftrace.render.text import clean
from hftrace.render.views import load
from hftrace.render.views.options import ViewOptions
from hftrace.schema.trace import Trace

WIDTH = 80
"""Columns of what is drawn: an issue shows some 90 without a scroll bar."""
MAX_LENGTH = 60_000
"""GitHub takes 65,536 characters in one comment."""
TREE_LINES, TRACEBACK_LINES = 120, 60
KEYWORD = 200
"""Characters of one keyword's value."""
VERSIONS = (
    *(
        "python",
        "transformers",
        "torch",
        "accelerate",
        "safetensors",
        "huggingface_hub",
        "tokenizers",
        "peft",
    ),
    *("bitsandbytes", "torchao", "compressed_tensors", "gguf", "hqq", "diffusers", "sentence_transformers"),
    *("timm", "open_clip", "numpy"),
)


def bug_report(trace: Trace, redacted: bool) -> str:
    """Returns a trace as one document of Markdown.

    Args:
        trace: The trace, with stand-ins for names where these were asked for.
        redacted: Whether they were.
    """
    parts = [*_parts(trace), ("note", _note(redacted))]
    document = _joined(parts)
    for name in ("tree", "error", "drawn"):  # what can be had again from the trace goes first
        if len(document) > MAX_LENGTH:
            parts = [(each, _CUT if each == name else part) for each, part in parts]
            document = _joined(parts)
    return document


_CUT = "*Left out: it is longer than one comment may be. `hftrace show TRACE` has it.*"


def _joined(parts: Iterable[tuple[str, str]]) -> str:
    return "\n\n".join(part for _, part in parts if part) + "\n"


def _parts(trace: Trace) -> Iterator[tuple[str, str]]:
    """Yields the parts, each with a name."""
    status = text(trace.outcome.get("status")) or "unknown"
    model = text(trace.request.get("model"))
    what = f" of {code(model)}" if model else ""
    yield "title", f"### hftrace: a load{what}, {code(status)}, {units.duration(session_wall_ns(trace))}"
    yield "call", "\n\n".join(["**Call**", *_calls(trace)])
    drawn = load("summary").draw(trace, ViewOptions())
    yield "drawn", "**What happened**\n\n" + fenced("\n".join(block.text(WIDTH) for block in drawn))
    yield "error", _error(trace)
    yield "environment", folded("Environment", table(("", ""), _environment(trace)))
    yield "phases", folded("Phases", table(("phase", "time", "share"), _phases(trace)))
    yield "tree", folded("Call tree", fenced(_cut(_tree(trace), TREE_LINES)))


def fenced(content: str) -> str:
    """Returns foreign text as a block that nothing in it can end."""
    lines = [clean(line) for line in content.split("\n")]
    content = "\n".join(lines).strip("\n")
    longest = max((len(run) for run in re.findall(r"`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{content}\n{fence}"


def folded(title: str, content: str) -> str:
    """Returns a part that is opened by a click; empty where it has no content."""
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>" if content else ""


def table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Returns a table whose cells are Markdown already; empty where it has no rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *lines]) if lines else ""


def _calls(trace: Trace) -> Iterator[str]:
    """Yields what was started, and what was asked of the first load, as far as the trace says."""
    arguments = trace.header.get("argv")
    if isinstance(arguments, list) and arguments:
        yield fenced(" ".join(shlex.quote(clean(each)) for each in arguments))
    request = trace.request
    name, model, keywords = text(request.get("class")), text(request.get("model")), request.get("keywords")
    if name and model:
        given = keywords if isinstance(keywords, Mapping) else {}
        asked = [repr(clean(model)), *(f"{clean(key)}={_literal(value)}" for key, value in given.items())]
        if revision := text(request.get("revision")):
            asked += [] if "revision" in given else [f"revision={clean(revision)!r}"]
        yield fenced(f"{name}.from_pretrained({', '.join(asked)})")


def _literal(value: Any) -> str:
    shown = clean(repr(value))
    return shown if len(shown) <= KEYWORD else f"{shown[: KEYWORD - 1]}…"


def _error(trace: Trace) -> str:
    error = trace.outcome.get("error")
    if not isinstance(error, Mapping):
        return ""
    traceback, message = text(error.get("traceback")) or "", text(error.get("message")) or ""
    said = f"{text(error.get('type')) or 'error'}: {message}"
    if message not in traceback or not traceback:
        traceback = f"{traceback}\n{said}" if traceback else said
    return "**Error**\n\n" + fenced(_cut(traceback, TRACEBACK_LINES, end=True))


def _cut(content: str, most: int, end: bool = False) -> str:
    """Returns the first lines of a text, or the last ones, and says how many there are more."""
    lines = content.strip("\n").split("\n")
    if len(lines) <= most:
        return content
    more = f"+ {len(lines) - most} more lines"
    return "\n".join([more, *lines[-most:]] if end else [*lines[:most], more])


def _tree(trace: Trace) -> str:
    return "\n".join(block.text(WIDTH) for block in load("tree").draw(trace, ViewOptions()))


def _environment(trace: Trace) -> Iterator[tuple[str, str]]:
    """Yields what is known of where it ran, a row each."""
    environment = trace.environment
    yield "hftrace", code(trace.header.get("hftrace") or "")
    for name in VERSIONS:
        if version := text(environment.get(name)):
            yield name, code(version)
    yield "loader", code(text(environment.get("generation")) or "not known")
    for name in ("os", "machine", "host", "filesystem"):
        if said := text(environment.get(name)):
            yield name, code(said)
    for name in ("cpu_count", "usable_cpu_count"):
        if (count := natural(environment.get(name))) is not None:
            yield name.replace("_", " "), code(count)
    for name, label in (("ram_bytes", "RAM"), ("cgroup_limit_bytes", "limit of the control group")):
        if (size := natural(environment.get(name))) is not None:
            yield label, code(units.byte_count(size))
    devices = environment.get("devices")
    for device in devices if isinstance(devices, list) else ():
        if isinstance(device, Mapping):
            said = " ".join(str(device[part]) for part in ("device", "name") if device.get(part))
            size = natural(device.get("total_bytes")) or natural(device.get("memory_bytes"))
            yield "device", code(f"{said} {units.byte_count(size)}" if size else said)
    hooks = environment.get("hooks")
    missing = hooks.get("missing") if isinstance(hooks, Mapping) else None
    if isinstance(missing, list) and missing:
        yield "hook points missing", code(", ".join(map(str, missing)))
    variables = environment.get("variables")
    for name, value in variables.items() if isinstance(variables, Mapping) else ():
        yield code(name), code(value)


def _phases(trace: Trace) -> Iterator[tuple[str, str, str]]:
    """Yields the time by phase, which adds up to the session's where one thread did it all."""
    wall = session_wall_ns(trace)
    times = dict(phase_times(trace))
    if rest := unrecorded_ns(trace):
        times["unrecorded"] = rest
    for phase, spent in times.items():
        yield code(phase), units.duration(spent), units.share(spent / wall if wall else None)


def _note(redacted: bool) -> str:
    names = (
        "Names of users, machines and repositories are replaced (`user1`, `host1`, `org1`, `repo1`)."
        if redacted
        else "Names are as they are in the trace."
    )
    return f"<sub>Written by hftrace {__version__}, `hftrace show TRACE --format markdown`. {names}</sub>"
