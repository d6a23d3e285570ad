"""Programs that open files with ``safe_open`` themselves: the loads, the files, which key is where."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import hftrace
from hftrace.analysis.findings.registry import findings

pytestmark = [pytest.mark.integration, pytest.mark.once]

FILES = ("part-1.safetensors", "part-2.safetensors")


class Net(torch.nn.Module):
    """A plain module."""

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Linear(32, 32)
        self.two = torch.nn.Linear(32, 4, bias=False)
        self.register_buffer("steps", torch.arange(7))


class FromFile(Net):
    """A plain module with a loader of its own, which puts parameters in place."""

    @classmethod
    def from_pretrained(cls, folder):
        made = cls()
        with safe_open(os.path.join(folder, FILES[0]), "pt") as opened:
            made.one.weight = torch.nn.Parameter(opened.get_tensor("one.weight"))
            made.one.bias = torch.nn.Parameter(opened.get_tensor("one.bias") + 1)
        with safe_open(os.path.join(folder, FILES[1]), "pt") as opened:
            made.load_state_dict({"two.weight": opened.get_tensor("two.weight")}, strict=False)
        return made


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(5)
    state = Net().state_dict()
    save_file({key: state[key] for key in ("one.weight", "one.bias", "steps")}, tmp_path / FILES[0])
    save_file({"two.weight": state["two.weight"]}, tmp_path / FILES[1])
    return tmp_path


def traced(load):
    with hftrace.trace(sample_hz=0) as recorded:
        result = load()
    assert not recorded.trace.header["errors"]
    return result, recorded.trace


def read(folder):
    """Reads all tensors, as vLLM's iterators do."""
    found = {}
    for name in FILES:
        with safe_open(folder / name, "pt") as opened:
            for key in opened.keys():  # noqa: SIM118
                found[key] = opened.get_tensor(key)
    return found


def sources(trace, load):
    """Returns file and key of each row that is said to be from a file."""
    rows = [row for row in trace.tensors if row.load == load.span and row.name is not None]
    return {row.name: (row.file, *row.keys) for row in rows if row.provenance == "checkpoint"}


WHOLE = {
    "one.weight": (FILES[0], "one.weight"),
    "one.bias": (FILES[0], "one.bias"),
    "two.weight": (FILES[1], "two.weight"),
    "steps": (FILES[0], "steps"),
}


@pytest.mark.parametrize("assign", [False, True])
def test_which_key_each_tensor_of_a_state_dict_is(folder, assign):
    model = Net()
    _, trace = traced(lambda: model.load_state_dict(read(folder), assign=assign))
    first, second, load = trace.loads
    assert [each.name for each in (first, second)] == [f"safe_open({name})" for name in FILES]
    assert sources(trace, load) == WHOLE
    assert {file.name for file in trace.files if file.opened} == set(FILES)
    for name, (file, key) in WHOLE.items():
        assert torch.equal(model.state_dict()[name], load_file(folder / file)[key])


def test_what_nobody_asked_for_did_not_go_astray(folder):
    model = torch.nn.Module()
    model.one = Net().one

    def load(names):
        found = read(folder)
        model.load_state_dict({new: found[old] for new, old in names.items()}, strict=False)

    _, trace = traced(lambda: load({"one.weight": "one.weight", "one.bias": "one.bias"}))
    assert set(sources(trace, trace.loads[-1])) == {"one.weight", "one.bias"}
    assert not [row for row in trace.tensors if row.kind == "unused"]
    assert not [found for found in findings(trace) if found.name == "unused-keys"]
    # What was handed over, and has no place, did.
    _, trace = traced(lambda: load({"one.weight": "one.weight", "misspelt": "two.weight"}))
    assert [row.keys for row in trace.tensors if row.kind == "unused"] == [["two.weight"]]


def test_what_was_changed_before_is_from_no_file(folder):
    def load():
        found = read(folder)
        found["one.weight"] = found["one.weight"] * 2
        found["two.weight"].add_(1)
        found["steps"] = found["steps"].to(torch.int32)
        Net().load_state_dict(found)

    _, trace = traced(load)
    assert sources(trace, trace.loads[-1]) == {"one.bias": WHOLE["one.bias"]}
    assert not [row for row in trace.tensors if row.kind == "unused"]


def test_a_part_of_a_tensor_is_not_the_tensor(folder):
    def load():
        small = torch.nn.Linear(32, 16)
        with safe_open(folder / FILES[0], "pt") as opened:
            given = {"weight": opened.get_slice("one.weight")[:16], "bias": opened.get_slice("one.bias")[16:]}
            small.load_state_dict(given)

    _, trace = traced(load)
    assert sources(trace, trace.loads[-1]) == {}


def test_another_name_in_the_model_is_the_same_key(folder):
    def load():
        layer = torch.nn.Linear(32, 32)
        found = read(folder)
        layer.load_state_dict({"weight": found["one.weight"], "bias": found["one.bias"]})

    _, trace = traced(load)
    assert sources(trace, trace.loads[-1]) == {
        "weight": WHOLE["one.weight"],
        "bias": WHOLE["one.bias"],
    }


