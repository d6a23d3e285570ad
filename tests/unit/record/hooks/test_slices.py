"""Which lazy tensors may have read before they are asked: told by what they are, not by a version."""

import sys

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from hftrace.record.hooks import slices
from hftrace.record.hooks.slices import handed_out
from prefetching import PlainSlice, PrefetchedTensor


class Indexed(torch.Tensor):
    """A tensor of a library's own kind."""

    def __getitem__(self, index):
        return super().__getitem__(index)


def test_slices_of_safe_open_and_tensors_are_read_by_who_asks(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        values = [file.get_slice("a"), torch.ones(2), torch.ones(2).as_subclass(Indexed), [1], {}]
        assert handed_out(values) == {}


def test_a_class_written_in_python_is_not():
    values = [PlainSlice(None), PlainSlice(None), PrefetchedTensor.__new__(PrefetchedTensor)]
    assert handed_out(values) == {"prefetching.PlainSlice": 2, "prefetching.PrefetchedTensor": 1}


def test_those_of_gguf_files_read_when_asked(monkeypatch):
    name = f"{PlainSlice.__module__}.{PlainSlice.__qualname__}"
    monkeypatch.setattr(slices, "READ_WHEN_ASKED", frozenset({name}))
    assert handed_out([PlainSlice(None)]) == {}


def test_few_classes_are_named(monkeypatch):
    kinds = [type(f"Kind{number}", (), {"__getitem__": lambda self, at: at}) for number in range(20)]
    assert len(handed_out(kind() for kind in kinds)) == slices.MAX_CLASSES
    monkeypatch.delitem(sys.modules, "torch")
    assert handed_out([PlainSlice(None)]) == {"prefetching.PlainSlice": 1}
