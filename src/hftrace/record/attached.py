"""What a process that waits does when somebody asks: it records as long as the other side stays.

One line of JSON each way for each word. The other side makes the trace, of the journal in a folder of its
own; where it is gone, by whatever way, recording ends and all hooks are off.
"""

from __future__ import annotations

import _socket
import _thread
import atexit
import contextlib
import json
import os
import platform
import select
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

from hftrace._version import __version__
from hftrace.record import gil, session
from hftrace.record.failures import ending_of
from hftrace.record.hooks.beginnings import entry_codes
from hftrace.record.ranks import own_rank
from hftrace.record.recorder import shielded
from hftrace.record.standing import standing
from hftrace.record.tracer import Tracer
from hftrace.schema.redact import learn_process, redact, redact_arguments
from hftrace.system.floors import storage_facts

MAX_LINE = 1 << 16
FIRST_WORD_SECONDS = 10.0
"""Whoever connects and says nothing is not waited for any longer."""
ANSWER_SECONDS = 10.0
"""Who does not take an answer for so long is gone."""
BUSY = "busy"


def serve(connection: _socket.socket, listening: _socket.socket) -> None:
    """Answers one who has connected, until he is gone; others are told meanwhile that somebody is here.

    Args:
        connection: To him.
        listening: Where others come.
    """
    attached = Attached()
    try:
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        poll.register(listening.fileno(), select.POLLIN)
        pending, heard = b"", False
        connection.settimeout(ANSWER_SECONDS)
        while True:
            ready = poll.poll(None if heard else FIRST_WORD_SECONDS * 1000)
            if not ready:
                return
            for number, _ in ready:
                if number != connection.fileno():
                    _turn_away(listening)
                    continue
                data = connection.recv(MAX_LINE)
                *lines, pending = (pending + data).split(b"\n")
                if not data or len(pending) > MAX_LINE:
                    return
                for line in lines:
                    heard = True
                    answer = attached.answer(line)
                    connection.sendall(json.dumps(answer).encode("ascii") + b"\n")
    except OSError:
        return  # he is gone
    finally:
        attached.stop()


def _turn_away(listening: _socket.socket) -> None:
    with contextlib.suppress(OSError):
        number, _ = listening._accept()  # type: ignore[attr-defined]
        other = _socket.socket(fileno=number)
        with contextlib.suppress(OSError):
            other.settimeout(0)
            other.send(json.dumps({"error": BUSY}).encode("ascii") + b"\n")
        other.close()


class Attached:
    """One recording that somebody outside has asked for."""

    def __init__(self) -> None:
        self._tracer: Tracer | None = None
        self._stopping = threading.Lock()
        self._entries: dict[types.CodeType, str] = {}
        self._thread = _thread.get_ident()
        learn_process()

    def answer(self, line: bytes) -> dict[str, Any]:
        """Does what one line asks for, and returns what there is to say."""
        try:
            asked = json.loads(line)
            word = asked.get("do")
            if word == "start":
                return self._start(Path(asked["directory"]))
            if word == "where":
                return {"standing": standing({self._thread}, self._entries), "time_ns": time.monotonic_ns()}
            if word == "stop":
                self.stop()
                return {"stopped": True}
            return {"error": f"an unknown word: {word!r:.50}"}
        except Exception as error:
            return {"error": redact(f"{type(error).__name__}: {error}")}

    def _start(self, directory: Path) -> dict[str, Any]:
        reason = gil.refusal()
        if reason is None and self._tracer is not None:
            reason = "it is recorded already"
        if reason is not None:
            return {"error": reason}
        # Before the hooks: these functions have their own code still.
        self._entries = entry_codes()
        found = standing({self._thread}, self._entries)
        now = time.monotonic_ns()
        facts = {"command": "attach", "argv": redact_arguments(sys.orig_argv)}
        tracer = Tracer(directory, rank=own_rank().number, facts=facts)
        tracer.recorder.facts("attached", {"time_ns": now, "under_way": _under_way(found)})
        self._tracer = tracer
        atexit.register(self._end_with_the_process)
        try:
            tracer.start()
            shielded(tracer.recorder, "session", session.began, tracer.recorder)
        except BaseException:
            self._tracer = None
            atexit.unregister(self._end_with_the_process)
            tracer.drop()
            raise
        return {
            "hftrace": __version__,
            "python": platform.python_version(),
            "transformers": getattr(sys.modules.get("transformers"), "__version__", None),
            "standing": found,
            "time_ns": now,
        }

    def stop(self, error: BaseException | None = None) -> None:
        """Ends the recording and takes every hook off; a second call does nothing.

        Args:
            error: What has ended the program meanwhile.
        """
        with self._stopping:
            tracer, self._tracer = self._tracer, None
            if tracer is None:
                return
            recorder = tracer.recorder
            if os.getpid() != recorder.pid:
                return  # of a parent: it has been abandoned
            atexit.unregister(self._end_with_the_process)
            try:
                if error is not None:
                    shielded(
                        recorder, "outcome", lambda: recorder.facts("outcome", ending_of(recorder, error))
                    )
                if recorder.first_checkpoint is not None:
                    found = shielded(recorder, "file system", storage_facts, recorder.first_checkpoint)
                    recorder.facts("environment", found or {"filesystem": None})
                still = _under_way(standing({self._thread, _thread.get_ident()}, self._entries))
                recorder.facts("attached", {"still_under_way": still})
                shielded(recorder, "session", session.ended, recorder)
                tracer.stop()
            finally:
                tracer.drop()
                recorder.files.close()

    def _end_with_the_process(self) -> None:
        error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
        self.stop(error if isinstance(error, BaseException) else None)


def _under_way(stands: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns what a trace says of the loads that threads are in."""
    return [
        {
            "thread": each["thread"],
            "main": each["main"],
            **each["load"],
            "waits": each["waits"],
            "stack": "\n".join(each["frames"]),
        }
        for each in stands
        if each["load"] is not None
    ]
