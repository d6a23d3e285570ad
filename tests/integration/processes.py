"""Real processes of the command line, several at a time, and a load that can be stopped where one wants."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import hftrace

COMMAND = (sys.executable, "-m", "hftrace")

SLOW_MODULE = '''
"""Loads slowly, says when each tensor or module was placed, and dies where it is told to."""

import ctypes
import mmap
import os
import sys
import time

import torch
from transformers import AutoModelForCausalLM


def cut_off(path):
    """Cuts a mapped file off, and touches a page that is not there any more."""
    with open(path, "r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
        file.truncate(len(mapped) // 2)
    mapped[len(mapped) - 1]


def take_memory(allocate):
    """Asks for more address space than the process may have."""
    import resource

    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), resource.RLIM_INFINITY))
    try:
        allocate(4 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def places(modeling):
    """Yields (owner, function name, position of the name of what is placed)."""
    core = sys.modules.get("transformers.core_model_loading")
    if core is not None:
        yield core, "set_param_for_module", 1
    elif hasattr(modeling, "_load_parameter_into_model"):
        yield modeling, "_load_parameter_into_model", 1
    else:
        yield torch.nn.Module, "_load_from_state_dict", 2


def slow_down(owner, name, position):
    original = getattr(owner, name)
    log = os.open(os.environ["SLOW_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    delay = float(os.environ.get("SLOW_DELAY", "0.01"))
    last, how = int(os.environ.get("SLOW_LAST", "-1")), os.environ.get("SLOW_END", "")
    count = 0

    def slow(*args, **kwargs):
        nonlocal count
        result = original(*args, **kwargs)
        os.write(log, f"{time.monotonic_ns()} {args[position]}\\n".encode())
        count += 1
        if count == last:
            if how == "exit":
                os._exit(3)
            if how == "segv":
                ctypes.string_at(0)
            if how == "hang":
                time.sleep(float(os.environ["SLOW_HANG"]))
            if how == "bus":
                cut_off(os.environ["SLOW_FILE"])
            if how == "memory":
                take_memory(bytearray)
            if how == "allocator":
                take_memory(lambda size: torch.ones(size, dtype=torch.uint8))
            if how == "cuda":
                kind = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)
                raise kind("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 is full.")
            if how == "raise":
                raise RuntimeError("told to fail \\x1b[31m[bold]here[/bold]")
        time.sleep(delay)
        return result

    setattr(owner, name, slow)


class Slow:
    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        import transformers.modeling_utils as modeling

        for place in places(modeling):
            slow_down(*place)
        return AutoModelForCausalLM.from_pretrained(*args, **kwargs)
'''


@dataclass
class Done:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str
    cwd: Path

    @property
    def complaints(self) -> list[str]:
        """The lines that hftrace itself wrote on stderr."""
        return [line for line in self.stderr.splitlines() if line.startswith("hftrace: ")]


def environment(extra: Mapping[str, str] | None = None, path: Path | None = None) -> dict[str, str]:
    """Returns this process's environment, at 80 columns, with ``path`` before other modules."""
    # One thread: the models are tiny, and idle threads of many processes only wait for each other.
    variables = {**os.environ, "COLUMNS": "80", "LINES": "24", "OMP_NUM_THREADS": "1", **(extra or {})}
    if path is not None:
        after = os.environ.get("PYTHONPATH")
        variables["PYTHONPATH"] = f"{path}{os.pathsep}{after}" if after else str(path)
    return variables


def start(arguments, cwd: Path, env: dict[str, str], before=()) -> subprocess.Popen[bytes]:
    """Starts the command, behind another one if need be, in a process group of its own as a terminal does."""
    cwd.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [*before, *COMMAND, *map(os.fspath, arguments)],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[bytes], cwd: Path, timeout: float = 180) -> Done:
    """Waits for the command."""
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Done(process.returncode, stdout.decode(), stderr.decode("utf-8", "backslashreplace"), cwd)


def command(*arguments, cwd: Path, env: dict[str, str] | None = None) -> Done:
    """Runs the command to its end."""
    return finish(start(arguments, cwd, environment() if env is None else env), cwd)


def wait_for(condition: Callable[[], object], what: str, seconds: float = 120, pause: float = 0.002):
    """Returns the first true answer of ``condition``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = condition()
        if answer:
            return answer
        time.sleep(pause)
    raise AssertionError(f"waited {seconds} s for {what}")


def journal_of(folder: Path) -> Path | None:
    """Returns the journal of the load that runs with its trace in ``folder``."""
    return next(folder.glob(".hftrace-run-*/journal-*.jsonl"), None)


def pid_of(journal: Path) -> int:
    """Returns the loading process's id, which its journal's name holds."""
    return int(journal.stem.rpartition("-")[2])


class SlowLoad:
    """``hftrace load`` of a model whose tensors take 10 ms each, with a log of its own beside the trace."""

    def __init__(self, place, checkpoint, name, options=(), before=(), **variables):
        self.folder = place / name
        self.log = self.folder / "placed.log"
        self.folder.mkdir()
        extra = {"SLOW_LOG": str(self.log), **variables}
        self.process = start(
            ["load", checkpoint, "--class", "slow_module:Slow", "-o", "out.json", *options],
            self.folder,
            environment(extra, place / "modules"),
            before,
        )

    def ended(self):
        assert self.process.poll() is None, finish(self.process, self.folder).stderr

    def child(self):
        def look():
            self.ended()
            return journal_of(self.folder)

        return pid_of(wait_for(look, "the journal"))

    def placed(self):
        """Returns (time_ns, name) of everything that the loader placed, as it says itself."""
        if not self.log.exists():
            return []
        return [
            (int(line.partition(" ")[0]), line.partition(" ")[2])
            for line in self.log.read_text().splitlines()
            if " " in line
        ]

    def wait_placed(self, count):
        def look():
            self.ended()
            return len(self.placed()) >= count

        wait_for(look, f"{count} placed tensors")

    def result(self):
        """Returns what the command said, and the trace that it wrote."""
        done = finish(self.process, self.folder)
        assert (self.folder / "out.json").exists(), done.stderr
        assert not list(self.folder.glob(".hftrace*")), "the journal's folder is left"
        assert "Traceback" not in "".join(line for line in done.complaints)
        return done, hftrace.Trace.open(self.folder / "out.json")


def everything_under(folder, seen):
    """Adds the bytes of every file below a folder, to what was there before."""
    for root, _, names in os.walk(folder):
        for path in (Path(root, name) for name in names):
            try:
                data = path.read_bytes()
            except OSError:
                continue  # gone since
            if not data.startswith(seen.get(path, b"")):
                data = seen[path] + data
            seen[path] = data
