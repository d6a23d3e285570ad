"""The live view of real loads, on a terminal and elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from terminals import cpu_ns, on_terminal

from hftrace import units

pytestmark = [pytest.mark.integration, pytest.mark.process, pytest.mark.sparse]


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """A checkpoint whose load can be watched: 300 MB in four files, to be cast."""
    place = tmp_path_factory.mktemp("live") / "big"
    command = ["synth", "llama-2-7b", "--size", "300MB", "--max-shard-size", "80MB", "-o", place]
    subprocess.run(
        [sys.executable, "-m", "hftrace.cli.main", *map(str, command)], check=True, capture_output=True
    )
    return place


def load(big, tmp_path, *more, **options):
    return on_terminal(
        "load", big, "--dtype", "float32", "-o", tmp_path / "t.json", *more, cwd=tmp_path, **options
    )


def assert_clean(shown):
    """Nothing of the block is left, and the cursor is there."""
    text = shown.screen.text()
    assert shown.screen.cursor, "the cursor is hidden"
    assert not re.search(r"^(tensors|memory) +[█▒░]", text, re.M), text
    assert "remaining" not in text
    # The head of a frame that could not be taken back.
    assert not re.search(r"^(import|weights|resolve|after|making) .* \d+\.\d s$", text, re.M), text
    assert not re.search(r"shards? to come", text)
    return text


def test_a_load_on_a_terminal(big, tmp_path):
    shown = load(big, tmp_path, "--color", "never")
    assert shown.code == 0
    text = assert_clean(shown)
    assert text.splitlines()[-1] == f"Wrote {tmp_path / 't.json'}"
    seen = shown.raw.decode()
    for word in ("import transformers", "anonymous", "shards", "placed", "making the trace"):
        assert word in seen, word
    assert len(shown.frames) >= 5
    for number, began in enumerate(shown.frames):
        within = sum(began <= frame < began + 1 for frame in shown.frames[number:])
        assert within <= 10, "frames of one second"


def test_the_same_load_once_more(big, tmp_path, monkeypatch):
    """What the last trace says stands in the block; where anything differs, nothing is said."""
    from hftrace.launch.earlier import last_time
    from hftrace.launch.request import LoadRequest, LoadSpec
    from hftrace.schema.trace import Trace

    assert b"last time" not in load(big, tmp_path, "--force").raw
    trace = Trace.open(tmp_path / "t.json")
    (span,) = [span for span in trace.spans if span.phase == "load" and span.parent is None]
    returned = units.duration(span.end_ns - trace.header["session"]["start_ns"])
    shown = load(big, tmp_path, "--force", "--color", "never")
    seen = shown.raw.decode()
    assert f"last time        returned after {returned}, warm cache, peak " in seen
    assert re.search(r"\d s, about \d+ s left", seen)
    assert "last time" not in assert_clean(shown)

    def found(keywords, **more):
        return last_time(LoadRequest(LoadSpec(str(big), keywords=keywords), **more), tmp_path)

    (last,) = [
        span for span in Trace.open(tmp_path / "t.json").spans if span.phase == "load" and not span.parent
    ]
    known = found({"dtype": "float32"})
    assert known.returned_ns == last.end_ns
    # The cast copy alone is 600 MB; the process and the mapped files come on top.
    assert 600e6 < known.peak_bytes < 3e9
    assert found({"dtype": "bfloat16"}) is None
    assert found({"dtype": "float32"}, cache="cold") is None
    assert found({"dtype": "float32"}, python="/usr/bin/another") is None
    with monkeypatch.context() as patched:
        patched.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")
        assert found({"dtype": "float32"}) is None
    (tmp_path / "a.json").write_text(f'{{"header":{{"asked_digest":"{trace.header["asked_digest"]}","b":')
    assert found({"dtype": "float32"}) == known, "one that is damaged is passed over"
    weights = next(big.glob("*.safetensors"))
    before = weights.stat()
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    try:
        assert found({"dtype": "float32"}) is None, "the weights are others now"
    finally:
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("columns", [40, pytest.param(140, marks=pytest.mark.long)])
def test_narrow_and_wide_terminals(big, tmp_path, columns):
    shown = load(big, tmp_path, columns=columns)
    assert shown.code == 0
    assert_clean(shown)


def test_a_window_that_is_made_narrower(big, tmp_path):
    import fcntl
    import struct
    import termios

    at = []

    def narrow(pid, seconds, raw):
        if not at and b"import transformers" in raw:
            with open(f"/proc/{pid}/fd/2", "wb", buffering=0) as terminal:
                fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 60, 0, 0))
            at.append(len(raw))

    shown = load(big, tmp_path, "--color", "never", act=narrow)
    assert shown.code == 0
    after = shown.raw[at[0] + 2000 :].decode("utf-8", "replace").partition("making the trace")[0]
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", after).replace("\r", "\n").splitlines()
    frames = [line for line in lines if line.startswith("memory")]
    assert frames
    assert max(map(len, frames)) <= 60


def test_what_the_load_prints_stands_above_the_block(big, tmp_path):
    # A model of the checkpoint's own that says something, with a bar that is drawn over and over.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, atexit\n"
        "if sys.argv[:1] and 'bootstrap' in sys.argv[0] or 'bootstrap' in ' '.join(sys.orig_argv):\n"
        "    sys.stderr.write('one of its own lines\\n')\n"
        "    sys.stderr.write('bar 10%\\rbar 50%\\rbar 100%\\n')\n"
        "    sys.stderr.flush()\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    shown = load(big, tmp_path, env={"PYTHONPATH": path})
    text = assert_clean(shown)
    lines = text.splitlines()
    assert lines.index("one of its own lines") < lines.index("bar 100%"), text
    assert "bar 50%" not in text


def test_a_load_that_fails(big, tmp_path):
    shown = load(big, tmp_path, "--attn-implementation", "no_such_thing")
    assert shown.code == 1
    assert "the load failed" in assert_clean(shown).replace("\n", " ")


def test_a_load_at_its_memory_limit(big, tmp_path):
    shown = load(big, tmp_path, "--memory-limit", "450MB")
    assert shown.code == 3
    assert "450 MB" in assert_clean(shown)
    assert "of 450 MB limit" in shown.raw.decode(), "what the memory is held against"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long)]
)
def test_a_load_that_is_interrupted(big, tmp_path, number, code):
    sent = []

    def interrupt(pid, seconds, raw):
        if not sent and b"import transformers" in raw:
            sent.append(True)
            # As a terminal does it: to all that run on it.
            (os.killpg if number == signal.SIGINT else os.kill)(pid, number)

    shown = load(big, tmp_path, act=interrupt)
    assert shown.code == code
    assert_clean(shown)


def test_a_terminal_that_cannot_move_its_cursor_has_lines(big, tmp_path):
    shown = load(big, tmp_path, "--color", "never", env={"TERM": "dumb"})
    assert shown.code == 0
    assert b"\x1b" not in shown.raw
    assert re.search(rb"^import +[0-9.]+ m?s ", shown.raw, re.M)


@pytest.mark.long
def test_no_colours_on_a_terminal(big, tmp_path):
    shown = load(big, tmp_path, env={"NO_COLOR": "1"})
    assert shown.code == 0
    assert not re.search(rb"\x1b\[[0-9;]*[1-9][0-9;]*m", re.sub(rb"\x1b\[[12]m", b"", shown.raw))
    assert_clean(shown)


def test_quiet_means_quiet(big, tmp_path):
    shown = load(big, tmp_path, "--quiet")
    assert shown.screen.text().strip() == f"Wrote {tmp_path / 't.json'}"


def test_lines_where_stderr_is_no_terminal(big, tmp_path, run_cli):
    from hftrace import Trace

    done = run_cli("load", big, "--dtype", "float32", "-o", "t.json")
    assert done.returncode == 0
    assert "\x1b" not in done.stderr
    *phases, last = done.stderr.splitlines()
    assert last == "Wrote t.json"
    said = {}
    for line in phases:
        match = re.fullmatch(
            r"([a-z_]+) +([0-9.]+ m?s) +[0-9.]+ [kMG]?B anonymous +[0-9.]+ [kMG]?B file-backed", line
        )
        assert match, line
        said[match[1]] = match[2]
    assert {"import", "weights"} <= said.keys()
    weights = [span for span in Trace.open(tmp_path / "t.json").spans if span.phase == "weights"]
    assert said["weights"] == units.duration(max(span.duration_ns for span in weights)), "as the trace has it"
    assert run_cli("load", big, "--quiet", "-o", "q.json").stderr == "Wrote q.json\n"


@pytest.mark.long
def test_the_view_takes_next_to_nothing(big, tmp_path):
    spent = []

    def look(pid, seconds, raw):
        if b"remaining" in raw or b"import " in raw:
            spent.append((seconds, cpu_ns(pid)))

    shown = load(big, tmp_path, act=look)
    assert shown.code == 0
    # Between the first frame and the last one of a load; then the trace is made.
    (first, before), (last, after) = spent[0], max(each for each in spent if each[0] <= shown.frames[-2])
    share = (after - before) / 1e9 / (last - first)
    print(f"{share:.2%} of a core in {last - first:.1f} s")
    assert share <= 0.02, "1 % is the aim; other processes run beside this test"


def test_two_ranks_are_drawn_by_the_first(big, tmp_path):
    shown = on_terminal(
        *("--nproc-per-node", "2", "-m", "hftrace.cli.main", "load", big, "--dtype", "float32"),
        *("-o", tmp_path / "t.json", "--quiet"),
        cwd=tmp_path,
        module="torch.distributed.run",
    )
    assert shown.code == 0
    assert shown.frames == [], "quiet"
    shown = on_terminal(
        *("--nproc-per-node", "2", "-m", "hftrace.cli.main", "load", big, "--dtype", "float32"),
        *("-o", tmp_path / "t.json", "--force"),
        cwd=tmp_path,
        module="torch.distributed.run",
    )
    assert shown.code == 0, shown.screen.text()
    assert_clean(shown)
    for rank in (0, 1):
        assert re.search(rf"rank {rank} .*(import|weights)".encode(), shown.raw), rank
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["t.json"], "one trace of both"
    assert not list(tmp_path.glob(".hftrace-run-*"))


SEVERAL = {
    "compare": (
        *("--variant", "as-is: dtype=auto", "--variant", "wide: dtype=float32", "--repeat", "1"),
        *("-o", "out"),
    ),
    "tune": ("--dtype", "float32", "--budget", "45s", "-o", "out"),
    "bisect": (
        *("--good", "4.1.0", "--bad", "4.2.0", "--overlays", "overlays", "--class", "LlamaConfig"),
        *("-o", "out"),
    ),
}
TITLES = {"compare": rb"warm-up  wide  ", "tune": rb"round 1  plain  ", "bisect": rb"  4\.[12]\.0  "}


@pytest.mark.long
@pytest.mark.once
@pytest.mark.parametrize("command", sorted(SEVERAL))
def test_commands_that_load_again_and_again_leave_a_clean_screen(command, tmp_path):
    made = ["synth", "llama-2-7b", "--size", "20MB", "-o", tmp_path / "model"]
    subprocess.run(
        [sys.executable, "-m", "hftrace.cli.main", *map(str, made)], check=True, capture_output=True
    )
    real = Path(importlib.util.find_spec("transformers").origin).parent
    for version in ("4.1.0", "4.2.0"):
        (tmp_path / "overlays" / version).mkdir(parents=True)
        (tmp_path / "overlays" / version / "transformers").symlink_to(real)
    shown = on_terminal(
        command, "model", *SEVERAL[command], "--color", "never", cwd=tmp_path, env={"HFTRACE_CACHE": "cache"}
    )
    text = assert_clean(shown)
    # Two releases that are the same differ in nothing, which bisect leaves with 1; 3 is a budget that was too
    # small for this machine, which the screen has to survive as well.
    assert shown.code in {"bisect": (1,), "tune": (0, 3)}.get(command, (0,)), text
    assert len(shown.frames) >= 5, "the block was drawn"
    assert re.search(TITLES[command] + rb"[^\r\n]*(?:import|start) ", shown.raw), "which load it is"
    if shown.code != 3:
        assert "Wrote out" in text.splitlines()[-1]
