"""A few kills of ``kills.py`` at moments that are known, and other ways to lose a trace: none does."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from kills import Kill, Place, Victim, die
from processes import COMMAND, command, environment, finish

import hftrace

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.once

KILLS = (
    Kill("supervisor", "writing", 0.2),
    Kill("sampler", "weights", 0.0),
    Kill("all", "resolve", 0.0),
)
# Whether the trace is written by then is a matter of how busy the machine is.
HOW = {"supervisor": {"recovered", "written"}, "sampler": {"written"}, "all": {"recovered"}}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("kills"))


def three_times_control_c(place):
    victim = Victim(place, "control-c", Kill("", "weights", 0.0))
    victim.child()
    victim.wait_placed(10)
    for _ in range(3):
        os.killpg(victim.process.pid, signal.SIGINT)
    return victim, finish(victim.process, victim.folder)


def deleted_while_it_loads(place):
    victim = Victim(place, "deleted", Kill("", "weights", 0.0))
    victim.child()
    victim.wait_placed(40)
    for run in victim.folder.glob(".hftrace-run-*"):
        shutil.rmtree(run)
    return victim, finish(victim.process, victim.folder)


def no_room_for_what_is_printed(place):
    folder = place.folder / "full"
    folder.mkdir()
    words = [*COMMAND, "load", str(place.checkpoint), "-o", "-"]
    with open("/dev/full", "wb") as full:
        process = subprocess.Popen(
            words,
            cwd=folder,
            env=environment({"TMPDIR": str(folder)}),
            stdout=full,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        _, said = process.communicate(timeout=180)
    return folder, process.returncode, said.decode()


@pytest.fixture(scope="module")
def ends(place):
    others = (three_times_control_c, deleted_while_it_loads, no_room_for_what_is_printed)
    with ThreadPoolExecutor(2) as pool:
        futures = {kill: pool.submit(die, place, f"kill-{kill.target}", kill) for kill in KILLS}
        futures |= {other: pool.submit(other, place) for other in others}
        yield lambda name: futures[name].result()


@pytest.mark.parametrize("kill", KILLS, ids=str)
def test_a_kill_leaves_what_happened(ends, kill):
    assert ends(kill) in HOW[kill.target]


def test_who_asks_three_times_has_the_trace_or_the_journal(ends):
    victim, done = ends(three_times_control_c)
    assert done.code == 130
    assert "Traceback" not in done.stderr
    out = victim.folder / "out.json"
    if not out.exists():
        (said,) = re.findall(r"`hftrace (recover .*?)`", done.stderr)
        assert command(*shlex.split(said), "-o", "out.json", "-q", cwd=victim.folder).code == 0
    trace = hftrace.Trace.open(out)
    assert trace.outcome["last_tensor"] in {name for _, name in victim.placed()}


def test_a_folder_that_is_deleted_takes_no_trace_with_it(ends):
    victim, done = ends(deleted_while_it_loads)
    assert done.code == 0, done.stderr
    trace = hftrace.Trace.open(victim.folder / "out.json")
    assert trace.outcome["status"] == "ok"
    assert {row.provenance for row in trace.tensors if row.kind == "parameter"} == {"checkpoint"}
    assert trace.header["command"] == "load"
    assert any(row.rss_anon_bytes for row in trace.samples)
    assert not list(victim.folder.glob(".hftrace*"))


def test_a_trace_that_cannot_be_printed_can_be_made_again(ends):
    folder, code, said = ends(no_room_for_what_is_printed)
    assert code == 1
    (words,) = re.findall(r"`hftrace (recover .*?)`", said)
    done = command(*shlex.split(words), "-o", "out.json", "-q", "--delete", cwd=folder)
    assert done.code == 0, done.stderr
    assert hftrace.Trace.open(folder / "out.json").outcome["status"] == "ok"
    assert not list(folder.glob(".hftrace*"))
