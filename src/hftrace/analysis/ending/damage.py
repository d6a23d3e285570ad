"""Files that were not whole when a load failed: which they are, and what is said of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hftrace.analysis.values import natural, text
from hftrace.schema.trace import Trace
from hftrace.schema.vocabulary import OTHER_FORMATS


def damaged_rows(trace: Trace) -> list[int]:
    """Returns the rows of files that are not whole: weights first, each file once."""
    columns = (trace.files.column(name) for name in ("damage", "shard", "path", "name"))
    rows: dict[str, tuple[bool, int]] = {}
    for row, (damage, shard, path, name) in enumerate(zip(*columns, strict=True)):
        if damage is not None:
            rows.setdefault(str(path or name), (shard is None, row))
    return [row for _, row in sorted(rows.values())]


def damage_facts(trace: Trace, row: int) -> dict[str, Any]:
    """Returns what is known of a file that is not whole, as evidence holds it."""
    file = trace.files[row]
    return {
        "path": file.path or file.name,
        "problem": file.damage,
        "size_bytes": file.size_bytes,
        "expected_bytes": file.expected_bytes,
        "expected_exact": file.expected_exact,
        "detail": file.damage_detail,
    }


def damage_sentence(facts: Mapping[str, Any]) -> str:
    """Returns in one sentence, without a full stop, what is wrong with a file.

    Args:
        facts: See :func:`damage_facts`; a value of a wrong type counts as unknown.
    """
    path, problem, detail = (text(facts.get(name)) for name in ("path", "problem", "detail"))
    size, expected = natural(facts.get("size_bytes")), natural(facts.get("expected_bytes"))
    least = "at least " if facts.get("expected_exact") is False else ""
    name = path or "a file"
    belongs = f"; {least}{_bytes(expected)} belong there" if expected else ""
    reason = f" ({detail})" if detail else ""
    if problem == "missing":
        return f"{name} is not there, and its index names it{belongs}"
    if problem == "empty":
        return f"{name} is empty{belongs}"
    if problem == "lfs-pointer":
        return f"{name} is a Git LFS pointer of {_bytes(size)} and not the file itself{belongs}"
    if problem == "web-page":
        return f"{name} is a web page of {_bytes(size)} that was saved under this name{belongs}"
    if problem == "cut":
        of = f" of {least}{_bytes(expected)}" if expected else ""
        return f"{name} is cut off: it has {_bytes(size)}{of}{reason}"
    if problem == "longer":
        return f"{name} is damaged: it has {_bytes(size)}, and its tensors end at {_bytes(expected)}"
    if problem == "header" and name.endswith((".safetensors", ".gguf")):
        return f"{name} is not a {name.rpartition('.')[2]} file that can be read{reason}{belongs}"
    if problem == "format" and detail and detail.startswith("it is "):
        return f"{name} {detail.removeprefix('it ')}{belongs}"
    return f"{name} is damaged{reason}{belongs}"


def is_other_format(facts: Mapping[str, Any]) -> bool:
    """Returns whether a file is of another format than its name says, and nothing else is wrong with it."""
    return text(facts.get("problem")) == "format" and text(facts.get("detail")) in OTHER_FORMATS.values()


def damage_remedy(facts: Mapping[str, Any]) -> str:
    """Returns what to do about a file that is not whole."""
    problem, path = text(facts.get("problem")), text(facts.get("path")) or ""
    if problem == "lfs-pointer":
        return "fetch the file itself with git lfs pull or hf download"
    if problem == "missing":
        return "fetch the missing shard"
    if is_other_format(facts):
        return "give it a name with the ending of its format, or fetch the right one"
    if "/snapshots/" in path:
        return "fetch it again with force_download=True"
    return "fetch it again"


def _bytes(size: int | None) -> str:
    """Returns a size to the byte: rounded, a whole file and one that was cut may look alike."""
    return "an unknown number of bytes" if size is None else f"{size:,} byte{'' if size == 1 else 's'}"
