"""Evidence about the end of a load in sentences: what is data in the file becomes English here.

What stands in a file is not trusted: a value of a wrong type counts as unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from hftrace.analysis.ending.damage import damage_sentence
from hftrace.analysis.ending.killer import kernel_spoke
from hftrace.analysis.ending.words import mismatch_sentence, no_answer_sentence, not_there_sentence
from hftrace.analysis.text import first_sentences
from hftrace.analysis.values import integer, natural, text
from hftrace.units import byte_count, count, duration

if TYPE_CHECKING:
    from hftrace.analysis.ending.death import Death

SIGBUS_MEANING = (
    "SIGBUS means that a page of a memory-mapped file could not be read: the file was cut off, "
    "or its storage failed."
)
MAX_VALUE = 100
Piece: TypeAlias = Mapping[str, Any]


def evidence_sentences(found: Death) -> list[str]:
    """Returns the evidence in sentences, the strongest first; the caller cleans them for a screen."""
    sentences: list[str] = []
    for each in found.evidence:
        if isinstance(each, str):
            sentences.append(each)  # of a trace before 1.1
        elif each["kind"] == "signal" and found.status == "interrupted":
            sentences.append(
                f"{text(each.get('signal')) or 'A signal'} was sent to hftrace, which ended the load."
            )
        elif each["kind"] == "oom-kills":
            sentences += _oom_kills(each, found)
        else:
            write = _SENTENCES.get(each["kind"])
            sentences += [sentence for sentence in (write or _unknown)(each) if sentence]
    return sentences


def _limit_reached(piece: Piece) -> Iterator[str]:
    anonymous, limit = natural(piece.get("anonymous_bytes")), natural(piece.get("limit_bytes"))
    yield f"Anonymous memory was {byte_count(anonymous)}, above the {byte_count(limit)} of --memory-limit."


def _limit_unwatched(piece: Piece) -> Iterator[str]:
    limit, reason = natural(piece.get("limit_bytes")), text(piece.get("reason"))
    asked = f" of {byte_count(limit)}" if limit is not None else ""
    why = f" ({reason})" if reason else ""
    yield f"The --memory-limit{asked} could not be watched any more{why}, so hftrace stopped the load."


def _timeout(piece: Piece) -> Iterator[str]:
    seconds = piece.get("seconds")
    known = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    yield f"The load was not done after {f'the {seconds:g} s of --timeout' if known else '--timeout'}."


def _raised(piece: Piece) -> Iterator[str]:
    who = text(piece.get("function")) or "The load"
    yield _stopped(f"{who} raised {_exception(piece)}")


def _ended_with(piece: Piece) -> Iterator[str]:
    yield _stopped(f"The load caught that, and ended with {_exception(piece)}")


def _exception(piece: Piece) -> str:
    return f"{text(piece.get('type'))}: {first_sentences(text(piece.get('message')) or '')}"


def _stopped(sentence: str) -> str:
    return sentence if sentence[-1:] in "!?" else f"{sentence}."


def _device_memory(piece: Piece) -> Iterator[str]:
    """Yields how full a device was when an allocation on it failed."""

    def size(name: str) -> int | None:
        return natural(piece.get(f"{name}_bytes"))

    parts = []
    reserved, allocated = size("reserved"), size("allocated")
    if allocated is not None:
        unused = f", {byte_count(reserved - allocated)} more kept for later" if reserved is not None else ""
        parts.append(f"tensors had {byte_count(allocated)}{unused}")
    if size("outside_allocator"):
        parts.append(f"{byte_count(size('outside_allocator'))} were taken outside of torch's allocator")
    if size("asked") is not None:
        parts.append(f"{byte_count(size('asked'))} more were asked for")
    name = text(piece.get("device")) or "The device"
    of = f" has {byte_count(size('memory'))}" if size("memory") is not None else ""
    if size("allowed") is not None:
        of += f", of which this process may use {byte_count(size('allowed'))}"
    yield f"{name}{of}: {', '.join(parts)}." if parts else f"{name}{of} was full."


def _crash(piece: Piece) -> Iterator[str]:
    signal = text(piece.get("signal"))
    yield f"The process crashed with {signal or 'an unknown signal'}."
    if signal == "SIGBUS":
        yield SIGBUS_MEANING


def _damaged_file(piece: Piece) -> Iterator[str]:
    message = text(piece.get("message"))  # of a trace before 1.2
    if message:
        yield f"{message}."
    elif text(piece.get("problem")) is None:
        yield f"{text(piece.get('path')) or 'A weight file'} is damaged."
    else:
        yield f"{damage_sentence(piece)}."


def _mismatched_tensor(piece: Piece) -> Iterator[str]:
    yield f"{mismatch_sentence(piece)}."


def _not_there(piece: Piece) -> Iterator[str]:
    yield _stopped(_capital(not_there_sentence(piece)))


def _no_answer(piece: Piece) -> Iterator[str]:
    yield f"{no_answer_sentence(piece)}."


def _process_limit(piece: Piece) -> Iterator[str]:
    name, limit = text(piece.get("name")) or "A limit of the process", natural(piece.get("limit_bytes"))
    used = natural(piece.get("used_bytes"))
    of = f", and the process had {byte_count(used)} of it in use" if used is not None else ""
    yield f"{name} allows {byte_count(limit)}{of}."


def _journal_stopped(piece: Piece) -> Iterator[str]:
    reason, lines = text(piece.get("reason")), natural(piece.get("lines"))
    lost = f": {count(lines, 'line')} of the recording are missing" if lines else ""
    yield f"The journal stopped{f' ({reason})' if reason else ''}{lost}."


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:] if sentence.startswith("there is") else sentence


def _stacks(_: Piece) -> Iterator[str]:
    yield "It left the Python stacks of its threads."


def _exit(piece: Piece) -> Iterator[str]:
    yield (
        f"The process exited with {integer(piece.get('code'))} and no exception, "
        "as os._exit does: no signal was sent."
    )


def _end_not_seen(_: Piece) -> Iterator[str]:
    yield "Nobody saw how the process ended: no process of hftrace outlived it."


def _signal(piece: Piece) -> Iterator[str]:
    yield f"{text(piece.get('signal')) or 'A signal'} was sent to the loading process."


def _kernel_message(piece: Piece) -> Iterator[str]:
    yield f"The kernel says: {text(piece.get('message')) or 'no message'}"


def _oom_kills(piece: Piece, found: Death) -> Iterator[str]:
    """Yields what the kernel's counters say, and what that means for this process."""
    group, machine = natural(piece.get("group")), natural(piece.get("machine"))
    meaning = ""
    if not kernel_spoke(found.evidence):
        if found.killer == "kernel-oom":
            meaning = ", so the kernel's OOM killer is likely what ended this process"
        elif machine and not group:
            meaning = ", but the process that was killed may well be another one"
    if group:
        yield f"The control group's counter of OOM kills grew by {group}{meaning}."
    elif machine:
        yield f"The machine's counter of OOM kills grew by {machine}{meaning}."
    elif group == machine == 0:
        yield "The kernel counted no OOM kill meanwhile, so somebody sent the signal."


