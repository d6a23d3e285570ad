"""Runs a command on a terminal of its own, and reads what a person would see there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import time
from dataclasses import dataclass, field
from pathlib import Path

_STEP = re.compile(rb"\x1b\[([0-9;?]*)([A-Za-z])|\r|\n|\x1b[()][A-Z0-9]|[^\x1b\r\n]+")


class Screen:
    """As much of a terminal as a block needs that is drawn in its place."""

    def __init__(self, columns, rows):
        self.columns, self.rows = columns, rows
        self.lines = [""]
        self.row = self.column = 0
        self.cursor = True

    def feed(self, data):
        for step in _STEP.finditer(data):
            parameters, letter = step[1], step[2]
            if step[0] == b"\n":
                self.row += 1
                self.column = 0
            elif step[0] == b"\r":
                self.column = 0
            elif letter is None:
                self._put(step[0].decode("utf-8", "replace"))
            elif letter == b"A":
                self.row = max(0, self.row - int(parameters or 1))
            elif letter == b"K":
                self.lines[self.row] = "" if parameters == b"2" else self.lines[self.row][: self.column]
            elif letter in b"hl" and parameters == b"?25":
                self.cursor = letter == b"h"
            elif letter != b"m":
                raise AssertionError(f"a step that this screen does not know: {step[0]!r}")
            while self.row >= len(self.lines):
                self.lines.append("")

    def _put(self, text):
        for character in text:
            if self.column == self.columns:
                self.row, self.column = self.row + 1, 0
                while self.row >= len(self.lines):
                    self.lines.append("")
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
            self.column += 1

    def text(self):
        return "\n".join(line.rstrip() for line in self.lines).rstrip()


@dataclass
class Shown:
    """What a command has written on a terminal."""

    code: int
    raw: bytes
    frames: list[float] = field(default_factory=list)
    """When a head line with a time was drawn, in seconds."""
    columns: int = 80

    @property
    def screen(self):
        found = Screen(self.columns, 40)
        found.feed(self.raw)
        return found


HEAD = re.compile(rb"\d+\.\d s(?:, (?:about|remaining)[^\r\n\x1b]*)?(?:\x1b\[0m)?\r?\n")


def on_terminal(*arguments, cwd, env=None, columns=80, act=None, module="hftrace.cli.main"):
    """Runs ``hftrace``, or another module, on a terminal.

    ``act(pid, seconds, raw)`` is called while it goes on.
    """
    removed = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CI", "GITHUB_ACTIONS")
    variables = {name: value for name, value in os.environ.items() if name not in removed}
    variables |= {"TERM": "xterm-256color", **(env or {})}
    pid, descriptor = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        # With these variables alone: readline, which pytest imports, puts COLUMNS behind Python's back.
        os.execve(sys.executable, [sys.executable, "-m", module, *map(str, arguments)], variables)
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    started = time.monotonic()
    raw, frames = b"", []
    while True:
        try:
            data = os.read(descriptor, 1 << 16)
        except OSError:  # nobody has it open any more
            break
        if not data:
            break
        raw += data
        frames += [time.monotonic() - started] * len(HEAD.findall(data))
        if act is not None:
            act(pid, time.monotonic() - started, raw)
    _, status = os.waitpid(pid, 0)
    os.close(descriptor)
    return Shown(os.waitstatus_to_exitcode(status), raw, frames, columns)


def cpu_ns(pid):
    """Returns the processor time of a process by the kernel, without its children."""
    used = [int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(used)
