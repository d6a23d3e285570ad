"""Uses tools of torch and of others on hooked functions, untraced and traced, and says what differs.

    python torch_tools.py FOLDER EXTRAS

EXTRAS is where dill may be, besides packages that transformers would import if it saw them.

One process for all of them, as importing torch and transformers takes the most time. Each function
below uses one tool and returns what a person sees of it; test_compiled.py runs this.
"""

from __future__ import annotations

import copy
import cProfile
import functools
import inspect
import io
import logging
import os
import pickle
import pstats
import sys
import traceback
import typing
import warnings
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from unittest import mock

import torch
import transformers

import hftrace

FOLDER = Path(sys.argv[1])
CONFIG = transformers.LlamaConfig(
    hidden_size=8,
    intermediate_size=8,
    num_hidden_layers=1,
    num_attention_heads=1,
    num_key_value_heads=1,
    vocab_size=8,
)


class Mine(transformers.LlamaForCausalLM):
    """A class of the script: its constructor is hooked when it has been loaded."""

    def __init__(self, config):
        super().__init__(config)
        self.mark = __class__.__name__


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        torch.nn.init.ones_(self.layer.weight)

    def forward(self, x):
        return self.layer(x)


layer = torch.nn.Linear(2, 2)
small = Mine(CONFIG)


def isfile(x):
    return x + int(os.path.isfile(sys.executable))


def evaluated(x):
    return layer.eval()(x)


def moved(x):
    return layer.to(torch.float32)(x)


def generates(x):
    return x + int(small.can_generate())


def filled(x):
    made = torch.nn.Linear(2, 2)
    made.load_state_dict({"weight": torch.ones(2, 2), "bias": torch.zeros(2)})
    return made(x)


def compiled():
    found = {}
    for function in (isfile, evaluated, moved, generates, filled):
        for whole in (False, True):
            torch._dynamo.reset()
            run = torch.compile(function, backend="eager", fullgraph=whole)
            try:
                found[function.__name__, whole] = run(torch.ones(1, 2)).tolist()
            except torch._dynamo.exc.Unsupported as error:
                found[function.__name__, whole] = type(error).__name__
    assert sum(isinstance(each, list) for each in found.values()) >= 8, found
    return found


def profiled():
    with torch.profiler.profile(with_stack=True, record_shapes=True) as profile:
        model = Small().eval().to(torch.float64)
        model.load_state_dict(model.state_dict())
        model(torch.ones(1, 2, dtype=torch.float64))
    profile.export_chrome_trace(str(FOLDER / "chrome.json"))
    return sorted((row.key, row.count) for row in profile.key_averages() if row.key.startswith("aten::"))


def profiled_by_cprofile():
    profile = cProfile.Profile()
    model = Small()
    profile.runcall(model.load_state_dict, model.state_dict())
    rows = pstats.Stats(profile).stats.items()
    found = [(key, row[:2]) for key, row in rows if key[2] == "load_state_dict" and "hftrace" not in key[0]]
    assert len(found) == 1, found
    return found


def scripted():
    file = io.BytesIO()
    module = torch.jit.script(Small())
    torch.jit.save(module, file)
    file.seek(0)
    function = torch.jit.script(torch.nn.functional.relu)
    return module.code, function.code, torch.jit.load(file)(torch.ones(1, 2)).shape


def symbolically_traced():
    return torch.fx.symbolic_trace(Small()).code


def exported():
    program = torch.export.export(Small(), (torch.ones(1, 2),))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return str(program.graph), torch.export.load(file).module()(torch.ones(1, 2)).shape


def packaged():
    file = io.BytesIO()
    with torch.package.PackageExporter(file) as exporter:
        exporter.extern(["torch.**", "dill.**"])
        exporter.save_pickle("model", "model.pkl", torch.nn.Linear(2, 2))
    file.seek(0)
    return str(torch.package.PackageImporter(file).load_pickle("model", "model.pkl"))


def copied():
    return copy.deepcopy(Mine(CONFIG)).mark, copy.deepcopy(Mine.__init__) is Mine.__init__


def saved_whole():
    model = Mine(CONFIG)
    torch.save(model, FOLDER / "whole.pt")
    loaded = torch.load(FOLDER / "whole.pt", weights_only=False)
    same = all(map(torch.equal, model.state_dict().values(), loaded.state_dict().values()))
    return type(loaded) is Mine, loaded.mark, same


