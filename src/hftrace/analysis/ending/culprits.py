"""What a load failed for, by name: files that are not whole, shapes that differ, what is not there.

It is taken from the ledgers and from what the exception says; it is evidence, and claims no cause.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from hftrace.analysis.ending.damage import damage_facts, damaged_rows
from hftrace.analysis.model_loads import model_loads
from hftrace.analysis.time.requests import failures
from hftrace.analysis.values import text
from hftrace.schema.trace import Trace

UNRELATED = (
    "TypeError",
    "ImportError",
    "ModuleNotFoundError",
    "MemoryError",
    "OutOfMemoryError",
    "NotImplementedError",
    "SystemExit",
)
"""Errors that no checkpoint is the cause of, whatever else may be wrong with it."""
MAX_PIECES = 10
"""Of one kind."""
NO_SUCH_FOLDER = (
    "Repo id must ",
    "is not a local folder",
    "Incorrect path_or_model_id",
    "HFValidationError",
    "is not the path to a directory",
)
NO_SUCH_REVISION = ("RevisionNotFoundError", "is not a valid git identifier")
NO_SUCH_REPOSITORY = ("RepositoryNotFoundError", "is not a valid model identifier")
_FOLDER = re.compile(r"([/~\\]|\.{1,2}[/\\]|[A-Za-z]:[/\\]).*|[^/]*/[^/]*/.*")
"""What can be a folder and no id of a repository."""


def is_unrelated(error: Any) -> bool:
    """Returns whether no checkpoint can be the cause of an exception (``type`` and ``message``)."""
    kind = str(error.get("type") or "") if isinstance(error, Mapping) else ""
    return kind.rpartition(".")[2] in UNRELATED


def damaged_files(trace: Trace) -> Iterator[dict[str, Any]]:
    """Yields the files that were not whole."""
    for row in damaged_rows(trace)[:MAX_PIECES]:
        yield damage_facts(trace, row)


def mismatched_tensors(trace: Trace) -> Iterator[dict[str, Any]]:
    """Yields the tensors that a load ended for because their shapes differ."""
    names = ("name", "keys", "file", "stored_shape", "shape", "evidence")
    found = 0
    for name, keys, file, stored, shape, evidence in zip(
        *(trace.tensors.column(each) for each in names), strict=True
    ):
        if evidence != "mismatched" or stored is None or stored == shape or found == MAX_PIECES:
            continue
        found += 1
        yield {
            "name": name or (keys[0] if keys else None),
            "file": file,
            "stored_shape": stored,
            "shape": shape,
        }


def absent(trace: Trace) -> Iterator[dict[str, Any]]:
    """Yields what was asked for and is not there: a folder, a repository, a revision, a variant."""
    error = trace.outcome.get("error")
    if not isinstance(error, Mapping):
        return
    said = "\n".join(str(error.get(part) or "") for part in ("type", "message", "traceback"))
    request = _failed_request(trace)
    model = text(request.get("model"))
    keywords = request.get("keywords")
    keywords = keywords if isinstance(keywords, Mapping) else {}
    if model is None:
        return
    if _FOLDER.fullmatch(model):
        if not _is_folder(trace, model) and any(words in said for words in NO_SUCH_FOLDER):
            yield {"what": "folder", "name": model, "where": None}
            return
    elif any(words in said for words in NO_SUCH_REVISION):
        revision = text(request.get("revision")) or text(keywords.get("revision"))
        yield {"what": "revision", "name": revision, "where": model}
        return
    elif any(words in said for words in NO_SUCH_REPOSITORY):
        yield {"what": "repository", "name": model, "where": None}
        return
    variant = text(keywords.get("variant"))
    if variant is not None and _tells_of(variant, str(error.get("message") or ""), trace):
        yield {"what": "variant", "name": variant, "where": model}


def _is_folder(trace: Trace, model: str) -> bool:
    """Returns whether a load that failed had found a folder of this name."""
    return any(
        facts.get("is_folder") is True and facts.get("model") == model
        for facts in trace.spans.column("attributes")
    )


def _tells_of(variant: str, message: str, trace: Trace) -> bool:
    """Returns whether an exception is about a file of a variant, and none of it was found."""
    part = f".{variant}."
    if part not in message:
        return False
    columns = (trace.files.column(name) for name in ("name", "result"))
    found = ("local", "cached", "downloaded")
    return not any(part in name and result in found for name, result in zip(*columns, strict=True))


def _failed_request(trace: Trace) -> Mapping[str, Any]:
    """Returns what was asked of the load that failed last."""
    failed = {
        span
        for span, status in zip(trace.spans.column("id"), trace.spans.column("status"), strict=True)
        if status == "error"
    }
    requests = [load.request for load in model_loads(trace) if load.span in failed]
    return next((request for request in reversed(requests) if request.get("model")), trace.request)


def silent_hosts(trace: Trace) -> Iterator[dict[str, Any]]:
    """Yields the hosts that gave no answer, or one that says to try again."""
    for host in failures(trace)[:MAX_PIECES]:
        reason = host.reasons.most_common(1)[0][0] if host.reasons else None
        yield {
            "host": host.host,
            "reason": reason,
            "failed": host.failed,
            "requests": host.requests,
            "lost_ns": host.lost_ns,
        }
