"""The end of a command that made a trace: write it, draw it, and say how its load went."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import click

from hftrace.cli.common.formats import AGENT, AGENT_WIDTH, Output
from hftrace.cli.common.output import make_console, print_error, print_result
from hftrace.cli.common.termination import say_ending
from hftrace.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OF_SIGNAL,
    EXIT_OK,
    EXIT_THRESHOLD,
    EXIT_USAGE,
    HftraceError,
)
from hftrace.record.ranks import own_rank
from hftrace.schema.trace import Trace
from hftrace.schema.vocabulary import AFTER_LOAD
from hftrace.units import count

TITLE, REPORT = "one line", "a report to paste into an issue, without names"
"""What ``--format quiet`` and ``--format markdown`` print of a trace, for ``--help``."""


class Saved(NamedTuple):
    """Where a trace was written.

    Args:
        target: The file; None for stdout.
        moved: Whether it is another one than was asked for.
        written: Whether there is a file.
        of: Of which ranks it is, as words behind its name.
        whole: The trace of all ranks, where it was made now.
        quiet: Whether another rank is going to draw it.
    """

    target: Path | None
    moved: bool = False
    written: bool = True
    of: str = ""
    whole: Trace | None = None
    quiet: bool = False


def finish(trace: Trace, target: Path | None, quiet: bool, out: Output) -> int:
    """Writes a trace, draws it, and says how the load went; returns the exit code.

    Args:
        trace: What was recorded.
        target: Where it goes; None is stdout.
        quiet: Draw nothing.
        out: How it is drawn; as JSON the summary is printed.

    Raises:
        HftraceError: The trace cannot be written.
    """
    return present(trace, save(trace, target), quiet, out)


def save(trace: Trace, target: Path | None) -> Saved:
    """Writes a trace, to a temporary place where its own has no room.

    Args:
        trace: What was recorded.
        target: Where it goes; None is stdout.

    Raises:
        HftraceError: It cannot be written there either.
        OSError: It cannot be written to stdout.
    """
    say_ending(trace)
    if trace.outcome.get("usage"):
        return Saved(
            target, written=False
        )  # nothing was loaded: no trace worth keeping, and none worth overwriting
    if target is None:
        from hftrace.schema.document import to_bytes

        click.echo(to_bytes(trace).decode("ascii"))
        return Saved(None, written=False)
    try:
        trace.save(target)
        return Saved(target)
    except HftraceError as error:
        # What took a load to record is not to be lost for a full disk.
        try:
            place = Path(tempfile.mkdtemp(prefix="hftrace-trace-"), target.name)
            trace.save(place)
        except (HftraceError, OSError):
            raise error from None
        print_error(f"{error.message}: the trace is in {place} instead")
        return Saved(place, moved=True)


def joined(saved: Saved, force: bool) -> Saved:
    """Puts the traces of all ranks of this machine together, if this one was the last to be written.

    Args:
        saved: Where this rank's trace was written.
        force: Whether a file that is there is overwritten.
    """
    rank = own_rank()
    if rank.of < 2 or saved.target is None or not saved.written or saved.moved:
        return saved
    from hftrace.launch.jobs import join, ranks_words

    whole = join(saved.target, rank.asked(saved.target), rank, force=force)
    if whole is None:
        return saved._replace(of=f" (rank {rank.number} of {rank.of})", quiet=True)
    return saved._replace(target=whole.path, of=f" ({ranks_words(whole.trace)})", whole=whole.trace)


def present(trace: Trace, saved: Saved, quiet: bool, out: Output) -> int:
    """Draws a trace that was written, and says how the load went; returns the exit code.

    Of several ranks the one that wrote last draws the trace of all.

    Args:
        trace: What was recorded.
        saved: Where it lies.
        quiet: Draw nothing.
        out: How it is drawn; as JSON the summary is printed.
    """
    target = saved.target
    try:
        _draw(saved.whole or trace, target, quiet or saved.quiet, out)
    except HftraceError:
        raise
    except OSError:
        # The reader of our output has left, or what it writes to is full: the trace is there all the same.
        _report(trace, target, saved.of)
        raise
    except Exception as error:
        _report(trace, target, saved.of)
        print_error(
            f"drawing the trace failed, which is a bug of hftrace ({type(error).__name__}: {error}); "
            f"the trace itself is whole"
        )
        return EXIT_FAILED
    code = _report(trace, target, saved.of)
    return EXIT_FAILED if saved.moved and code == EXIT_OK else code


def present_program(trace: Trace, saved: Saved, code: int, quiet: bool, out: Output) -> int:
    """Says on stderr what a program has loaded, and returns its exit code as the command's own.

    Args:
        trace: What was recorded.
        saved: Where it lies.
        code: Of the program; negative for a signal.
        quiet: Draw nothing.
        out: How it is drawn.
    """
    target = saved.target
    passed = 128 - code if code < 0 else code
    if trace.outcome.get("status") == "killed":
        from hftrace.launch.ending.explanation import explain_death

        print_error(f"{explain_death(trace)}.")
        if trace.outcome.get("killer") in ("memory-limit", "timeout"):
            passed = EXIT_THRESHOLD
    try:
        if not (quiet or saved.quiet) and trace.loads and target is not None:
            from hftrace.render.screen import screen

            drawn = screen(saved.whole or trace, target)
            if out.form == AGENT:
                click.echo(drawn.text(out.width or AGENT_WIDTH, ascii_only=True), err=True, nl=False)
            else:
                print_result(make_console(out.color, out.width, stderr=True), drawn)
    except HftraceError:
        raise
    except OSError:
        pass  # the terminal is gone
    except Exception as error:
        print_error(
            f"drawing the trace failed, which is a bug of hftrace ({type(error).__name__}: {error}); "
            f"the trace itself is whole"
        )
    loads = f" of {count(len(trace.loads), 'load')}" if trace.loads else ", in which there is no load"
    print_error(f"wrote {target}{saved.of}{loads}")
    return EXIT_FAILED if saved.moved and passed == EXIT_OK else passed


def _draw(trace: Trace, target: Path | None, quiet: bool, out: Output) -> None:
    if quiet or target is None or trace.outcome.get("usage"):
        return
    from hftrace.analysis.summary import summary
    from hftrace.render.screen import screen
    from hftrace.render.views.summary import title

    out.result(
        facts=lambda: summary(trace),
        blocks=lambda: [screen(trace, target)],
        quiet=lambda: title(trace),
        markdown=lambda: _report_of(trace),
    )


def _report_of(trace: Trace) -> str:
    """Returns the report for an issue, with stand-ins for names: ``show --no-redact`` has them."""
    from hftrace.render.bug_report import bug_report
    from hftrace.schema.stand_ins import StandIns

    return bug_report(StandIns().trace(trace), True)


def _report(trace: Trace, target: Path | None, of: str) -> int:
    """Says on stderr where the trace is and what went wrong; returns the exit code."""
    from hftrace.render.text import clean

    outcome = trace.outcome
    for keyword in trace.request.get("ignored") or []:
        version = trace.environment.get("transformers")
        print_error(f"transformers {version} ignores {keyword['keyword']}, honoured by {keyword['versions']}")
    cache = trace.request.get("cache") or {}
    if cache.get("problem"):
        print_error(cache["problem"])
    reason = (trace.header.get("lost") or {}).get("reason")
    if reason:
        print_error(
            f"the journal stopped ({reason}), so this trace is incomplete: let -o name a place with more room"
        )
    if outcome.get("usage"):
        print_error(str((outcome.get("error") or {}).get("message")))
        return EXIT_USAGE
    for span in trace.spans:
        option = span.attributes.get("asked") or span.phase
        if span.parent is None and option in AFTER_LOAD and span.status == "error":
            built = span.attributes.get("inputs_from") == "config"
            hint = "; give its inputs with --input" if built else ""
            print_error(f"--{option} failed, the load did not: {span.attributes.get('error')}{hint}")
    where = f" The trace of what happened until then: {target}" if target is not None else ""
    status = outcome.get("status")
    if status == "ok":
        if target is not None:
            click.echo(f"Wrote {clean(target)}{of}", err=True)
        return EXIT_OK
    from hftrace.analysis.ending.evidence import still_running

    by = outcome.get("signal")
    if status == "interrupted" and still_running(trace):
        # Nobody has asked one of which there is only what it has written.
        asked = trace.header.get("recovered") is not True
        silent = "the process did not answer at the end of the recording, and goes on"
        print_error(f"{silent if asked else 'the load still ran when this trace was made'}.{where}")
        return EXIT_FAILED
    if status == "interrupted":
        print_error(f"{f'ended by {by}' if by else 'interrupted'}.{where}")
        return EXIT_OF_SIGNAL.get(str(by), EXIT_INTERRUPTED)
    if status == "killed":
        from hftrace.launch.ending.explanation import explain_death

        print_error(f"{explain_death(trace)}.{where}")
        if outcome.get("killer") in ("memory-limit", "timeout"):
            return EXIT_THRESHOLD
        return EXIT_OF_SIGNAL.get(str(by), EXIT_FAILED)
    from hftrace.analysis.time.whose import ended_outside
    from hftrace.launch.ending.explanation import explain_failure

    phase = f" in phase {outcome.get('last_phase')}" if outcome.get("last_phase") else ""
    what = "the program" if ended_outside(trace) else "the load"
    print_error(f"{what} failed{phase}: {explain_failure(trace)}.{where}")
    return EXIT_FAILED