def _memory(piece: Piece) -> Iterator[str]:
    limit, kind = natural(piece.get("limit_bytes")), text(piece.get("limit_kind"))
    of = f"; the limit ({kind}) is {byte_count(limit)}" if limit is not None and kind is not None else ""
    yield (
        f"The process held {byte_count(natural(piece.get('total_bytes')))} at its last reading, "
        f"{byte_count(natural(piece.get('anonymous_bytes')))} of it anonymous{of}."
    )


def _cgroup_memory(piece: Piece) -> Iterator[str]:
    held, limit = natural(piece.get("bytes")), natural(piece.get("limit_bytes"))
    yield f"Its control group held {byte_count(held)} of {byte_count(limit)}."


def _machine_memory(piece: Piece) -> Iterator[str]:
    available, whole = natural(piece.get("available_bytes")), natural(piece.get("ram_bytes"))
    yield f"The machine had {byte_count(available)} of {byte_count(whole)} available."


def _memory_stall(piece: Piece) -> Iterator[str]:
    yield f"Processes waited {duration(natural(piece.get('stall_ns')))} for memory in the last second."


def _still_running(_: Piece) -> Iterator[str]:
    yield "The load was still running when this trace was made."


def _unknown(piece: Piece) -> Iterator[str]:
    """Yields a kind that a newer hftrace has written: its name and values as they are."""
    values = ", ".join(f"{name} {str(value)[:MAX_VALUE]}" for name, value in piece.items() if name != "kind")
    yield _stopped(f"{piece['kind']}: {values}" if values else str(piece["kind"]))


_SENTENCES: dict[str, Callable[[Piece], Iterator[str]]] = {
    "limit-reached": _limit_reached,
    "limit-unwatched": _limit_unwatched,
    "timeout": _timeout,
    "raised": _raised,
    "ended-with": _ended_with,
    "device-memory": _device_memory,
    "crash": _crash,
    "damaged-file": _damaged_file,
    "mismatched-tensor": _mismatched_tensor,
    "not-there": _not_there,
    "no-answer": _no_answer,
    "process-limit": _process_limit,
    "journal-stopped": _journal_stopped,
    "stacks": _stacks,
    "exit": _exit,
    "end-not-seen": _end_not_seen,
    "signal": _signal,
    "kernel-message": _kernel_message,
    "memory": _memory,
    "cgroup-memory": _cgroup_memory,
    "machine-memory": _machine_memory,
    "memory-stall": _memory_stall,
    "still-running": _still_running,
}
"""How each kind is said; that of ``oom-kills`` depends on the verdict."""
