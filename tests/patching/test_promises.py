"""The promises of the recorder (DESIGN.md section 5) on real loads: it changes, leaves and breaks nothing."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import importlib.util
import inspect
import logging
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
import types
import warnings
import weakref
from pathlib import Path

import pytest

import hftrace
from hftrace.analysis.findings.registry import findings
from hftrace.record import frames, patching, recorder
from hftrace.synth import plan, write

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")
modeling = pytest.importorskip("transformers.modeling_utils")
safetensors_torch = pytest.importorskip("safetensors.torch")

pytestmark = pytest.mark.filterwarnings("default")

PACKAGES = {
    "transformers",
    "accelerate",
    "torch",
    "safetensors",
    "huggingface_hub",
    "importlib",
    "genericpath",
    "posixpath",
    "os",
    "requests",
    "httpx",
    "httpx2",
}
SIZES = {"llama-2-7b": "2MB", "bert-base": "2MB"}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    place = tmp_path_factory.mktemp("promises")
    paths = {}
    for name, size in SIZES.items():
        paths[name] = place / name
        write(plan(name, size=size, max_shard_size="800kB"), paths[name])
    return paths


@pytest.fixture(scope="module")
def llama(checkpoints):
    return checkpoints["llama-2-7b"]


@pytest.fixture(scope="module")
def broken(checkpoints, tmp_path_factory):
    """A checkpoint with a shard that is cut off."""
    path = tmp_path_factory.mktemp("broken") / "model"
    shutil.copytree(checkpoints["llama-2-7b"], path)
    shard = sorted(path.glob("*.safetensors"))[-1]
    os.truncate(shard, shard.stat().st_size // 2)
    return path


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    assert not patching._sites


def load(path, owner=None, **keywords):
    keywords.setdefault("torch_dtype" if transformers.__version__ < "4.56" else "dtype", torch.float32)
    return (owner or transformers.AutoModelForCausalLM).from_pretrained(str(path), **keywords)


def trace(path=None, **options):
    options.setdefault("sample_hz", 0)
    return hftrace.trace(path, **options)


# -- what is compared ---------------------------------------------------------------------------


class Baseline:
    """vars() of every module and class of the traced libraries, and every function of the process."""

    def __init__(self):
        gc.collect()
        gc.disable()  # hundreds of thousands of tuples, none of them garbage
        self.callbacks = list(gc.callbacks)
        try:
            self.names = {}
            for name, module in list(sys.modules.items()):
                if module is None or name.partition(".")[0] not in PACKAGES:
                    continue
                self.names[module] = dict(vars(module))
                for value in list(vars(module).values()):
                    # Not isinstance: a lazy or deprecated name of the host would be used by that.
                    if issubclass(type(value), type) and value not in self.names:
                        self.names[value] = dict(vars(value))
            self.functions = [
                (
                    function,
                    function.__code__,
                    function.__defaults__,
                    function.__kwdefaults__,
                    frozenset(function.__dict__),
                )
                for function in gc.get_objects()
                if type(function) is types.FunctionType
            ]
        finally:
            gc.enable()

    def changed_names(self):
        return [
            f"{getattr(owner, '__module__', '')}.{getattr(owner, '__qualname__', owner)}.{name}"
            for owner, names in self.names.items()
            for name in names.keys() | vars(owner).keys()
            if changed(owner, name, names, vars(owner))
        ]

    def changed_functions(self, codes=True):
        return [
            f"{function.__module__}.{function.__qualname__}"
            for function, code, defaults, keyword_defaults, attributes in self.functions
            if (codes and function.__code__ is not code)
            or function.__defaults__ is not defaults
            or function.__kwdefaults__ is not keyword_defaults
            or not set(attributes) <= function.__dict__.keys()
            # torch notes on some of its functions, when they first run, what it found out about them.
            or any(
                "hftrace" in repr(function.__dict__[name]) for name in function.__dict__.keys() - attributes
            )
        ]


def changed(owner, name, names, now):
    old, new = names.get(name), now.get(name)
    if old is new or name in ("__abstractmethods__", "_abc_impl"):
        return False
    if name in names and isinstance(old, HARMLESS) and isinstance(new, HARMLESS):
        return False
    # An attribute that transformers' lazy module has resolved now is no change of ours.
    return name in names or not (isinstance(owner, types.ModuleType) and hasattr(owner, "_class_to_module"))


HARMLESS = (int, float, str, bytes, bool, type(None), dict, list, set, tuple, types.ModuleType, weakref.ref)
"""Counters, caches and lazy modules, which a load changes itself."""


def own_codes(known=()):
    """Returns functions of others that carry our code; frozen ones are asked after by ``known``."""
    return [
        f"{function.__module__}.{function.__qualname__}"
        for function in [*gc.get_objects(), *(row[0] for row in known)]
        if type(function) is types.FunctionType
        and frames.is_own(function.__code__.co_filename)
        and not str(function.__module__).startswith("hftrace")
    ]


def undo_races_of_the_host(baseline):
    """Two loads at once may leave behind what transformers replaces for a load itself.

    That is an attribute that holds a local function (``no_tie_weights``), or one of torch's that holds one of
    transformers' own (``guard_torch_init_functions``): the load that leaves last puts back what it found.
    """
    for owner, names in baseline.names.items():
        for name, old in names.items():
            new = vars(owner).get(name)
            if new is old or not isinstance(new, types.FunctionType):
                continue
            if "<locals>" in new.__qualname__ or (getattr(old, "__module__", None) or "").startswith("torch"):
                assert new.__module__.startswith("transformers")
                setattr(owner, name, old)


def check_unchanged(baseline):
    assert baseline.changed_names() == []
    assert baseline.changed_functions() == []
    assert gc.callbacks == baseline.callbacks
    gc.collect()
    assert own_codes() == []


# -- 2: it leaves nothing behind --------------------------------------------------------------------


def success(paths, broken):
    with trace() as recorded:
        load(paths["llama-2-7b"])
    assert recorded.trace.outcome["status"] == "ok"


def failure(paths, broken):
    with pytest.raises(Exception), trace() as recorded:  # noqa: B017, PT011
        load(broken)
    (root,) = recorded.trace.loads
    assert root.status == "error"


def exception_in_the_block(paths, broken):
    @trace()
    def block():
        load(paths["llama-2-7b"])
        raise KeyError("the user's own")

    with pytest.raises(KeyError, match="the user's own"):
        block()


def files_of(trace, root):
    """Returns the files that one load asked for."""
    parents = {span.id: span.parent for span in trace.spans}

    def top(span):
        while parents[span] is not None:
            span = parents[span]
        return span

    return sorted((row.name, row.result) for row in trace.files if top(row.asked_by) == root.id)


def nested(paths, broken):
    with trace() as outer:
        load(paths["llama-2-7b"])
        with trace() as inner:
            load(paths["bert-base"], transformers.AutoModelForMaskedLM)
        load(paths["llama-2-7b"])
    assert len(outer.trace.loads) == 3
    (root,) = inner.trace.loads
    same = outer.trace.loads[1]
    assert (root.name, root.attributes["model"]) == (same.name, same.attributes["model"])
    assert len(inner.trace.tensors) < len(outer.trace.tensors)
    # Both traces hold the same calls of that load, and each file once.
    assert files_of(inner.trace, root) == files_of(outer.trace, same)
    assert "model.safetensors" in {name for name, _ in files_of(inner.trace, root)}


def interleaved(paths, broken):
    first, second = trace(), trace()
    first.__enter__()
    load(paths["llama-2-7b"])
    second.__enter__()
    load(paths["llama-2-7b"])
    first.__exit__(None, None, None)
    load(paths["llama-2-7b"])
    second.__exit__(None, None, None)
    assert len(first.trace.loads) == len(second.trace.loads) == 2


def threads(paths, broken):
    errors = []

    def run(name, owner):
        try:
            load(paths[name], owner)
        except BaseException as error:
            errors.append(error)

    with trace() as recorded:
        workers = [
            threading.Thread(target=run, args=("llama-2-7b", transformers.AutoModelForCausalLM)),
            threading.Thread(target=run, args=("bert-base", transformers.AutoModelForMaskedLM)),
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert errors == []
    assert {root.name for root in recorded.trace.loads} == {"AutoModelForCausalLM", "AutoModelForMaskedLM"}
    assert len({root.thread for root in recorded.trace.loads}) == 2
    assert not recorded.trace.header["errors"]


def decorated(paths, broken):
    @trace()
    def function(path):
        return load(path)

    assert function(paths["llama-2-7b"]).training is False
    assert function(paths["llama-2-7b"]) is not None


def repeated(paths, broken):
    for _ in range(3):
        success(paths, broken)


def without_a_load(paths, broken):
    with trace() as recorded:
        pass
    assert not recorded.trace.loads


class Foreign(torch.nn.Linear):
    """A class that no table names, with a from_pretrained of its own."""

    @classmethod
    def from_pretrained(cls, tensors):
        made = cls(2, 2)
        made.load_state_dict(tensors)
        return made


def other_entries(paths, broken):
    """Loads that do not begin at an auto class, in a load of their own and inside of one another."""
    accelerate = pytest.importorskip("accelerate")
    path = str(paths["llama-2-7b"])
    shards = sorted(paths["llama-2-7b"].glob("*.safetensors"))
    tensors = {"weight": torch.ones(2, 2), "bias": torch.zeros(2)}
    with trace() as recorded:
        transformers.GenerationConfig.from_pretrained(path)
        config = transformers.AutoConfig.from_pretrained(path)
        model = transformers.AutoModelForCausalLM.from_config(config)
        accelerate.load_checkpoint_in_model(model, path)
        for shard in shards:
            model.load_state_dict(safetensors_torch.load_file(shard), strict=False)
        assert torch.equal(Foreign.from_pretrained(tensors).weight, tensors["weight"])
        with pytest.raises(RuntimeError, match="Missing key"):
            Foreign.from_pretrained({})
    assert not recorded.trace.header["errors"]
    names = [root.name for root in recorded.trace.loads]
    read = ["load_file", f"{type(model).__name__}.load_state_dict"] * len(shards)
    assert [name.partition("(")[0] for name in names] == [
        "GenerationConfig",
        "AutoConfig",
        "load_checkpoint_in_model",
        *read,
        "Foreign",
        "Foreign",
    ]
    assert [root.status for root in recorded.trace.loads][-2:] == ["ok", "error"]
    assert {
        row.provenance for row in recorded.trace.tensors if row.kind == "parameter" and row.name in tensors
    } == {"state_dict"}
    whole = {}
    for shard in shards:
        whole |= safetensors_torch.load_file(shard)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, whole[name].to(parameter.dtype))


SCENARIOS = (
    other_entries,
    success,
    failure,
    exception_in_the_block,
    nested,
    interleaved,
    threads,
    decorated,
    repeated,
    without_a_load,
)


@pytest.fixture(scope="module")
def warm(checkpoints):
    """Everything that these loads import has been imported; returns how it was then."""
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)  # the models are tiny, and the machine may be busy
    load(checkpoints["llama-2-7b"])
    load(checkpoints["bert-base"], transformers.AutoModelForMaskedLM)
    # accelerate imports more when it loads, and so packages get other names.
    if importlib.util.find_spec("accelerate") is not None:
        accelerate = importlib.import_module("accelerate")
        path = str(checkpoints["llama-2-7b"])
        config = transformers.AutoConfig.from_pretrained(path)
        accelerate.load_checkpoint_in_model(transformers.AutoModelForCausalLM.from_config(config), path)
    importlib.import_module("torch.distributed.checkpoint.state_dict")
    found = Baseline()
    # 4.x collects garbage several times per load; what is there already is none.
    gc.freeze()
    yield found
    gc.unfreeze()
    torch.set_num_threads(threads_before)


@pytest.fixture(scope="module")
def baseline(warm):
    return warm


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_is_left_behind(scenario, checkpoints, broken, baseline):
    scenario(checkpoints, broken)
    if scenario is threads:
        undo_races_of_the_host(baseline)
    check_unchanged(baseline)


def test_no_name_changes_while_tracing_either(llama, baseline):
    with trace():
        load(llama)
        assert baseline.changed_names() == []
        assert baseline.changed_functions(codes=False) == []
        assert own_codes(baseline.functions) != []
    assert own_codes(baseline.functions) == []


def test_the_collector_is_watched_in_loads_alone(llama, broken, baseline, monkeypatch):
    seen = []

    def theirs(phase, info):
        pass

    post_init = modeling.PreTrainedModel.post_init

    def noting(model):
        seen.append(list(gc.callbacks))
        post_init(model)

    monkeypatch.setattr(modeling.PreTrainedModel, "post_init", noting)
    with trace():
        load(llama)
        assert gc.callbacks == baseline.callbacks
        gc.callbacks.append(theirs)
        with trace():
            load(llama)
        assert gc.callbacks == [*baseline.callbacks, theirs]
        gc.callbacks.remove(theirs)
        with contextlib.suppress(Exception):
            load(broken)
        assert gc.callbacks == baseline.callbacks
    ours = [
        [found for found in callbacks if found not in (*baseline.callbacks, theirs)] for callbacks in seen
    ]
    assert {len(callbacks) for callbacks in ours} == {2, 4}, "two for each trace"
    # A frame of Python would swallow the interrupt that came in during a collection.
    assert {type(callback) for callback in ours[-1]} == {functools.partial}


def test_a_trace_that_ends_in_the_middle_of_a_load_watches_no_more(llama, baseline, monkeypatch):
    """Another thread stops it, or a callback of the load."""
    tracing = trace()
    post_init = modeling.PreTrainedModel.post_init

    def stopping(model):
        tracing.__exit__(None, None, None)
        assert gc.callbacks == baseline.callbacks
        post_init(model)

    tracing.__enter__()
    monkeypatch.setattr(modeling.PreTrainedModel, "post_init", stopping)
    load(llama)
    monkeypatch.undo()
    check_unchanged(baseline)


def test_collections_at_any_allocation_do_no_harm(checkpoints, warm):
    """One may begin inside our own code, while it holds a lock or empties a buffer."""
    plain = load(checkpoints["llama-2-7b"])
    callbacks, threshold = list(gc.callbacks), gc.get_threshold()
    # Python leaves old objects alone until there are a quarter more of them: with none, that is always.
    gc.freeze()
    gc.collect()
    gc.set_threshold(1, 1, 1)
    try:
        with trace() as recorded:
            traced = load(checkpoints["llama-2-7b"])
    finally:
        # What is frozen stays so, as `warm` has it: each load of 4.x would walk through all of it again.
        gc.set_threshold(*threshold)
    assert gc.callbacks == callbacks
    assert not recorded.trace.header["errors"]
    assert recorded.trace.header["lost"]["events"] == 0
    assert_same_model(plain, traced)
    (root,) = recorded.trace.loads
    assert root.status == "ok"
    if sys.version_info < (3, 14):  # from then on the interpreter collects a part at a time
        assert True in {span.attributes.get("automatic") for span in recorded.trace.spans}


def test_what_is_imported_while_tracing_is_whole_too(run_python, llama):
    """A fresh process, where transformers' modules arrive in the middle of the trace."""
    done = run_python(
        "-c",
        f"""
import gc, sys, types
import hftrace
from hftrace.record import frames
with hftrace.trace(sample_hz=0) as recorded:
    from transformers import AutoModelForCausalLM
    AutoModelForCausalLM.from_pretrained({str(llama)!r})
left = [f for f in gc.get_objects() if type(f) is types.FunctionType
        and frames.is_own(f.__code__.co_filename) and not str(f.__module__).startswith("hftrace")]
assert not left, left
import importlib._bootstrap
assert importlib._bootstrap._find_and_load.__code__.co_name == "_find_and_load"
assert importlib._bootstrap._find_and_load.__code__.co_consts, "the original"
constants = importlib._bootstrap._find_and_load.__code__.co_consts
assert not any(isinstance(constant, types.FunctionType) for constant in constants)
(root,) = recorded.trace.loads
assert root.status == "ok", root
assert not recorded.trace.header["errors"], recorded.trace.header["errors"]
assert sum(row.provenance == "checkpoint" for row in recorded.trace.tensors) > 10
print("fine")
""",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "fine\n"


def test_nothing_of_the_model_is_kept(llama, warm):
    with trace() as recorded:
        model = load(llama)
        references = [weakref.ref(model), weakref.ref(next(model.parameters()))]
        del model
        gc.collect()
        assert [reference() for reference in references] == [None, None]
    assert recorded.trace.tensors


# -- 2: what someone else replaced meanwhile is left alone ------------------------------------------------


def test_someone_wraps_a_hook_point_while_tracing(llama, warm, monkeypatch):
    calls = []
    owner = modeling.PreTrainedModel
    before = vars(owner)["from_pretrained"]
    code = before.__func__.__code__
    with trace() as recorded:
        original = owner.from_pretrained

        @classmethod
        def wrapper(cls, *args, **kwargs):
            calls.append(cls.__name__)
            return original.__func__(cls, *args, **kwargs)

        # Undone by pytest, not by us.
        monkeypatch.setattr(owner, "from_pretrained", wrapper)
        load(llama)
    assert vars(owner)["from_pretrained"] is wrapper
    assert before.__func__.__code__ is code
    load(llama)
    assert calls == ["LlamaForCausalLM"] * 2
    assert len(recorded.trace.loads) == 1


def test_someone_replaces_a_hook_point_while_tracing(llama, warm, monkeypatch):
    owner = modeling.PreTrainedModel
    before = vars(owner)["post_init"]
    code = before.__code__
    same = types.FunctionType(code, before.__globals__, closure=before.__closure__)

    def replacement(self):
        same(self)

    with trace():
        monkeypatch.setattr(owner, "post_init", replacement)
        load(llama)
    assert vars(owner)["post_init"] is replacement
    monkeypatch.undo()
    assert vars(owner)["post_init"].__code__ is code


def test_someone_exchanges_the_code_of_a_hook_point_while_tracing(llama, warm):
    function = vars(modeling.PreTrainedModel)["can_generate"].__func__
    code = function.__code__

    def theirs(cls):
        return False

    try:
        with trace() as recorded:
            function.__code__ = theirs.__code__
            assert transformers.LlamaForCausalLM.can_generate() is False
            load(llama)
        assert function.__code__ is theirs.__code__
        assert recorded.trace.outcome["status"] == "ok"
    finally:
        function.__code__ = code


# -- 1: it never changes the load -----------------------------------------------------------------------


def facts_of(model):
    state = {
        name: (tensor.dtype, tensor.device, tensor.requires_grad, tuple(tensor.shape), tensor.is_contiguous())
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
    }
    pointers = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        pointers.setdefault(id(tensor), []).append(name)
    ties = sorted(names for names in pointers.values() if len(names) > 1)
    hooks = {
        name: [sorted(value) for key, value in vars(module).items() if key.endswith("_hooks") and value]
        for name, module in model.named_modules()
    }
    return state, ties, hooks, model.training, type(model), model.config.to_dict()


def assert_same_model(left, right):
    assert facts_of(left) == facts_of(right)
    others = right.state_dict()
    for name, tensor in left.state_dict().items():
        assert torch.equal(tensor, others[name]), name


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_model_and_the_loading_info_are_the_same(checkpoints, warm, name, dtype):
    owner = transformers.AutoModelForMaskedLM if name == "bert-base" else transformers.AutoModelForCausalLM
    key = "torch_dtype" if transformers.__version__ < "4.56" else "dtype"
    keywords = {"output_loading_info": True, key: getattr(torch, dtype)}
    plain, plain_info = load(checkpoints[name], owner, **keywords)
    with trace() as recorded:
        traced, traced_info = load(checkpoints[name], owner, **keywords)
    assert_same_model(plain, traced)
    assert plain_info == traced_info
    assert not recorded.trace.header["errors"]


def random_states():
    state = torch.get_rng_state()
    try:
        import numpy

        extra = numpy.random.get_state()[1].tolist()
    except ImportError:
        extra = None
    return state.tolist(), random.getstate(), extra


def seed():
    torch.manual_seed(7)
    random.seed(7)
    try:
        import numpy

        numpy.random.seed(7)
    except ImportError:
        pass


def with_head(path):
    seed()
    model = load(path, transformers.AutoModelForSequenceClassification, num_labels=3)
    return model, random_states()


def test_random_state_and_newly_initialised_weights_are_the_same(llama, warm):
    with_head(llama)
    plain, plain_states = with_head(llama)
    with trace() as recorded:
        traced, traced_states = with_head(llama)
    assert plain_states == traced_states
    assert_same_model(plain, traced)
    assert plain.score.weight.std() > 0
    (head,) = [row for row in recorded.trace.tensors if row.name == "score.weight"]
    assert head.provenance == "initialized"


def test_signature_identity_and_subclassing_are_unchanged_while_tracing(llama, warm):
    owner = modeling.PreTrainedModel
    auto = transformers.AutoModelForCausalLM
    facts = lambda: (  # noqa: E731
        inspect.signature(owner.from_pretrained),
        inspect.signature(auto.from_pretrained),
        inspect.signature(transformers.LlamaForCausalLM.__init__),
        inspect.signature(os.path.isfile),
        owner.from_pretrained.__func__,
        owner.from_pretrained.__doc__,
        owner.from_pretrained.__qualname__,
        id(transformers.LlamaForCausalLM.from_pretrained.__func__),
        transformers.LlamaForCausalLM.__mro__,
        os.path.isfile is __import__("genericpath").isfile,
    )
    plain = facts()
    with trace() as recorded:
        assert facts() == plain

        class Sub(transformers.LlamaForCausalLM):
            def __init__(self, config):
                super().__init__(config)
                self.mark = True

        model = Sub.from_pretrained(str(llama))
        assert model.mark
        assert "from_pretrained" not in vars(Sub)
    assert facts() == plain
    assert type(model) is Sub
    (root,) = recorded.trace.loads
    assert root.attributes["returned"] == "Sub"
    assert inspect.getsource(owner.tie_weights).lstrip().startswith("def tie_weights")


@contextlib.contextmanager
def heard():
    """Collects warnings, and log records of transformers, each with the place that it names."""
    records, found = [], []

    class Handler(logging.Handler):
        def emit(self, record):
            records.append((record.pathname, record.lineno, record.funcName, record.getMessage()))

    handler = Handler()
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield found
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
    found += records
    found += [(item.filename, item.lineno, item.category.__name__, str(item.message)) for item in caught]


def test_warnings_and_logs_are_the_same_and_name_the_same_lines(llama, warm):
    def attempt():
        with heard() as found:
            with contextlib.suppress(Exception):
                # 5.x warns with stacklevel=2 that tp_plan is deprecated, then fails without a process group.
                load(llama, transformers.LlamaForCausalLM, tp_plan="auto")
            load(llama, transformers.LlamaForCausalLM)
            load(llama, transformers.AutoModelForSequenceClassification)
        return [item for item in found if "seconds" not in item[-1]]

    attempt()
    plain = attempt()
    with trace():
        traced = attempt()
    assert traced == plain
    assert plain
    deprecations = [item for item in plain if item[2] == "FutureWarning" and "tp_plan" in item[3]]
    assert all(item[0] == __file__ for item in deprecations)


def frames_of(error):
    """Returns the frames of an exception and of its causes, ours removed."""
    chain = []
    while error is not None:
        chain.append(
            (
                type(error),
                str(error),
                [
                    (frame.filename, frame.lineno, frame.name)
                    for frame in traceback.extract_tb(error.__traceback__)
                    if not frames.is_own(frame.filename)
                ],
            )
        )
        error = error.__cause__ or error.__context__
    return chain


def caught(action):
    try:
        action()
    except Exception as error:
        return frames_of(error)
    return None  # not every version minds everything


def test_exceptions_are_the_same_with_the_same_frames(llama, broken, warm, tmp_path):
    actions = (
        lambda: load(broken),
        lambda: load(llama, nosuchkeyword=1),
        lambda: load(tmp_path / "nosuch"),
        lambda: load(llama, transformers.AutoModelForSpeechSeq2Seq),
        lambda: transformers.AutoConfig.from_pretrained(str(tmp_path)),
        lambda: modeling.PreTrainedModel.from_pretrained(),
    )
    raised = []
    for action in actions:
        caught(action)
        plain = caught(action)
        with trace() as recorded:
            traced = caught(action)
        assert traced == plain
        raised.append(plain is not None)
        assert not recorded.trace.header["errors"]
    assert raised.count(True) >= 4


def test_failed_imports_have_the_same_traceback(llama, warm, tmp_path, monkeypatch):
    (tmp_path / "broken_outer.py").write_text("import broken_inner\n")
    (tmp_path / "broken_inner.py").write_text(
        "def fail():\n    raise RuntimeError('in the module')\nfail()\n"
    )
    (tmp_path / "broken_missing.py").write_text("import nosuchmodule_at_all\n")
    (tmp_path / "broken_name.py").write_text("from json import nosuchname\n")
    (tmp_path / "broken_syntax.py").write_text("def (:\n")
    monkeypatch.syspath_prepend(tmp_path)

    class Importing(transformers.LlamaForCausalLM):
        wanted = "json"

        def __init__(self, config):
            __import__(self.wanted)
            super().__init__(config)

    def everything(error):
        """All frames: not even those of the import machinery may differ."""
        return [
            (frame.filename, frame.lineno, frame.name)
            for frame in traceback.extract_tb(error.__traceback__)
            if not frames.is_own(frame.filename)
        ]

    def attempt(module, inside):
        Importing.wanted = module
        try:
            if inside:
                Importing.from_pretrained(str(llama))
            else:
                __import__(module)
        except Exception as error:
            return type(error), str(error), everything(error), frames_of(error)
        finally:
            for name in ("broken_outer", "broken_inner", "broken_missing", "broken_name"):
                sys.modules.pop(name, None)
        raise AssertionError("nothing was raised")

    for module in ("broken_outer", "broken_missing", "broken_name", "broken_syntax", "nosuchmodule_either"):
        for inside in (False, True):
            attempt(module, inside)
            plain = attempt(module, inside)
            with trace():
                traced = attempt(module, inside)
            assert traced == plain, (module, inside)


# -- 3: it never breaks the host -----------------------------------------------------------------------


class Counted:
    """Counts how often each of the loader's own functions really runs."""

    NAMES = ("_load_pretrained_model", "tie_weights", "post_init")

    def __init__(self, monkeypatch):
        self.counts = {}
        for name in self.NAMES:
            raw = inspect.getattr_static(modeling.PreTrainedModel, name)
            function = inspect.unwrap(getattr(raw, "__func__", raw))
            self._count(name, function)

    def _count(self, name, function):
        def factory(original):
            def call(*args, **kwargs):
                self.counts[name] = self.counts.get(name, 0) + 1
                return original(*args, **kwargs)

            return call

        # The innermost handler: what it counts is the original's calls.
        self._undo = [*getattr(self, "_undo", []), patching.patch(function, factory)]

    def take(self):
        counts, self.counts = self.counts, {}
        return counts

    def close(self):
        for undo in self._undo:
            undo()


def fail_with(message):
    def fail(*_, **__):
        raise ValueError(message)

    return fail


def broken_functions():
    from hftrace.record import second_look
    from hftrace.record.hooks import capture
    from hftrace.record.hooks.tables import entry
    from hftrace.system import memory, page_cache

    return {
        "Recorder.begin": (recorder.Recorder, "begin"),
        "Recorder.end": (recorder.Recorder, "end"),
        "Recorder.edge": (recorder.Recorder, "edge"),
        "Recorder.facts": (recorder.Recorder, "facts"),
        "snapshot": (second_look, "snapshot"),
        "keywords_of": (entry, "keywords_of"),
        "note_checkpoint": (capture, "note_checkpoint"),
        "note_file": (capture, "note_file"),
        "HostMemory.read": (memory.HostMemory, "read"),
        "resident_share": (page_cache, "resident_share"),
    }


@pytest.mark.parametrize("name", broken_functions())
def test_an_error_of_our_own_is_counted_and_the_host_goes_on(name, llama, warm, monkeypatch):
    plain = load(llama)
    counted = Counted(monkeypatch)
    try:
        load(llama)
        expected = counted.take()
        assert expected["_load_pretrained_model"] == 1
        tracing = trace()
        owner, attribute = broken_functions()[name]
        with tracing:
            with monkeypatch.context() as patched:
                patched.setattr(owner, attribute, fail_with("a bug of ours"))
                traced = load(llama)
            assert counted.take() == expected
            with monkeypatch.context() as patched:
                patched.setattr(owner, attribute, fail_with("a bug of ours"))
                with pytest.raises(TypeError, match="nosuchkeyword"):
                    load(llama, nosuchkeyword=1)
            # What follows is recorded as if nothing had been.
            load(llama)
    finally:
        counted.close()
    assert_same_model(plain, traced)
    *_, last = tracing.trace.loads
    assert last.status == "ok"
    assert last.attributes["returned"] == "LlamaForCausalLM"
    assert len(tracing.trace.loads) <= 3
    weights = [row for row in tracing.trace.tensors if last.start_ns <= (row.placed_ns or 0) <= last.end_ns]
    assert len(weights) > 10
    if name not in ("note_file", "resident_share"):  # bound elsewhere by name
        errors = tracing.trace.header["errors"]
        assert errors
        assert any("a bug of ours" in error["message"] for error in errors)
        assert all("hook" in error for error in errors)


def test_a_trace_that_cannot_be_made_does_not_cost_the_model(llama, warm, monkeypatch, capsys):
    from hftrace.launch import in_process

    monkeypatch.setattr(in_process, "replay", fail_with("a bug of ours"))
    with trace() as recorded:
        model = load(llama)
    with pytest.raises(hftrace.HftraceError, match="none could be made"):
        _ = recorded.trace
    assert model is not None
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("hftrace: no trace could be made (ValueError: a bug of ours)")
    kept = kept_run(said)
    assert list(kept.glob("journal-*"))
    shutil.rmtree(kept)

    @trace()
    def block():
        raise KeyError("the user's own")

    with pytest.raises(KeyError, match="the user's own"):
        block()
    shutil.rmtree(kept_run(capsys.readouterr().err))


def kept_run(said):
    """Returns the directory that a message says is kept."""
    return Path(said.rpartition("`hftrace recover ")[2].partition("`")[0])


def test_a_hook_point_that_cannot_be_looked_at_is_counted(llama, warm, monkeypatch):
    from hftrace.record.hooks import lookup

    plain = lookup.resolve

    def resolve(target):
        if target.endswith("tie_weights"):
            raise ValueError("a bug of ours")
        return plain(target)

    monkeypatch.setattr(lookup, "resolve", resolve)
    with trace() as recorded:
        load(llama)
    assert "a bug of ours" in recorded.trace.header["errors"][0]["message"]
    assert recorded.trace.outcome["status"] == "ok"
    assert "hook-errors" in {finding.name for finding in findings(recorded.trace)}
    monkeypatch.undo()
    with trace() as whole:
        load(llama)
    assert "hook-errors" not in {finding.name for finding in findings(whole.trace)}


def test_a_start_that_fails_leaves_nothing_and_the_block_runs(llama, warm, monkeypatch, capsys):
    from hftrace.record.tracer import Tracer

    monkeypatch.setattr(Tracer, "_auto_classes", fail_with("a bug of ours"))
    recording = trace()
    with recording:
        model = load(llama)
    assert model is not None
    assert "nothing is recorded (ValueError: a bug of ours)" in capsys.readouterr().err
    with pytest.raises(hftrace.HftraceError, match="said on stderr"):
        _ = recording.trace
    assert own_codes(warm.functions) == []
    assert not patching._sites


def test_many_errors_of_our_own_are_counted_and_not_all_written(llama, warm, monkeypatch):
    from hftrace.system.memory import HostMemory

    monkeypatch.setattr(recorder, "MAX_ERRORS", 5)
    with trace() as recorded, monkeypatch.context() as patched:
        patched.setattr(HostMemory, "read", fail_with("a bug of ours"))
        for _ in range(3):
            load(llama)
    errors = recorded.trace.header["errors"]
    assert len(errors) == 6
    assert "more errors" in errors[-1]["message"]


def test_a_missing_hook_point_is_reported_and_tracing_goes_on(llama, warm, monkeypatch):
    from hftrace.record.child import inspection

    target = "transformers.modeling_utils:PreTrainedModel.post_init"
    original = vars(modeling.PreTrainedModel)["post_init"]
    # There, and working, but no function that can be traced.
    monkeypatch.setattr(modeling.PreTrainedModel, "post_init", functools.partialmethod(original))
    with trace() as recorded:
        model = load(llama)
    assert recorded.trace.environment["hooks"]["missing"] == [target]
    assert recorded.trace.outcome["status"] == "ok"
    assert recorded.trace.tensors
    assert not any(span.function == "PreTrainedModel.post_init" for span in recorded.trace.spans)
    rows = {row["target"]: row["status"] for row in inspection._hook_points()}
    assert rows[target] in ("missing", "builtin")
    monkeypatch.undo()
    assert_same_model(load(llama), model)


def test_a_deleted_hook_point_is_reported(llama, warm, monkeypatch):
    target = "transformers.modeling_utils:PreTrainedModel.can_generate"
    original = vars(modeling.PreTrainedModel)["can_generate"]
    base = modeling.PreTrainedModel.__mro__[1]
    monkeypatch.delattr(modeling.PreTrainedModel, "can_generate")
    monkeypatch.setattr(base, "can_generate", original, raising=False)
    with trace() as recorded:
        load(llama)
    # It is one that not every version has: its absence is no news, and breaks nothing.
    assert target not in recorded.trace.environment["hooks"]["missing"]
    assert not any(span.function == "PreTrainedModel.can_generate" for span in recorded.trace.spans)
    assert recorded.trace.outcome["status"] == "ok"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_while_tracing_writes_nothing_into_the_journal(llama, warm, tmp_path):
    proof = tmp_path / "proof"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on: fork with threads
        with trace() as recorded:
            load(llama)
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    # No tensor work: torch's own threads do not survive a fork.
                    transformers.AutoConfig.from_pretrained(str(llama))
                    with contextlib.suppress(Exception):
                        load(tmp_path / "nosuch")
                    proof.write_text("the child has worked")
                    code = 0
                finally:
                    os._exit(code)
            deadline = time.monotonic() + 60
            while True:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    break
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    raise AssertionError("the child hangs")
                time.sleep(0.01)
            load(llama)
    assert os.waitstatus_to_exitcode(status) == 0
    assert proof.read_text() == "the child has worked"
    assert [process["pid"] for process in recorded.trace.header["processes"]] == [os.getpid()]
    assert [root.status for root in recorded.trace.loads] == ["ok", "ok"]
    assert recorded.trace.header["lost"]["events"] == 0
    assert {span.pid for span in recorded.trace.spans} == {os.getpid()}
    assert not recorded.trace.header["errors"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_that_is_forked_in_a_load_watches_no_collector(llama, warm, monkeypatch):
    post_init = modeling.PreTrainedModel.post_init
    codes = []

    def forking(model):
        if not codes:
            assert len(gc.callbacks) > len(warm.callbacks)
            pid = os.fork()
            if pid == 0:
                os._exit(0 if gc.callbacks == warm.callbacks else 1)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        post_init(model)

    monkeypatch.setattr(modeling.PreTrainedModel, "post_init", forking)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on: fork with threads
        with trace() as recorded:
            load(llama)
    assert codes == [0]
    assert not recorded.trace.header["errors"]


def test_a_trace_that_is_left_in_a_forked_child_is_left_alone(llama, warm, tmp_path):
    """The child runs on to the end of the block: its own exit writes no trace over the parent's."""
    path = tmp_path / "trace.json"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        tracing = trace(path)
        parent = os.getpid()
        with tracing:
            load(llama)
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    tracing.__exit__(None, None, None)
                    code = 0
                finally:
                    os._exit(code)
            _, status = os.waitpid(pid, 0)
            assert os.getpid() == parent
            assert os.waitstatus_to_exitcode(status) == 0
            load(llama)
    assert len(hftrace.Trace.open(path).loads) == 2
    assert len(tracing.trace.loads) == 2


def test_the_samples_of_a_trace_are_this_process(llama, warm, tmp_path):
    with trace(tmp_path / "out.json.gz", sample_hz=200) as recorded:
        load(llama)
        time.sleep(0.1)
    assert {row.pid for row in recorded.trace.samples if row.rss_anon_bytes} == {os.getpid()}
    assert Path(tmp_path / "out.json.gz").exists()
