"""Which tensors an initialiser writes, whatever way it takes to write them."""

from __future__ import annotations

import gc

import pytest

from hftrace.record.recorder import Recorder
from hftrace.record.write_watch import Watch
from hftrace.record.writes import WriteLog

torch = pytest.importorskip("torch")
nn = torch.nn


@pytest.fixture
def watched(tmp_path):
    """Returns a function from (tensors by name, what to do) to the names of those that were written."""

    def watch(tensors, action):
        recorder = Recorder(tmp_path)
        looking = Watch(recorder)
        looking.enter()
        try:
            with torch.no_grad():
                action()
        finally:
            looking.leave()
        written = {identity for identity, _, by in recorder.writes.among(tensors.values())}
        recorder.stop()
        assert recorder.error_count == 0
        return {name for name, tensor in tensors.items() if id(tensor) in written}

    return watch


def fresh():
    return {name: nn.Parameter(torch.ones(4, 3)) for name in "abc"}


@pytest.mark.parametrize(
    "write",
    [
        lambda p: nn.init.normal_(p),
        lambda p: nn.init.constant_(tensor=p, val=2.0),
        lambda p: nn.init.orthogonal_(p),
        lambda p: p.data.zero_(),
        lambda p: p.data[1].fill_(3),
        lambda p: p[2].zero_(),
        lambda p: p.__setitem__(0, 5.0),
        lambda p: p.data.view(-1)[3:5].uniform_(),
        lambda p: p.copy_(torch.zeros(4, 3)),
        lambda p: p.mul_(2),
        lambda p: p.__imul__(2),
        lambda p: torch.add(p, 1, out=p.data),
        lambda p: setattr(p, "data", torch.zeros(4, 3)),
        lambda p: nn.init.trunc_normal_(p.data.T),
    ],
)
def test_every_way_to_write(watched, write):
    tensors = fresh()
    assert watched(tensors, lambda: write(tensors["b"])) == {"b"}


@pytest.mark.parametrize(
    "read",
    [
        lambda p: p + 1,
        lambda p: p.data.clone().zero_(),
        lambda p: p.requires_grad_(False),
        lambda p: p.sum().item(),
        lambda p: p.shape,
        lambda p: torch.empty(3).copy_(p[0]),
        lambda p: torch.zeros(4, 3).add_(p),
        lambda p: p.detach().numpy(),
        lambda p: nn.init.normal_(torch.empty(5)),
    ],
)
def test_what_only_reads(watched, read):
    tensors = fresh()
    assert watched(tensors, lambda: read(tensors["b"])) == set()


def test_parts_of_one_memory_are_told_apart(watched):
    whole = torch.ones(8)
    tensors = {"left": nn.Parameter(whole[:4]), "right": nn.Parameter(whole[4:])}

    def write():
        tensors["left"].sum()
        tensors["right"].data.zero_()

    assert watched(tensors, write) == {"right"}


def test_a_tensor_without_data_is_not_written(watched):
    tensors = {"a": nn.Parameter(torch.empty(3, device="meta"))}
    assert watched(tensors, lambda: nn.init.normal_(tensors["a"])) == set()


def test_values_and_random_numbers_are_those_of_an_unwatched_run(watched):
    def write(tensors):
        nn.init.normal_(tensors["a"])
        tensors["b"].data.uniform_()
        nn.init.orthogonal_(tensors["c"])

    torch.manual_seed(3)
    plain = fresh()
    with torch.no_grad():
        write(plain)
    after = torch.rand(3)
    torch.manual_seed(3)
    seen = fresh()
    assert watched(seen, lambda: write(seen)) == {"a", "b", "c"}
    assert torch.equal(after, torch.rand(3))
    assert all(torch.equal(plain[name], seen[name]) for name in plain)


def test_an_exception_passes_and_the_watch_ends(tmp_path):
    recorder = Recorder(tmp_path)
    looking = Watch(recorder)
    looking.enter()
    with pytest.raises(RuntimeError, match="size"):
        torch.ones(3).copy_(torch.ones(4))
    looking.leave()
    assert not torch.overrides._get_current_function_mode_stack()
    assert recorder.state.watching is False
    recorder.stop()


def test_nothing_of_the_host_is_kept(tmp_path):
    recorder = Recorder(tmp_path)
    looking = Watch(recorder)
    tensor = nn.Parameter(torch.ones(3))
    looking.enter()
    tensor.data.zero_()
    looking.leave()
    identity = id(tensor)
    del tensor
    gc.collect()
    other = nn.Parameter(torch.ones(3))
    assert not [entry for entry in recorder.writes.among([other]) if entry[0] == identity]
    recorder.stop()


def test_a_watch_inside_another_does_nothing(tmp_path):
    recorder = Recorder(tmp_path)
    outer, inner = Watch(recorder), Watch(recorder)
    tensor = nn.Parameter(torch.ones(3))
    outer.enter()
    inner.enter()
    inner.leave()
    tensor.data.zero_()
    outer.leave()
    assert [by for _, _, by in recorder.writes.among([tensor])] == ["initializer"]
    recorder.stop()


def test_what_was_written_is_written_where_it_lies_after_a_move():
    """As Module.to does it for a device of another kind: new parameters in the places of the old."""
    log, model = WriteLog(), torch.nn.Linear(2, 2)
    assert not log
    log.note(model.weight, "initializer", 5)
    written = log.below([("", model)])
    assert [(each.name, each.time_ns, each.by) for each in written] == [("weight", 5, "initializer")]
    model.weight = torch.nn.Parameter(model.weight.detach().clone())
    assert list(log.among([*model.parameters()])) == []
    log.moved(written)
    assert list(log.among([*model.parameters()])) == [(id(model.weight), 5, "initializer")]
    model.weight = None
    log.moved(written)  # it is gone: nothing is there to be noted
    assert list(log.among([*model.parameters()])) == []
