"""Device memory, with a stand-in for torch's allocators: there is no accelerator where the tests run."""

from __future__ import annotations

import sys
import types

import pytest

from fake_devices import Allocator
from hftrace.record.device import DeviceMemory


def pretend(monkeypatch, **attributes) -> None:
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(**attributes))


def test_no_torch_no_reading(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert DeviceMemory().read(reset=True) is None


def test_cuda_is_never_initialised_by_a_reading(monkeypatch):
    allocator = Allocator()
    allocator.initialized = False
    pretend(monkeypatch, cuda=allocator)
    memory = DeviceMemory()
    assert memory.read(reset=True) is None
    assert memory.failure is None
    assert allocator.resets == 0


def test_peaks_between_readings(monkeypatch):
    allocator = Allocator()
    pretend(monkeypatch, cuda=allocator)
    memory = DeviceMemory()
    assert memory.read(reset=True) == {"cuda:0": [0, 0, 0], "cuda:1": [0, 0, 0]}
    allocator.allocate(0, 1000)
    allocator.allocate(0, -600)
    assert memory.read(reset=True)["cuda:0"] == [400, 1000, 1000]
    assert memory.read(reset=True)["cuda:0"] == [400, 1000, 400], "a reading starts a new peak"


def test_reading_between_edges_leaves_the_peak_alone(monkeypatch):
    allocator = Allocator(1)
    pretend(monkeypatch, cuda=allocator)
    memory = DeviceMemory()
    allocator.allocate(0, 7)
    allocator.allocate(0, -7)
    assert memory.read(reset=False) == {"cuda:0": [0, 7, 7]}
    assert allocator.resets == 0


def test_other_accelerators_through_torch_accelerator(monkeypatch):
    allocator = Allocator(1)
    idle = Allocator(1)
    idle.initialized = False
    pretend(monkeypatch, cuda=idle, accelerator=allocator)
    allocator.allocate(0, 5)
    assert DeviceMemory().read(reset=True) == {"xpu:0": [5, 5, 5]}


def test_an_accelerator_without_an_account_is_not_measured(monkeypatch):
    """As torch.accelerator answers for MPS: no statistics, and 0 for each figure that is made of them."""
    allocator = Allocator(1)
    allocator.memory_stats = lambda index: {}
    allocator.get_memory_info = lambda index: (5000, 8000)
    allocator.current_accelerator = lambda: types.SimpleNamespace(type="mps")
    pretend(monkeypatch, accelerator=allocator)
    memory = DeviceMemory()
    assert memory.read(reset=True) is None
    assert memory.failure is None
    assert memory.why_not() == "torch keeps no account of the memory of mps"
    assert memory.describe() == [{"device": "mps:0", "memory_bytes": 8000, "used_bytes": 3000}]


@pytest.mark.parametrize("broken", ["memory_allocated", "device_count"])
def test_a_backend_without_accounting_gives_no_figures_and_the_reason(monkeypatch, broken):
    allocator = Allocator(1)

    def fail(*_):
        raise RuntimeError("not supported by this backend")

    setattr(allocator, broken, fail)
    pretend(monkeypatch, cuda=allocator)
    memory = DeviceMemory()
    assert memory.read(reset=True) is None
    assert memory.failure == "RuntimeError: not supported by this backend"


def test_what_lies_outside_of_the_allocator(monkeypatch):
    allocator = Allocator(1)
    allocator.get_device_properties = lambda index: types.SimpleNamespace(name="GPU", total_memory=8000)
    allocator.mem_get_info = lambda index: (5000, 8000)
    allocator.host_memory_stats = lambda: {"allocated_bytes.current": 64, "allocated_bytes.peak": 128}
    pretend(monkeypatch, cuda=allocator)
    allocator.allocate(0, 1200)
    memory = DeviceMemory()
    assert memory.describe() == [
        {
            "device": "cuda:0",
            "name": "GPU",
            "memory_bytes": 8000,
            "used_bytes": 3000,
            "outside_allocator_bytes": 1800,
        }
    ]
    assert memory.pinned_bytes() == {"current": 64, "peak": 128}
    assert memory.why_not() is None


def test_an_allocator_that_grows_while_it_is_asked(monkeypatch):
    """What it took meanwhile is not somebody else's."""
    allocator = Allocator(1)
    asked = []

    def answer(index):
        free = 8000 - 1000 - allocator.reserved[0]
        if len(asked) < 2:
            allocator.allocate(0, 500)
        asked.append(free)
        return free, 8000

    allocator.mem_get_info = answer
    pretend(monkeypatch, cuda=allocator)
    (device,) = DeviceMemory().describe()
    assert asked == [7000, 6500, 6000]
    assert (device["used_bytes"], device["outside_allocator_bytes"]) == (2000, 1000)


def without_account(index):
    raise RuntimeError("Allocator for npu is not a DeviceAllocator.")


def test_an_allocator_that_torch_cannot_ask_keeps_no_account(monkeypatch):
    """A backend may register one of the plain form: torch.accelerator calls that an internal error."""
    allocator = Allocator(1)
    allocator.memory_stats = allocator.get_memory_info = without_account
    asked = types.SimpleNamespace(_accelerator_isAllocatorInitialized=lambda: without_account(0))
    pretend(monkeypatch, accelerator=allocator, _C=asked)
    memory = DeviceMemory()
    assert memory.read(reset=True) is None
    assert memory.failure is None
    assert memory.why_not() == "torch keeps no account of the memory of xpu"
    assert memory.describe() == [{"device": "xpu:0"}]


@pytest.mark.parametrize("used", [False, True])
def test_an_accelerator_that_nobody_has_used(monkeypatch, used):
    allocator = Allocator(1)
    allocator.memory_stats = lambda index: {"allocated_bytes.all.current": 0} if used else {}
    asked = types.SimpleNamespace(_accelerator_isAllocatorInitialized=lambda: used)
    pretend(monkeypatch, accelerator=allocator, _C=asked)
    memory = DeviceMemory()
    assert memory.read(reset=True) == ({"xpu:0": [0, 0, 0]} if used else None)
    assert memory.why_not() == (None if used else "the accelerator was not used")


def test_an_accelerator_without_properties(monkeypatch):
    allocator = Allocator(1)
    allocator.get_memory_info = lambda index: (5000, 8000)
    pretend(monkeypatch, accelerator=allocator)
    (device,) = DeviceMemory().describe()
    assert device == {
        "device": "xpu:0",
        "memory_bytes": 8000,
        "used_bytes": 3000,
        "outside_allocator_bytes": 3000,
    }
    assert DeviceMemory().pinned_bytes() is None


def test_a_device_that_does_not_answer_is_there_all_the_same(monkeypatch):
    allocator = Allocator(1)

    def fail(index):
        raise RuntimeError("no permission")

    allocator.mem_get_info = fail
    pretend(monkeypatch, cuda=allocator)
    assert DeviceMemory().describe() == [{"device": "cuda:0", "problem": "RuntimeError: no permission"}]


def test_why_there_are_no_figures(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert DeviceMemory().why_not() == "torch was not imported"
    none = Allocator(0)
    none.initialized = False
    pretend(monkeypatch, cuda=none)
    assert DeviceMemory().why_not() == "torch finds no accelerator"
    old = types.SimpleNamespace(is_available=lambda: True)
    pretend(monkeypatch, cuda=none, accelerator=old)
    assert "2.9" in DeviceMemory().why_not()
    assert DeviceMemory().describe() == []


def test_nobody_asks_whether_an_unused_cuda_is_available(monkeypatch):
    """That would initialise the driver, and no child made by fork could use CUDA any more."""

    def poison():
        raise AssertionError("asked")

    unused = Allocator(1)
    unused.initialized = False
    unused.current_accelerator = lambda: types.SimpleNamespace(type="cuda")
    unused.is_available = poison
    pretend(monkeypatch, cuda=unused, accelerator=unused)
    memory = DeviceMemory()
    assert memory.read(reset=True) is None
    assert memory.failure is None
    assert memory.describe() == []
    assert memory.why_not() == "the accelerator was not used"


def test_no_context_is_made_on_a_device_that_is_not_used(monkeypatch):
    allocator = Allocator(2)
    asked = []
    allocator.mem_get_info = lambda index: asked.append(index) or (5000, 8000)
    library = types.SimpleNamespace(_cuda_hasPrimaryContext=lambda index: index == 0)
    pretend(monkeypatch, cuda=allocator, _C=library)
    used, unused = DeviceMemory().describe()
    assert used["used_bytes"] == 3000
    assert unused == {"device": "cuda:1"}
    assert asked == [0]


def test_the_nested_statistics_are_read_once(monkeypatch):
    allocator = Allocator(1)
    calls = []

    def nested(index):
        calls.append(index)
        allocated = {"current": 400, "peak": 1000, "allocated": 5000, "freed": 4600}
        return {"allocated_bytes": {"all": allocated}, "reserved_bytes": {"all": {"current": 2000}}}

    allocator.memory_stats_as_nested_dict = nested
    pretend(monkeypatch, cuda=allocator)
    assert DeviceMemory().read(reset=True) == {"cuda:0": [400, 2000, 1000]}
    assert (calls, allocator.resets) == ([0], 1)


@pytest.mark.gpu
def test_a_real_gpu():
    import torch

    block = torch.zeros(1 << 20, device="cuda:0")
    reading = DeviceMemory().read(reset=True)
    assert reading is not None
    assert reading["cuda:0"][0] >= block.numel() * 4
    assert reading["cuda:0"][2] >= reading["cuda:0"][0]
    (device, *_) = DeviceMemory().describe()
    assert device["memory_bytes"] >= device["used_bytes"] > device["outside_allocator_bytes"] > 0
    assert DeviceMemory().why_not() is None
    assert reading["cuda:0"][:2] == [torch.cuda.memory_allocated(0), torch.cuda.memory_reserved(0)]
