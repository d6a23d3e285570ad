"""Reads traces and runs that were damaged at random, as every command does, and says what went wrong.

    python tests/mutations/mutate.py --traces 10000 --journals 2000 --commands 200 --seed 1

Everything runs in one process, through the commands' own functions, within
``--memory`` MiB of address space. A failure is an exception that is none of
hftrace's own, a hang, memory beyond the limit, output that is broken (a line
that is too wide, a control character, JSON that is none), or a trace that
``recover`` wrote and that cannot be read. ``--commands`` tries some through
``python -m hftrace`` as well. What has failed is kept in ``--keep``.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import gzip
import io
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import changes
import click

from hftrace.cli import check, compare
from hftrace.cli.group import make_group
from hftrace.cli.main import COMMANDS
from hftrace.errors import HftraceError
from hftrace.export import FORMATS, TABLES
from hftrace.render.views import VIEWS
from hftrace.schema.trace import Trace

DATA = Path(__file__).parent.parent / "data"
EXAMPLES = DATA.parent.parent / "traces" / "examples"
SECONDS = 20
"""A command that takes longer hangs."""
WIDTHS = (40, 80, 140)
COMPARED = ("memory", "phases", "tensors", "files", "ranking")
FORBIDDEN = [word for kind in check.FORBIDDEN for word in ("--forbid", kind)]
TIMES = ["--max-time", "90s", "--max-load-time", "1s", "--max-ready", "1s"]
BUDGETS = [
    *TIMES,
    "--max-peak",
    "16GB",
    "--max-anon-peak",
    "1MB",
    "--max-device-peak",
    "1GB",
    "--max-read",
    "1MB",
]
FILTERS = (
    "weight",
    "*.weight",
    "status=ok",
    "dtype=float32",
    "device=cuda",
    "file=*",
    "name=null",
    "phase=load",
)


class HangError(BaseException):
    """A command took too long; no ``except Exception`` of a command may take it for its own."""


class BrokenOutputError(Exception):
    """A command printed what it must not."""


@dataclass
class Report:
    """What came of it."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    """The first of each kind."""
    kinds: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    peak_bytes: int = 0


def _ring(number: int, frame: FrameType | None) -> None:
    raise HangError(f"no end after {SECONDS} s")


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    signal.signal(signal.SIGALRM, _ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


class _Output(io.TextIOWrapper):
    """A stdout that is kept."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", errors="backslashreplace", newline="\n")

    def text(self) -> str:
        self.flush()
        kept = self.buffer
        assert isinstance(kept, io.BytesIO)
        return kept.getvalue().decode("utf-8")


def call(*arguments: str) -> tuple[int, str, str]:
    """Runs a command in this process; returns the exit code, and what it wrote to stdout and stderr.

    What is no error of hftrace's own, or of how it was called, is raised.
    """
    out, err = _Output(), _Output()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = make_group(COMMANDS).main(args=list(arguments), prog_name="hftrace", standalone_mode=False)
        except click.Abort:
            raise KeyboardInterrupt from None  # which click makes one of
        except (click.ClickException, HftraceError) as error:
            message = error.message
            click.echo(message, err=True)
            if not message or len(message) > 1000 + sum(map(len, arguments)):
                raise BrokenOutputError(f"a message of {len(message)} characters") from error
            code = error.exit_code
    if "bug of hftrace" in err.text():
        raise BrokenOutputError(err.text()[-500:])
    return code or 0, out.text(), err.text()


def check_json(*arguments: str) -> None:
    """Runs a command that prints JSON, and raises where it does not."""
    code, text, said = call(*arguments)
    if code and not text and said:
        return  # refused, for what it says
    try:
        json.loads(text)
    except ValueError:
        raise BrokenOutputError(
            f"{arguments[0]} {arguments[2:]}: no JSON, exit code {code}, {said[-300:]}"
        ) from None


