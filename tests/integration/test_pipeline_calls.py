"""Calls of pipelines: what is told of them, whether they loaded their model or were handed one."""

from __future__ import annotations

import pytest

import hftrace
from hftrace.record.hooks import pipelines
from hftrace.synth import plan, write

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers.pipelines import Pipeline  # noqa: E402

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]

ASKED = {"max_new_tokens": 2, "do_sample": False, "pad_token_id": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("pipelines") / "llama"
    write(plan("llama-2-7b", size="1MB"), place)
    return place


@pytest.fixture(scope="module")
def loaded(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model.generation_config.eos_token_id = None
    return model, transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def record(action):
    with hftrace.trace(None) as recorded:
        returned = action()
    assert not recorded.trace.header["errors"]
    return recorded.trace, returned


def below(trace, span):
    return [each for each in trace.spans if each.parent == span.id and each.phase != "import"]


def roots(trace):
    left_out = ("import", "release")  # a model goes with its pipeline
    return [each for each in trace.spans if each.parent is None and each.phase not in left_out]


def test_a_call_is_told_step_by_step(folder, loaded):
    def run():
        made = transformers.pipeline("text-generation", model=str(folder), tokenizer=loaded[1])
        made.model.generation_config.eos_token_id = None
        return made("Hello", **ASKED)

    expected = run()
    trace, returned = record(run)
    assert returned == expected
    load, call = roots(trace)
    assert (load.phase, call.phase) == ("load", "forward")
    assert len(trace.loads) == 1
    assert call.name == "TextGenerationPipeline.__call__"
    assert call.attributes["task"] == "text-generation"
    assert "test_pipeline_calls.py" in call.attributes["caller"]
    assert call.rss_anon_bytes is not None
    steps = below(trace, call)
    assert [(step.phase, step.name.rpartition(".")[2]) for step in steps] == [
        ("tokenize", "preprocess"),
        ("forward", "forward"),
        ("tokenize", "postprocess"),
    ]
    inside = below(trace, steps[1])
    assert [step.phase for step in inside] == ["dispatch", "generate", "dispatch"]
    assert [step.phase for step in below(trace, inside[1])] == ["prefill", "decode"]
    assert inside[1].attributes["new_tokens"] == 2
    times = [(step.start_ns, step.end_ns) for step in steps]
    assert times == sorted(times)
    assert call.start_ns <= times[0][0]
    assert times[-1][1] <= call.end_ns


def test_a_model_that_was_handed_over_and_a_list(loaded):
    model, tokenizer = loaded

    def run():
        made = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
        return made(["a", "b"], **ASKED)

    expected = run()
    trace, returned = record(run)
    assert returned == expected
    call = roots(trace)[-1]
    assert [step.phase for step in below(trace, call)] == ["tokenize", "forward", "tokenize"] * 2
    assert len([span for span in trace.spans if span.phase == "generate"]) == 2


def test_one_that_goes_through_a_generator_has_no_small_steps(loaded, monkeypatch):
    model, tokenizer = loaded
    made = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
    # 5.8 goes through it at once, and returns a list.
    later = [] if isinstance(made((text for text in "ab"), **ASKED), list) else ["forward", "forward"]
    monkeypatch.setattr(pipelines, "LEAST_NS", 10**15)  # the machine may be slow
    trace, returned = record(lambda: list(made((text for text in "ab"), **ASKED)))
    assert len(returned) == 2
    assert [span.name.rpartition(".")[2] for span in roots(trace)] == ["__call__", *later]
    # Where they take long they are told.
    monkeypatch.setattr(pipelines, "LEAST_NS", 0)
    trace, _ = record(lambda: list(made((text for text in "ab"), **ASKED)))
    assert [span.name.rpartition(".")[2] for span in roots(trace)].count("preprocess") == len(later)


def test_a_tokenizer_that_takes_long(loaded, monkeypatch):
    _, tokenizer = loaded
    trace, _ = record(lambda: [tokenizer("a") for _ in range(50)])
    assert not roots(trace)
    monkeypatch.setattr(pipelines, "LEAST_NS", 0)
    trace, _ = record(lambda: tokenizer("a"))
    (root,) = roots(trace)
    assert (root.phase, root.name) == ("tokenize", f"{type(tokenizer).__name__}.__call__")


class Lengths(Pipeline):
    """A pipeline of the program's own, which fails where it is told to."""

    def _sanitize_parameters(self, **kwargs):
        return {}, {}, {}

    def preprocess(self, inputs):
        if inputs == "fail":
            raise ValueError("as it was told to")
        return {"length": torch.tensor(len(inputs))}

    def _forward(self, model_inputs):
        return model_inputs

    def postprocess(self, model_outputs):
        return int(model_outputs["length"])


def test_a_kind_of_ones_own_that_fails(loaded):
    model, tokenizer = loaded
    own = Lengths(model=model, tokenizer=tokenizer, task="lengths")

    def run():
        with pytest.raises(ValueError, match="as it was told to"):
            own("fail")
        return own("four")

    trace, returned = record(run)
    assert returned == 4
    failed, call = roots(trace)
    assert (failed.status, failed.attributes["error"]) == ("error", "ValueError: as it was told to")
    assert [step.status for step in below(trace, failed)] == ["error"]
    assert [step.name for step in below(trace, call)] == [
        "Lengths.preprocess",
        "Lengths.forward",
        "Lengths.postprocess",
    ]


def test_what_makes_its_inputs_one_after_the_other():
    config = transformers.BertConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    model = transformers.BertForQuestionAnswering(config).eval()

    class Words:
        """Stands in for a tokenizer: only that there is one is asked."""

    class Chunks(transformers.pipelines.base.ChunkPipeline):
        def _sanitize_parameters(self, **kwargs):
            return {}, {}, {}

        def preprocess(self, inputs):
            yield from ({"input_ids": torch.tensor([[number, 2, 3]])} for number in inputs)

        def _forward(self, model_inputs):
            return {"logits": self.model(**model_inputs).start_logits}

        def postprocess(self, model_outputs):
            return [each["logits"].shape for each in model_outputs]

    def run():
        return Chunks(model=model, tokenizer=Words(), task="chunks").run_single([1, 2], {}, {}, {})

    expected = run()
    trace, returned = record(run)
    assert returned == expected
    names = [span.name for span in trace.spans if span.phase == "forward"]
    assert names == ["Chunks.forward"] * 2


def test_nothing_is_left_behind(loaded):
    model, tokenizer = loaded
    names = ("__call__", "forward", "_ensure_tensor_on_device")
    made = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
    functions = [vars(Pipeline)[name] for name in names] + [vars(type(made))["preprocess"]]
    codes = [function.__code__ for function in functions]
    with hftrace.trace(None):
        made("a", **ASKED)
        assert all(function.__code__ is not code for function, code in zip(functions, codes, strict=True))
    assert [function.__code__ for function in functions] == codes