def test_what_a_loader_of_ones_own_puts_in_place(folder):
    model, trace = traced(lambda: FromFile.from_pretrained(folder))
    (load,) = trace.loads
    assert sources(trace, load) == {name: WHOLE[name] for name in ("one.weight", "two.weight")}
    rows = {row.name: row.provenance for row in trace.tensors if row.name}
    assert rows["one.bias"] == "unknown"
    assert {file.name for file in trace.files} == set(FILES)
    assert torch.equal(model.one.weight, load_file(folder / FILES[0])["one.weight"])


def test_a_loop_that_copies_is_one_load_for_each_file(folder):
    model = Net()

    def load():
        own = dict(model.named_parameters())
        for _ in range(3):
            for name in FILES:
                with safe_open(folder / name, "pt") as opened:
                    for key in own.keys() & set(opened.keys()):
                        own[key].data.copy_(opened.get_tensor(key))

    _, trace = traced(load)
    assert [load.name for load in trace.loads] == [f"safe_open({name})" for name in FILES]
    assert [load.attributes["bytes"] for load in trace.loads] == [
        (folder / name).stat().st_size for name in FILES
    ]
    assert len(trace.tensors) == 0


def test_more_files_than_anyone_reads_are_counted(folder, monkeypatch):
    from hftrace.record.hooks.tables import opened

    monkeypatch.setattr(opened, "MAX_TOLD", 1)
    _, trace = traced(lambda: [read(folder) for _ in range(2)])
    assert [load.name for load in trace.loads] == [f"safe_open({FILES[0]})"]
    assert trace.header["calls"]["left_out"]["shard"]["calls"] == 3


def test_threads_that_open_at_one_time(folder):
    """What is known of a map is let go of once, whoever finds that it is gone."""

    def load():
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda _: Net().load_state_dict(read(folder)), range(64)))

    _, trace = traced(load)
    assert {name for load in trace.loads for name in sources(trace, load)} <= WHOLE.keys()


def test_a_map_that_is_gone_is_no_source(folder):
    """What lies at its addresses later is another tensor."""

    def load():
        found = read(folder)
        places = {value.data_ptr() for value in found.values()}
        del found
        for _ in range(200):
            shutil.copy(folder / FILES[0], folder / "other.safetensors")
            with safe_open(folder / "other.safetensors", "pt") as opened:
                other = opened.get_tensor("one.weight")
            if other.data_ptr() in places:
                break
        torch.nn.Linear(32, 32, bias=False).load_state_dict({"weight": other})

    _, trace = traced(load)
    assert sources(trace, trace.loads[-1]) == {"weight": ("other.safetensors", "one.weight")}


def test_a_file_that_was_replaced_meanwhile_is_no_source(folder):
    def load():
        found = read(folder)
        save_file({"bias": torch.zeros(32), "weight": torch.zeros(32, 32)}, folder / "new.safetensors")
        os.replace(folder / "new.safetensors", folder / FILES[0])
        Net().load_state_dict(found)

    _, trace = traced(load)
    rows = {row.name: row for row in trace.tensors if row.load == trace.loads[-1].span and row.name}
    assert {name for name, row in rows.items() if row.provenance == "checkpoint"} == {"two.weight"}


def test_what_libraries_open_for_themselves_is_no_load(folder):
    accelerate = pytest.importorskip("accelerate")
    from accelerate.utils import OffloadedWeightsLoader

    index = {
        "weight": {
            "safetensors_file": str(folder / FILES[0]),
            "weight_name": "one.weight",
            "dtype": "float32",
        }
    }

    def load():
        loader = OffloadedWeightsLoader(index=index, save_folder=str(folder))
        return [loader["weight"] for _ in range(3)]

    assert accelerate
    (weight, *_), trace = traced(load)
    assert torch.equal(weight, load_file(folder / FILES[0])["one.weight"])
    assert len(trace.loads) == 0


def test_nothing_of_torch_is_changed(folder):
    before = (torch.storage._StorageBase.untyped.__code__, dict(vars(torch.storage._StorageBase)))
    traced(lambda: read(folder))
    assert (torch.storage._StorageBase.untyped.__code__, dict(vars(torch.storage._StorageBase))) == before


# -- checkpoints of a training ---------------------------------------------------------------------------


def test_a_state_dict_below_a_key_of_a_pickle(tmp_path):
    source, model = Net(), Net()
    path = tmp_path / "last.pt"
    saved = {
        "epoch": 3,
        "state_dict": {f"module.{name}": value for name, value in source.state_dict().items()},
        "ema": {name: value * 2 for name, value in source.state_dict().items()},
    }
    torch.save(saved, path)

    def load():
        found = torch.load(path)["state_dict"]
        model.load_state_dict({name.removeprefix("module."): value for name, value in found.items()})

    with hftrace.trace(sample_hz=0, verify=True) as recorded:
        load()
    trace = recorded.trace
    assert not trace.header["errors"]
    assert [row.verified for row in trace.tensors] == [True] * len(source.state_dict())
    assert sources(trace, trace.loads[-1]) == {
        name: ("last.pt", f"state_dict.module.{name}") for name in source.state_dict()
    }
    assert not [row for row in trace.tensors if row.kind == "unused"]


def test_what_verify_opens_is_no_load(folder):
    model = Net()
    with hftrace.trace(sample_hz=0, verify=True) as recorded:
        model.load_state_dict(read(folder))
    assert len(recorded.trace.loads) == 3
    assert [row.verified for row in recorded.trace.tensors] == [True] * 4
