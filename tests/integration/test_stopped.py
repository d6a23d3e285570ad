"""A block whose journal stops in the middle: what came after that is unknown, and is said to be."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

import pytest
import small_llama

import hftrace
from hftrace.analysis.budgets import check, limit
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.findings.silence import doubts
from hftrace.analysis.summary import summary
from hftrace.analysis.time.whose import failed_loads
from hftrace.cli.main import main
from hftrace.render.views import load as view
from hftrace.render.views.options import ViewOptions
from hftrace.system.descriptors import Descriptor

transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a device that is always full"),
]
AFTER_SECONDS = 0.3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    place = tmp_path_factory.mktemp("stopped")
    small_llama.write(place)
    return place


def load(path):
    return transformers.LlamaForCausalLM.from_pretrained(path)


def fill_disk(recorded):
    """Lets every write to the journal of a recording fail from here on."""
    recorder = recorded._tracer.recorder
    recorder.writer.flush()
    own, recorder.writer._file = recorder.writer._file, Descriptor.open("/dev/full", os.O_WRONLY)
    own.close()


@pytest.fixture
def in_a_load(monkeypatch):
    """Calls something in the middle of each load, when the model is made."""

    def install(action):
        made = transformers.LlamaModel.__init__

        def init(self, *arguments, **keywords):
            action()
            made(self, *arguments, **keywords)

        monkeypatch.setattr(transformers.LlamaModel, "__init__", init)

    return install


def screen(trace, width=100):
    blocks = view("summary").brief(trace, ViewOptions(), set())
    return "\n".join("".join(text for text, _ in line) for block in blocks for line in block.lines(width))


def exit_code(*arguments):
    with pytest.raises(SystemExit) as left:
        main(["check", *map(str, arguments)])
    return left.value.code


def statuses(trace):
    return [row.status for row in trace.spans if row.phase == "load" and row.parent is None]


@pytest.fixture(scope="module")
def stopped(checkpoint, tmp_path_factory):
    """A block of two loads, a full disk, two loads of which one fails, and a while."""
    place = tmp_path_factory.mktemp("out")
    recorded = hftrace.trace(place / "out.json", sample_hz=0)
    with recorded:
        began = time.monotonic()
        load(checkpoint)
        load(checkpoint)
        fill_disk(recorded)
        load(checkpoint)
        with contextlib.suppress(OSError):
            load(place / "none")
        time.sleep(AFTER_SECONDS)
        took = time.monotonic() - began
    return hftrace.Trace.open(place / "out.json"), took, place / "out.json"


def test_the_session_lasts_until_the_block_has_ended(stopped):
    trace, took, _ = stopped
    facts = summary(trace)
    assert facts["wall_ns"] >= took * 1e9
    missed = [part for part in facts["parts"] if part["kind"] == "unrecorded"]
    assert len(missed) == 1
    assert missed[0]["duration_ns"] >= AFTER_SECONDS * 1e9
    assert facts["session"]["recorded_until_ns"] + missed[0]["duration_ns"] == facts["session"]["end_ns"]
    assert facts["session_attributed"] <= 1 - missed[0]["duration_ns"] / facts["wall_ns"] + 1e-9
    assert facts["outside_ns"] + facts["loads_wall_ns"] + missed[0]["duration_ns"] == facts["wall_ns"]


def test_loads_that_came_after_it_are_counted(stopped):
    trace, _, _ = stopped
    assert statuses(trace) == ["ok", "ok"]
    assert trace.header["lost"]["loads"] == {"ok": 1, "error": 1}
    assert trace.outcome["status"] == "ok"
    assert not failed_loads(trace)


def test_the_first_screen_says_so_at_its_head(stopped):
    trace, _, _ = stopped
    lines = screen(trace).splitlines()
    assert "ok, not all recorded" in lines[0]
    assert lines[2].startswith("incomplete  the journal stopped after ")
    text = " ".join(" ".join(lines).split())
    assert "1 load that ended well, 1 load that failed" in text
    assert "unrecorded" in text
    assert "100 % of it by name" not in text
    assert not [finding for finding in findings(trace) if finding.rule == "R39"]
    assert "incomplete" in [reason.kind for reason in doubts(trace)]


def test_no_budget_is_kept_by_what_was_not_recorded(stopped, capsys):
    trace, _, path = stopped
    found = check(trace, [limit("--max-time", 10**12), limit("--max-load-time", 1)], ["pickle"])
    assert [each.status for each in found] == ["unknown", "broken", "unknown"]
    assert "the journal stopped" in found[0].detail
    for more, code in (([], 1), (["--allow-unknown"], 0)):
        assert exit_code(path, "--max-time", "90s", *more) == code
    assert exit_code(path, "--max-load-time", "90s", "--load", "1") == 0
    assert exit_code(path, "--baseline", path) == 1
    assert "its journal stopped" in capsys.readouterr().err


def test_stderr_says_so_when_the_block_ends(checkpoint, capsys, in_a_load):
    recorded = hftrace.trace(None, sample_hz=0)
    in_a_load(lambda: fill_disk(recorded))
    with recorded:
        load(checkpoint)
    said = capsys.readouterr().err
    assert (
        said.count("hftrace: the journal stopped (No space left on device), so this trace is incomplete") == 1
    )


def test_a_load_that_was_open_then_ends_as_it_did(checkpoint, in_a_load):
    recorded = hftrace.trace(None, sample_hz=0)
    in_a_load(lambda: fill_disk(recorded))
    with recorded:
        load(checkpoint)
        load(checkpoint)
    assert statuses(recorded.trace) == ["ok"]
    assert recorded.trace.header["lost"]["loads"] == {"ok": 1}
    assert summary(recorded.trace)["session_attributed"] < 1


def test_an_exception_that_left_it_is_its_own(checkpoint, in_a_load):
    recorded = hftrace.trace(None, sample_hz=0)

    def action():
        fill_disk(recorded)
        raise ValueError("no such luck")

    in_a_load(action)
    with pytest.raises(ValueError, match="no such luck"), recorded:
        load(checkpoint)
    assert statuses(recorded.trace) == ["error"]
    assert recorded.trace.outcome["died_in"] is None
    assert "no such luck" in screen(recorded.trace)


def test_a_load_that_nobody_saw_end_is_unknown(checkpoint, in_a_load, globals_put_back):
    recorded = hftrace.trace(None, sample_hz=0)
    inside, over = threading.Event(), threading.Event()

    def action():
        fill_disk(recorded)
        inside.set()
        over.wait(30)

    in_a_load(action)
    thread = threading.Thread(target=load, args=[checkpoint])
    with recorded:
        thread.start()
        assert inside.wait(30)
    over.set()
    thread.join()
    trace = recorded.trace
    assert statuses(trace) == ["unknown"]
    assert summary(trace)["attributed"] is None
    assert not failed_loads(trace)
    text = " ".join(screen(trace).split())
    assert "how 1 load ended is not known" in text
    assert "not finished" not in text
    [result] = check(trace, [limit("--max-load-time", 10**12)], [])
    assert result.status == "unknown"


def test_ctrl_c_ends_a_wait_for_a_tensor_and_no_conversion(checkpoint, monkeypatch):
    """5.x waits for what its threads read in a method that is called ``convert``."""
    loading = pytest.importorskip("transformers.core_model_loading")
    materialize, calls = loading.WeightTransform.materialize_tensors, []

    def interrupted(self):
        calls.append(self)
        if len(calls) == 3:
            time.sleep(0.05)
            raise KeyboardInterrupt
        return materialize(self)

    monkeypatch.setattr(loading.WeightTransform, "materialize_tensors", interrupted)
    with pytest.raises(KeyboardInterrupt), hftrace.trace() as recorded:
        load(checkpoint)
    assert recorded.trace.outcome["last_phase"] == "weights"
    ended = [span for span in recorded.trace.spans if span.status != "ok" and span.parent is not None]
    assert {span.phase for span in ended} <= {"load", "weights"}
    assert any(span.function == "WeightRenaming.convert" for span in ended)