def check_text(text: str, width: int) -> None:
    """Raises where a line is wider than asked, or holds what may move the cursor."""
    from rich.cells import cell_len

    for line in text.split("\n"):
        if (
            len(line) * 2 > width
            and not line.startswith(" $ ")
            and cell_len(line) > width
            and not is_command(line)
        ):
            raise BrokenOutputError(f"{cell_len(line)} cells instead of {width}: {line[:300]!r}")
        for character in line:
            if (
                character < " "
                or unicodedata.category(character) in ("Cc", "Cs")
                or character in "\u202e\u2066\u2028"
            ):
                raise BrokenOutputError(f"{character!r} in {line[:300]!r}")


def is_command(line: str) -> bool:
    """Says whether a line is a command or a call to copy, which nobody may cut."""
    return "hftrace " in line or "from_pretrained(" in line


def show_all(path: str, other: str, chance: random.Random, effort: int) -> str:
    """Reads a trace as the commands do; returns ``refused`` or ``read``.

    Args:
        path: The trace.
        other: A trace that is whole, to compare it with.
        chance: Which views, widths and options are tried.
        effort: How many of the ways to look at it are, besides the default screen and all views.
    """
    if _shown(chance, "show", path):
        for words in (["compare", path, other], ["check", path, "--max-time", "90s"]):
            if call(*words)[0] == 0:
                raise BrokenOutputError(f"show refuses it, and {words[0]} does not")
        return "refused"
    first, second = chance.choice(((path, other), (other, path), (path, path)))
    table = chance.choice(("tensors", "spans", "files"))
    view = chance.choice(list(VIEWS))
    number = str(chance.choice((1, 1, 2)))
    every = ["--view", "all"]
    extra = chance.choice(
        (["--sort", chance.choice(compare.SORTS)], every, ["--view", chance.choice(COMPARED)])
    )
    ways: list[Callable[[], object]] = [
        lambda: check_json("show", path, "--view", view, "--json"),
        lambda: check_json("show", path, "--json"),
        lambda: _shown(
            chance, "show", path, "--view", table, "--filter", chance.choice(FILTERS), "--limit", "0"
        ),
        lambda: _shown(chance, "show", path, "--load", number, *every, "--depth", "0", "--min-ms", "0"),
        lambda: _shown(chance, "compare", first, second),
        lambda: _shown(chance, "compare", first, second, *extra),
        lambda: check_json("compare", first, second, "--json"),
        lambda: call("compare", first, second, "--format", "markdown"),
        lambda: _shown(chance, "check", path, *BUDGETS, *FORBIDDEN, "--baseline", second),
        lambda: check_json("check", path, *BUDGETS, *FORBIDDEN, "--json"),
        lambda: check_json("export", path, "--format", chance.choice(("chrome", "speedscope"))),
        lambda: check_json("export", path, other, "--format", "chrome"),
        lambda: call("show", path, "--format", "markdown", chance.choice(("--redact", "--no-redact"))),
        lambda: _shown(chance, "show", path, *every, "--redact"),
        lambda: export(path, chance),
    ]
    _shown(chance, "show", path, *every)
    for way in chance.sample(ways, min(effort, len(ways))):
        way()
    return "read"


def export(path: str, chance: random.Random) -> None:
    """Writes a trace in some format, whose package may not be there."""
    name = chance.choice(list(FORMATS))
    options = ["--table", chance.choice(TABLES)] if FORMATS[name].is_table else []
    options += ["--tensors"] if name == "otlp" and chance.random() < 0.5 else []
    options += ["--redact"] if chance.random() < 0.3 else []
    call("export", path, "--format", name, *options, "-o", f"{path}.out", "--force")


def _shown(chance: random.Random, *arguments: str) -> int:
    """Runs a command that draws, at some width; returns its exit code."""
    width = chance.choice(WIDTHS)
    code, text, _ = call(*arguments, "--width", str(width))
    check_text(text, width)
    return code


def try_trace(data: bytes, folder: Path, other: Path, chance: random.Random, effort: int) -> str:
    """Tries one damaged trace."""
    path = folder / f"changed.json{'.gz' if data[:2] == bytes((0x1F, 0x8B)) else ''}"
    path.write_bytes(data)
    return show_all(str(path), str(other), chance, effort)


