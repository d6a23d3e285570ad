"""``--torch-profile`` and ``--memory-snapshot``: files of what torch itself records beside a load."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import click

from hftrace.cli.common.files import write_file
from hftrace.cli.common.output import print_error
from hftrace.errors import HftraceError, UsageError
from hftrace.launch.child import PROFILE_FILE, SNAPSHOT_FILE
from hftrace.record.ranks import own_rank
from hftrace.schema.trace import Trace

TIMELINES = (".json", ".json.gz")
SNAPSHOTS = (".pickle", ".pkl")
"""What names end in, so that what opens them knows them."""


class TorchFiles(NamedTuple):
    """Where they go; None where they were not asked for."""

    profile: Path | None
    snapshot: Path | None

    def save(self, trace: Trace, run: Path) -> bool:
        """Writes what the load has left of them, and says on stderr where it is, or why it is not there.

        Args:
            trace: The trace of the load, which is written by now.
            run: Its directory.

        Returns:
            Whether all that was asked for was written.
        """
        if trace.outcome.get("usage"):
            return True
        complete = True
        for target, made, what in (
            (self.profile, run / PROFILE_FILE, "torch's profile"),
            (self.snapshot, run / SNAPSHOT_FILE, "torch's snapshot"),
        ):
            if target is None:
                continue
            if not made.exists():
                killed = trace.outcome.get("status") == "killed"
                why = "a load that is killed leaves nothing" if killed else "the load left nothing"
                print_error(f"{target} was not written: {why} of {what}")
                complete = False
                continue
            try:
                if target is self.profile:
                    from hftrace.export.torch_profile import write_merged

                    write_file(target, partial(write_merged, trace, made, target.name))
                else:
                    write_file(target, partial(_copy, made))
                click.echo(f"Wrote {target}", err=True)
            except HftraceError as error:
                # The trace and its figures are worth more: they follow.
                print_error(f"{error.message}: {target} was not written")
                complete = False
        return complete


def torch_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options to a command; it gets them as ``torch_files``, to be called with ``--force``.

    What that raises, it raises before the load: :class:`hftrace.errors.UsageError` for a file that is there
    already, or whose name says something else.
    """

    @click.option(
        "--torch-profile",
        metavar="FILE",
        help="Run torch's profiler beside the load, and write its events and the trace's as one timeline "
        "(.json, .json.gz). It costs time, which the trace has in it.",
    )
    @click.option(
        "--memory-snapshot",
        metavar="FILE",
        help="Write the history of torch's CUDA allocator (.pickle), for pytorch.org/memory_viz. It costs "
        "time as well.",
    )
    @wraps(function)
    def wrapper(
        *arguments: Any, torch_profile: str | None, memory_snapshot: str | None, **options: Any
    ) -> Any:
        def chosen(force: bool) -> TorchFiles:
            return TorchFiles(
                _checked("--torch-profile", torch_profile, TIMELINES, force),
                _checked("--memory-snapshot", memory_snapshot, SNAPSHOTS, force),
            )

        return function(*arguments, torch_files=chosen, **options)

    return wrapper


def _checked(option: str, name: str | None, suffixes: tuple[str, ...], force: bool) -> Path | None:
    if name is None:
        return None
    path = Path(name).expanduser()
    if path.is_dir():
        raise UsageError(f"{name} is a directory: let {option} name a file in it")
    if not path.name.endswith(suffixes):
        raise UsageError(f"let the name of {option} end in {' or '.join(suffixes)}, not {name}")
    path = own_rank().path(path)
    if path.exists() and not force:
        raise UsageError(f"{path} exists: choose another name, or --force to overwrite it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.parent / f".{path.name}.probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"cannot write to {path.parent}: {error.strerror or error}; choose another place for {option}"
        ) from None
    return path


def _copy(made: Path, stream: BinaryIO) -> None:
    with made.open("rb") as source:
        shutil.copyfileobj(source, stream)