def pickled():
    model = Mine(CONFIG)
    return [
        pickle.loads(pickle.dumps(Mine.__init__)) is Mine.__init__,
        pickle.loads(pickle.dumps(model)).mark,
        pickle.loads(ForkingPickler.dumps(model)).mark,
    ]


def pickled_by_value():
    try:
        import cloudpickle
    except ImportError:
        return None
    cls, model, load = cloudpickle.loads(cloudpickle.dumps([Mine, Mine(CONFIG), Mine.from_pretrained]))
    initialize = cloudpickle.loads(cloudpickle.dumps(Mine.__init__))
    return cls(CONFIG).mark, model.mark, load(FOLDER).mark, initialize.__qualname__


def pickled_by_dill():
    sys.path.append(sys.argv[2])
    try:
        import dill
    except ImportError:
        return None
    finally:
        sys.path.remove(sys.argv[2])
    found = []
    for recurse in (False, True):
        cls = dill.loads(dill.dumps(Mine, byref=False, recurse=recurse))
        function = dill.loads(dill.dumps(Mine.__init__, recurse=recurse))
        found += [
            cls(CONFIG).mark,
            function.__qualname__,
            dill.loads(dill.dumps(Mine(CONFIG), recurse=recurse)).mark,
        ]
    return [*found, dill.source.getsource(Mine.__init__), dill.detect.badobjects(Mine.__init__)]


def inspected():
    functions = [Mine.__init__, torch.load, torch.nn.Module.load_state_dict, torch.nn.Module.to]
    functions += [Mine.from_pretrained, transformers.PreTrainedModel.save_pretrained]
    return [inspect.getfile(Mine), inspect.getsource(Mine)] + [
        (
            inspect.getsourcelines(function),
            inspect.getmodule(function),
            inspect.getdoc(function),
            inspect.getcomments(function),
            inspect.signature(function),
            inspect.isfunction(function),
            inspect.unwrap(function) is function,
            function.__annotations__,
        )
        for function in functions
    ]


def hints():
    return typing.get_type_hints(torch.load), typing.get_type_hints(torch.nn.Module.load_state_dict)


def mocked():
    with mock.patch.object(torch.nn.Module, "load_state_dict", autospec=True) as stand_in:
        layer.load_state_dict({})
    with mock.patch.object(torch, "load", wraps=torch.load) as around:
        file = io.BytesIO()
        torch.save([1], file)
        file.seek(0)
        torch.load(file)
    return (
        stand_in.call_count,
        around.call_count,
        inspect.signature(mock.create_autospec(Mine.from_pretrained)),
    )


TOOLS = [
    compiled,
    profiled,
    profiled_by_cprofile,
    scripted,
    symbolically_traced,
    exported,
    packaged,
    copied,
    saved_whole,
    pickled,
    pickled_by_value,
    pickled_by_dill,
    inspected,
    hints,
    mocked,
]


def used(tool):
    torch.manual_seed(0)
    try:
        return tool()
    except Exception:
        return traceback.format_exc()


def recompiled():
    """Compiled before, while and after: it is not made again for each recording."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    run = torch.compile(evaluated, backend=backend)
    expected = run(torch.ones(1, 2))
    for _ in range(4):
        with hftrace.trace(sample_hz=0):
            assert torch.equal(run(torch.ones(1, 2)), expected)
        assert torch.equal(run(torch.ones(1, 2)), expected)
    assert len(graphs) <= 2, len(graphs)


def main():
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    Mine(CONFIG).save_pretrained(FOLDER)
    plain = [used(tool) for tool in TOOLS]
    with hftrace.trace(sample_hz=0) as recorded:
        Mine.from_pretrained(FOLDER)  # from here on its constructor is hooked
        initialize, code = Mine.__init__, Mine.__init__.__code__
        wrapped = functools.wraps(initialize)(lambda *arguments: initialize(*arguments))
        traced = [used(tool) for tool in TOOLS]
    for tool, before, after in zip(TOOLS, plain, traced, strict=True):
        assert not (isinstance(before, str) and "Traceback" in before), before
        assert after == before, f"{tool.__name__}\nuntraced: {before}\ntraced:   {after}"
    assert not [name for name in globals() if name.startswith("__hftrace")]  # nor has a pickle left any
    # It was hooked, and is no more; what compiled code calls is recorded where it is called at all.
    assert code is not initialize.__code__ is wrapped.__wrapped__.__code__
    assert {"Linear.load_state_dict", "Mine"} <= {root.name for root in recorded.trace.loads}
    assert not recorded.trace.header["errors"]
    recompiled()
    print("fine")


if __name__ == "__main__":
    main()
