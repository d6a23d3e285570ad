"""What a program had fetched from the Hub itself, outside of any load, and what became of it."""

from __future__ import annotations

from hftrace.analysis.once import once
from hftrace.analysis.time.weights import weight_files
from hftrace.schema.model import File
from hftrace.schema.trace import Trace
from hftrace.schema.vocabulary import FETCH, WEIGHT_SUFFIXES

NO_WEIGHTS = ("training_args", "optimizer", "scheduler", "rng_state", "scaler")
"""What names of files begin with that end as those of weights do, and hold none of a model."""


@once
def fetch_spans(trace: Trace) -> frozenset[int]:
    """Returns the ids of the calls that fetched."""
    columns = trace.spans.column("id"), trace.spans.column("attributes")
    return frozenset(
        span
        for span, noted in zip(*columns, strict=True)
        if isinstance(noted, dict) and noted.get(FETCH) is True
    )


def is_fetched(trace: Trace, file: File) -> bool:
    """Returns whether a row is of no load, but of a call of the program's."""
    return file.asked_by is not None and file.asked_by in fetch_spans(trace)


@once
def never_opened(trace: Trace) -> list[File]:
    """Returns the weight files that were fetched into folders of which loads opened others, and not these.

    A folder of which no load opened anything may be for another process, or for a reader that is not seen.
    """
    asked_by = fetch_spans(trace)
    if not asked_by:
        return []
    read = [file for file in weight_files(trace) if file.path and file.opened is not False]
    paths = {(file.rank, file.path) for file in read}
    inodes = {_identity(file) for file in read} - {None}
    found: dict[str, File] = {}
    for file in trace.files:
        if file.asked_by not in asked_by or file.result != "downloaded" or not file.path:
            continue
        folder = file.path.removesuffix(file.name)
        beside = any(rank == file.rank and str(path).startswith(folder) for rank, path in paths)
        opened = (file.rank, file.path) in paths or _identity(file) in inodes
        if _holds_weights(file.name) and beside and not opened:
            found.setdefault(file.path, file)
    return list(found.values())


def _identity(file: File) -> tuple[object, ...] | None:
    return None if file.inode is None else (file.rank, file.inode, file.size_bytes, file.modified_ns)


def _holds_weights(name: str) -> bool:
    return name.endswith((*WEIGHT_SUFFIXES, ".pth")) and not name.rpartition("/")[2].startswith(NO_WEIGHTS)


def spared_by(trace: Trace, files: list[File]) -> list[str]:
    """Returns the patterns that leave out these files, and none that a load opened."""
    kept = [file.path for file in weight_files(trace) if file.path and file.opened is not False]
    patterns: dict[str, None] = {}
    for file in files:
        assert file.path is not None
        root = file.path.removesuffix(file.name)
        top, below, _ = file.name.partition("/")
        suffix = "." + file.name.rpartition(".")[2]
        if below and not any(path.startswith(f"{root}{top}/") for path in kept):
            patterns[f"{top}/*"] = None
        elif not any(path.startswith(root) and path.endswith(suffix) for path in kept):
            patterns[f"*{suffix}"] = None
        else:
            patterns[file.name] = None
    return list(patterns)