def try_run(run: Path, folder: Path, other: Path, chance: random.Random, effort: int) -> str:
    """Recovers one damaged run, and reads what came of it."""
    target = folder / "recovered.json"
    target.unlink(missing_ok=True)
    words = ["recover", str(run), "-o", str(target), "--width", "80", *chance.choice(([], ["--delete"]))]
    code, text, said = call(*words)
    if not target.exists():
        if code == 0 or not any(run.iterdir()):
            raise BrokenOutputError(f"no trace, exit code {code}, {said[-300:]}")
        return "no trace"
    check_text(text, 80)
    if show_all(str(target), str(other), chance, effort) == "refused":
        raise BrokenOutputError(f"recover wrote what is refused: {call('show', str(target))}")
    if not run.exists() and "damaged_lines" in (Trace.open(target).header.get("lost") or {}):
        raise BrokenOutputError("a run with damaged lines was deleted")
    return "recovered"


def limit_memory(mebibytes: int) -> None:
    """Holds this process to so much address space."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (mebibytes << 20, hard))


def peak_bytes() -> int:
    """Returns the most that was resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def small_documents() -> list[changes.Document]:
    """Returns the smallest samples of the repository, parsed."""
    return [json.loads(path.read_bytes()) for path in sorted(DATA.glob("trace-*.json"))]


def load_documents(names: Sequence[str] = ()) -> list[changes.Document]:
    """Returns the samples of the repository, parsed; and other files by name."""
    paths = [*sorted(DATA.glob("trace-*.json")), *sorted(DATA.glob("gpu/*.json.gz"))]
    paths += [path for path in sorted(EXAMPLES.glob("*.json")) if path.stat().st_size < 60_000]
    paths += map(Path, names)
    return [
        json.loads(gzip.decompress(data) if (data := path.read_bytes())[:2] == b"\x1f\x8b" else data)
        for path in paths
    ]


def seed_runs() -> list[Path]:
    """Returns the runs of the repository."""
    return sorted((DATA / "runs").iterdir())


