"""What torch records beside a load: begun before it, written after it, however it ends."""

import json
from types import SimpleNamespace

import pytest

from hftrace.record.child import beside as module
from hftrace.record.child.beside import BesideError, beside

torch = pytest.importorskip("torch")


class Recorder:
    """Collects errors, as a recorder does."""

    def __init__(self):
        self.state = SimpleNamespace(busy=False)
        self.errors = []

    def error(self, where, error):
        self.errors.append((where, str(error)))


@pytest.fixture
def cuda(monkeypatch):
    """A CUDA device whose allocator notes what it is asked for."""
    calls = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda.memory, "_record_memory_history", lambda **how: calls.append(("record", how))
    )
    monkeypatch.setattr(torch.cuda.memory, "_dump_snapshot", lambda path: calls.append(("dump", path)))
    return calls


def test_nothing_is_recorded_that_was_not_asked_for(monkeypatch):
    monkeypatch.setattr(module, "_started", lambda: pytest.fail("not asked for"))
    with beside(Recorder(), {"torch_profile": None}):
        pass


def test_the_history_is_written_after_a_load_that_fails(cuda):
    recorder = Recorder()
    before = []

    def load():
        before.extend(name for name, _ in cuda)
        raise MemoryError

    with pytest.raises(MemoryError), beside(recorder, {"memory_snapshot": "/run/snapshot.pickle"}):
        load()
    assert before == ["record"]
    assert cuda == [
        ("record", {"max_entries": module.MOST_MEMORY_EVENTS, "stacks": "python"}),
        ("dump", "/run/snapshot.pickle"),
        ("record", {"enabled": None}),
    ]
    assert recorder.errors == []


def test_an_error_of_the_history_is_no_error_of_the_load(cuda, monkeypatch):
    def dump(path):
        raise OSError("disk full")

    monkeypatch.setattr(torch.cuda.memory, "_dump_snapshot", dump)
    recorder = Recorder()
    with beside(recorder, {"memory_snapshot": "x"}):
        pass
    assert recorder.errors == [("memory snapshot", "disk full")]
    assert cuda[-1] == ("record", {"enabled": None})


def test_without_a_device_nothing_begins(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BesideError, match="no CUDA device"), beside(Recorder(), {"memory_snapshot": "x"}):
        pytest.fail("the load would begin")


def test_a_profiler_that_cannot_start_is_said(monkeypatch):
    def started():
        raise RuntimeError("busy")

    monkeypatch.setattr(module, "_started", started)
    with (
        pytest.raises(BesideError, match="cannot start here: busy"),
        beside(Recorder(), {"torch_profile": "x"}),
    ):
        pytest.fail("the load would begin")


def test_a_profile_has_marks_at_both_ends(tmp_path):
    path = tmp_path / "profile.json"
    recorder = Recorder()
    with beside(recorder, {"torch_profile": str(path)}):
        torch.ones(3).to(torch.bfloat16)
    assert recorder.errors == []
    marks = json.loads((tmp_path / "profile.json.clock").read_text())
    assert all(before <= inside <= after for before, inside, after in marks["at_start"] + marks["at_end"])
    names = [event.get("name") for event in json.loads(path.read_text())["traceEvents"]]
    for before, _, _ in marks["at_start"] + marks["at_end"]:
        assert f"{marks['name']} {before}" in names
    assert "aten::to" in names
