"""Standard streams that are closed, full, or interrupted: one sentence at most, and never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

import handmade

pytestmark = [pytest.mark.process, pytest.mark.once]


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    handmade.sharded().save(folder / "good.json")
    return folder


def shell(traces, command):
    """Runs a command line of a shell, in which ``hftrace`` is this one."""
    line = f'hftrace() {{ "{sys.executable}" -m hftrace "$@"; }}; {command}'
    return subprocess.run(
        ["bash", "-c", line], cwd=traces, capture_output=True, text=True, check=False, timeout=120
    )


SHOWN = ("show good.json", "show good.json --view tensors --json", "show good.json --json", "--help")


@pytest.mark.parametrize("arguments", SHOWN)
def test_a_full_device_is_one_sentence(traces, arguments):
    done = shell(traces, f"hftrace {arguments} >/dev/full")
    assert done.returncode == 1
    assert done.stderr == "hftrace: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize("arguments", SHOWN)
def test_a_closed_stdout_is_silence(traces, arguments):
    done = shell(traces, f"hftrace {arguments} >&-")
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_closed_does_not_get_into_a_file(traces):
    done = shell(
        traces, "hftrace compare good.json b=good.json --json >&- 2>&- <&-; hftrace show good.json --json"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("{")


@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full", "2>&- >&-", ">/dev/full 2>/dev/full"])
@pytest.mark.parametrize(("arguments", "code"), [("show good.json", 0), ("show nosuch.json", 2), ("show", 2)])
def test_an_error_that_nobody_can_be_told_keeps_its_code(traces, where, arguments, code):
    expected = 1 if code == 0 and ">/dev/full 2" in where else code
    assert shell(traces, f"hftrace {arguments} {where}").returncode == expected


def test_the_reader_that_leaves_is_no_failure_to_speak_of(traces):
    done = shell(traces, "hftrace show good.json --view tensors --json | head -1")
    assert (done.stdout, done.stderr) == ("[\n", "")


@pytest.mark.parametrize("after", [0.04, 0.08, 0.12, 0.2])
def test_an_interrupt_at_the_start_has_no_traceback(traces, after):
    # What Python itself does before the first line of a program is not ours to guard.
    code = (
        "import builtins, time; real = builtins.__import__\n"
        "def slow(*arguments, **options):\n    time.sleep(0.005)\n    return real(*arguments, **options)\n"
        "from hftrace.cli import main\nbuiltins.__import__ = slow\n"
        "print('here', flush=True)\nmain.main(['show', 'good.json'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=traces, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        child.stdout.readline()
        time.sleep(after)
        os.kill(child.pid, signal.SIGINT)
        _, said = child.communicate(timeout=60)
    assert said in ("hftrace: interrupted\n", "\nhftrace: interrupted\n"), said
    assert child.returncode == 130


def test_importing_the_entry_imports_nothing_of_weight(run_python):
    code = (
        "import sys; before = set(sys.modules); import hftrace.cli.main\n"
        "print(sorted({'click', 'rich', 'json', 'threading'} & (set(sys.modules) - before)))"
    )
    assert run_python("-c", code).stdout == "[]\n"