class Tries:
    """Damages and tries, and keeps what has failed.

    Args:
        folder: Where the damaged files lie while they are tried.
        seed: What they are damaged by.
        keep: Where what has failed is kept; None for nowhere.
        documents: The traces to damage.
        effort: See :func:`show_all`.
    """

    def __init__(
        self, folder: Path, seed: int, keep: Path | None, documents: list[changes.Document], effort: int
    ) -> None:
        self.report = Report()
        self._folder, self._seed, self._keep, self._documents = folder, seed, keep, documents
        self._effort = effort
        self._other = EXAMPLES / "llama-D-5.23.0.json"

    def trace(self, number: int) -> None:
        """Tries the damaged trace of a number."""
        chance = random.Random(f"{self._seed} trace {number}")
        data = changes.changed_trace(self._documents, chance)
        with self._noted("trace", number):
            came = try_trace(data, self._folder, self._other, chance, self._effort)
            self.report.counts[f"traces {came}"] += 1

    def run(self, number: int) -> None:
        """Tries the damaged run of a number."""
        chance = random.Random(f"{self._seed} run {number}")
        run = self._changed_run(chance)
        with self._noted("run", number):
            came = try_run(run, self._folder, self._other, chance, self._effort)
            self.report.counts[f"runs {came}"] += 1

    def command(self, number: int) -> None:
        """Tries one through the real command."""
        chance = random.Random(f"{self._seed} command {number}")
        if number % 4 == 0:
            words = [
                "recover",
                str(self._changed_run(chance)),
                "-o",
                str(self._folder / "recovered.json"),
                "--force",
            ]
        else:
            path = self._folder / "changed.json"
            path.write_bytes(changes.changed_trace(self._documents, chance))
            words = chance.choice(
                (["show", str(path)], ["show", str(path), "--view", "all"], ["show", str(path), "--json"],
                 ["compare", str(path), str(self._other)], ["check", str(path), *BUDGETS])
            )  # fmt: skip
        with self._noted("command", number):
            done = subprocess.run(
                [sys.executable, "-m", "hftrace", *words],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SECONDS * 4,
            )
            if (
                "Traceback" in done.stderr
                or done.returncode not in (0, 1, 2, 3)
                or "bug of hftrace" in done.stderr
            ):
                raise BrokenOutputError(f"{words[0]}: {done.returncode}\n{done.stderr[-3000:]}")
            self.report.counts[f"commands with exit code {done.returncode}"] += 1

    def _changed_run(self, chance: random.Random) -> Path:
        run = self._folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(chance.choice(seed_runs()), run)
        changes.change_run(run, chance)
        return run

    @contextlib.contextmanager
    def _noted(self, what: str, number: int) -> Iterator[None]:
        started = time.perf_counter()
        try:
            with _time_limit():
                yield
        except (Exception, HangError) as error:
            self._note(f"{what} {number}", error)
        took = time.perf_counter() - started
        self.report.slowest = max(self.report.slowest, took)
        self.report.peak_bytes = max(self.report.peak_bytes, peak_bytes())

    def _note(self, which: str, error: BaseException) -> None:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "hftrace" in frame.filename]
        last = frames[-1] if frames else None
        where = f"{Path(last.filename).name}:{last.lineno} {last.name}" if last else ""
        kind = (
            f"{type(error).__name__} at {where}" if where else f"{type(error).__name__}: {str(error)[:60]!r}"
        )
        self.report.counts["failures"] += 1
        self.report.kinds[kind] += 1
        if self.report.kinds[kind] > 1:
            return
        chain = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-5:]))
        self.report.failures.append(f"{which}: {kind}: {str(error)[:500]}\n    {chain}")
        if self._keep is not None:
            place = self._keep / which.replace(" ", "-")
            place.mkdir(parents=True, exist_ok=True)
            for name in ("changed.json", "changed.json.gz", "recovered.json"):
                if (self._folder / name).exists():
                    shutil.copy(self._folder / name, place)
            if which.startswith(("run", "command")) and (self._folder / "run").exists():
                shutil.copytree(self._folder / "run", place / "run", dirs_exist_ok=True)


def _try_all(tries: Tries, asked: argparse.Namespace) -> None:
    started = time.perf_counter()
    for count, each in (
        (asked.traces, tries.trace),
        (asked.journals, tries.run),
        (asked.commands, tries.command),
    ):
        for number in range(asked.first, asked.first + count):
            each(number)
            if number % 500 == 499:
                gc.collect()
                print(f"{time.perf_counter() - started:.0f} s: {dict(tries.report.counts)}", file=sys.stderr)


def main() -> int:
    """Tries as many as asked, and prints what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=int, default=10_000)
    parser.add_argument("--journals", type=int, default=2_000)
    parser.add_argument("--commands", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--from", dest="first", type=int, default=0, help="Number of the first.")
    parser.add_argument("--memory", type=int, default=300, help="MiB of address space.")
    parser.add_argument("--effort", type=int, default=4, help="Ways to look at each, of thirteen.")
    parser.add_argument("--keep", type=Path, help="Where what has failed is kept.")
    parser.add_argument("more", nargs="*", help="Other traces to damage.")
    asked = parser.parse_args()
    limit_memory(asked.memory)
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        tries = Tries(Path(folder), asked.seed, asked.keep, load_documents(asked.more), asked.effort)
        with contextlib.suppress(KeyboardInterrupt):  # what came of it until then
            _try_all(tries, asked)
    report = tries.report
    for text in report.failures:
        print(text)
    for kind, count in report.kinds.most_common():
        print(f"{count:6,} x {kind}")
    print({**report.counts, "slowest_s": round(report.slowest, 2), "peak_MiB": report.peak_bytes >> 20})
    return bool(report.failures)


if __name__ == "__main__":
    sys.exit(main())
