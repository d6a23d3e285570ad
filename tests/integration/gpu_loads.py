"""What test_gpu.py runs in processes of its own: loads on a GPU, beside the figures that torch itself keeps.

    python gpu_loads.py equal CHECKPOINT FOLDER      traced and untraced loads, one after the other
    python gpu_loads.py offload CHECKPOINT FOLDER    a model that is spread over GPU and CPU

A traced load leaves its trace in FOLDER, and each command ``report.json``.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from pathlib import Path

DEVICE = "cuda:0"
ROOM = 100_000_000
"""What a load may have of the GPU's memory where it shall not find enough of it, in bytes."""


class Tight:
    """Loads as AutoModelForCausalLM does, in a process that may use little of the GPU.

    ``GPU_LOADS_ROOM`` says how many bytes, :data:`ROOM` otherwise.
    """

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        import torch
        import transformers.modeling_utils as modeling
        from transformers import AutoModelForCausalLM

        total = torch.cuda.get_device_properties(0).total_memory
        room = int(os.environ.get("GPU_LOADS_ROOM") or ROOM)
        torch.cuda.set_per_process_memory_fraction(room / total, 0)
        if os.environ.get("GPU_LOADS_WARMUP") == "0" and hasattr(modeling, "caching_allocator_warmup"):
            # It asks for the memory of the whole model at once: nothing would be placed before it fails.
            modeling.caching_allocator_warmup = lambda *args, **kwargs: None
        if os.environ.get("GPU_LOADS_READ_AHEAD"):
            read_ahead()
        return AutoModelForCausalLM.from_pretrained(*args, **kwargs)


def read_ahead():
    """Lets the threads that read come as far as they can before anything is converted (5.x)."""
    import transformers.core_model_loading as loading

    convert = loading.WeightConverter.convert

    def late(self, *args, **kwargs):
        time.sleep(1.0)
        return convert(self, *args, **kwargs)

    loading.WeightConverter.convert = late


class Killed:
    """Loads as AutoModelForCausalLM does, and is killed when the weights are on the GPU."""

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        import transformers.modeling_utils as modeling
        from transformers import AutoModelForCausalLM

        def kill(model):
            time.sleep(0.2)  # events are lost that are younger than 50 ms
            os.kill(os.getpid(), signal.SIGKILL)

        # The last thing that from_pretrained does with a model.
        modeling.PreTrainedModel.eval = kill
        return AutoModelForCausalLM.from_pretrained(*args, **kwargs)


def load(directory, **keywords):
    import torch
    from transformers import AutoModelForCausalLM

    from hftrace.record.child.keywords import dtype_keyword

    torch.manual_seed(7)
    return AutoModelForCausalLM.from_pretrained(directory, **{dtype_keyword(): torch.bfloat16}, **keywords)


def figures():
    """Returns the allocator's own figures, in bytes, and the state of the GPU's generator."""
    import torch

    return {
        "allocated": torch.cuda.memory_allocated(0),
        "reserved": torch.cuda.memory_reserved(0),
        "peak": torch.cuda.max_memory_allocated(0),
        "random": torch.cuda.get_rng_state(0).tolist(),
    }


def start_afresh():
    """Gives the GPU's memory back, and begins a new peak; returns what is allocated all the same."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(0)
    return torch.cuda.memory_allocated(0)


def equal(directory, folder):
    """Loads untraced, traced, and traced with torch's peak left alone; then compares two models."""
    import torch
    from truth import assert_same_model, model_tensors

    import hftrace

    torch.cuda.init()
    report = {
        "name": torch.cuda.get_device_name(0),
        "total": torch.cuda.get_device_properties(0).total_memory,
    }
    # The first load of a process imports, and lets CUDA load what it needs.
    load(directory, device_map=DEVICE)

    before = start_afresh()
    model = load(directory, device_map=DEVICE)
    report["untraced"] = {"before": before, **figures()}

    del model
    before = start_afresh()
    with hftrace.trace(folder / "exact.json"):
        model = load(directory, device_map=DEVICE)
    report["exact"] = {"before": before, **figures()}

    del model
    before = start_afresh()
    with hftrace.trace(folder / "plain.json", sample_hz=0, exact_peaks=False):
        model = load(directory, device_map=DEVICE)
    report["plain"] = {"before": before, **figures()}

    untraced = load(directory, device_map=DEVICE)
    assert_same_model(model, untraced)
    report["tensors"] = {name: str(tensor.device) for name, (_, tensor, _) in model_tensors(model).items()}
    return report


def offload(directory, folder):
    """Loads a model that does not fit into what the GPU may hold."""
    from truth import assert_same_model, model_tensors

    import hftrace

    keywords = {"device_map": "auto", "max_memory": {0: ROOM, "cpu": 4_000_000_000}}
    untraced = load(directory, **keywords)
    with hftrace.trace(folder / "offload.json", sample_hz=0):
        model = load(directory, **keywords)
    assert_same_model(model, untraced)
    return {
        "tensors": {name: str(tensor.device) for name, (_, tensor, _) in model_tensors(model).items()},
        "map": sorted({str(place) for place in model.hf_device_map.values()}),
    }


def main():
    what, directory, folder = sys.argv[1:]
    report = {"equal": equal, "offload": offload}[what](directory, Path(folder))
    Path(folder, "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
