"""``generate`` inside programs: what is told of it, and that it does what it does untraced."""

from __future__ import annotations

import gc
import sys
import threading

import pytest

import hftrace
from hftrace.record import calls
from hftrace.record.hooks.cache_bytes import cache_facts
from hftrace.synth import plan, write

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers.generation import utils  # noqa: E402

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]

TEXT = "Hello"
ASKS = "_has_unfinished_sequences"
GREEDY = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("generation") / "llama"
    write(plan("llama-2-7b", size="1MB"), place)
    return place


@pytest.fixture(scope="module")
def model(folder):
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder)
    loaded.generation_config.eos_token_id = None  # random weights may choose it at once
    return loaded


@pytest.fixture(scope="module")
def tokenizer(folder):
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def prompt(tokenizer):
    return dict(tokenizer(TEXT, return_tensors="pt"))


@pytest.fixture(autouse=True)
def one_thread():
    """On a busy machine, threads that wait for one another take a hundred times longer for tiny steps."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def record(action):
    with hftrace.trace(None) as recorded:
        returned = action()
    assert not recorded.trace.header["errors"]
    assert recorded.trace.outcome["status"] == "ok"
    return recorded.trace, returned


def of_phase(trace, phase):
    return [span for span in trace.spans if span.phase == phase]


def bytes_of_cache(model, length, rows=1):
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = config.hidden_size // config.num_attention_heads
    item = next(model.parameters()).element_size()
    return 2 * config.num_hidden_layers * rows * heads * size * length * item


def test_prefill_decode_tokens_and_cache(model, prompt):
    before = model.generate(**prompt, **GREEDY)
    trace, after = record(lambda: model.generate(**prompt, **GREEDY))
    assert torch.equal(before, after)
    (span,), (prefill,), (decode,) = (of_phase(trace, name) for name in ("generate", "prefill", "decode"))
    assert len(trace.loads) == 0
    assert (span.parent, prefill.parent, decode.parent) == (None, span.id, span.id)
    assert span.name == "LlamaForCausalLM.generate"
    assert span.attributes["caller"].partition(":")[0].endswith("test_generation.py")
    assert (
        span.start_ns <= prefill.start_ns < prefill.end_ns == decode.start_ns < decode.end_ns <= span.end_ns
    )
    length = prompt["input_ids"].shape[1]
    noted = span.attributes
    assert (noted["batch"], noted["prompt_tokens"], noted["sequences"]) == (1, length, 1)
    assert (noted["new_tokens"], noted["steps"]) == (5, 5)
    assert noted["first_token_ns"] == prefill.end_ns - span.start_ns
    times = noted["token_ns"]
    assert times["median"] <= decode.duration_ns
    assert 0 < times["first"] + times["last"] <= decode.duration_ns
    assert (prefill.attributes["tokens"], decode.attributes["steps"]) == (length, 4)
    # The last token was never fed back.
    assert noted["cache"]["bytes"] == {"cpu": bytes_of_cache(model, length + 4)}
    assert span.rss_anon_bytes is not None


@pytest.mark.parametrize("asked", [{"num_beams": 2, "do_sample": False}, {"do_sample": True, "top_k": 20}])
def test_the_same_tokens_and_random_numbers_whatever_the_loop(asked, model, prompt):
    wanted = {**GREEDY, **asked}
    torch.manual_seed(11)
    before = model.generate(**prompt, **wanted)
    state = torch.get_rng_state()
    torch.manual_seed(11)
    trace, after = record(lambda: model.generate(**prompt, **wanted))
    assert torch.equal(before, after)
    assert torch.equal(torch.get_rng_state(), state)
    (span,) = of_phase(trace, "generate")
    assert span.attributes["new_tokens"] == after.shape[1] - prompt["input_ids"].shape[1]
    assert len(of_phase(trace, "prefill")) == len(of_phase(trace, "decode")) == 1
    rows = asked.get("num_beams", 1)
    length = prompt["input_ids"].shape[1] + 4
    assert span.attributes["cache"]["bytes"] == {"cpu": bytes_of_cache(model, length, rows)}


def test_a_streamer_on_a_thread_of_its_own(model, tokenizer, prompt):
    class Words(transformers.TextIteratorStreamer):
        """Gives every token away at once: bytes that mean nothing have no blanks between them."""

        def put(self, value):
            if self.skip_prompt and self.next_tokens_are_prompt:
                self.next_tokens_are_prompt = False
            else:
                self.on_finalized_text(f"{value.tolist()} ")

    def stream():
        streamer = Words(tokenizer, skip_prompt=True)
        thread = threading.Thread(target=model.generate, kwargs={**prompt, **GREEDY, "streamer": streamer})
        thread.start()
        texts = list(streamer)
        thread.join()
        return texts

    expected = stream()
    trace, texts = record(stream)
    assert texts == expected
    assert len([text for text in texts if text]) == 5
    (span,) = of_phase(trace, "generate")
    assert span.thread != threading.get_native_id()
    assert span.attributes["streamer"] == "Words"
    noted = span.attributes
    # It has the text a moment before the loop asks whether there is more to do.
    assert 0 < noted["first_text_ns"] < noted["first_token_ns"] + noted["token_ns"]["first"]


def test_the_prompt_that_a_streamer_holds_back_is_no_new_text(model, tokenizer, prompt, capsys):
    streamer = transformers.TextStreamer(tokenizer)
    model.generate(**prompt, **GREEDY, streamer=streamer)
    expected = capsys.readouterr().out
    trace, _ = record(
        lambda: model.generate(**prompt, **GREEDY, streamer=transformers.TextStreamer(tokenizer))
    )
    assert capsys.readouterr().out == expected
    (span,) = of_phase(trace, "generate")
    assert "first_text_ns" not in span.attributes


def test_a_model_that_helps_another_one_is_no_span(model, prompt):
    trace, _ = record(lambda: model.generate(**prompt, **GREEDY, assistant_model=model))
    (span,) = of_phase(trace, "generate")
    assert span.attributes["new_tokens"] == 5
    assert span.attributes["steps"] < 5
    assert len(of_phase(trace, "prefill")) == 1


def test_an_encoder_runs_before_the_prefill():
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
    config = transformers.BartConfig(
        vocab_size=99,
        max_position_embeddings=64,
        d_model=32,
        forced_eos_token_id=None,
        **sizes,
        **heads,
        **tokens,
    )
    coder = transformers.BartForConditionalGeneration(config).eval()
    coder.generation_config.eos_token_id = None
    given = torch.tensor([[5, 6, 7, 2]])
    trace, returned = record(lambda: coder.generate(given, max_new_tokens=3, num_beams=1))
    assert returned.shape == (1, 4)
    (span,) = of_phase(trace, "generate")
    encoder, prefill = of_phase(trace, "prefill")
    assert (encoder.name, prefill.name) == ("encoder", "prefill")
    assert encoder.end_ns <= prefill.start_ns
    assert span.attributes["prompt_tokens"] == 4
    assert (span.attributes["new_tokens"], prefill.attributes["tokens"]) == (3, 1)
    # Of the encoder's four positions, and of the three tokens that went into the decoder but for the last.
    assert span.attributes["cache"]["bytes"]["cpu"] // (2 * 32 * 4) == 4 + 3


def test_what_fails_is_told_and_leaves_nothing_open(model, prompt):
    class Full(Exception):
        pass

    class Stops(transformers.StoppingCriteria):
        def __call__(self, input_ids, scores, **others):
            if input_ids.shape[1] > prompt["input_ids"].shape[1] + 2:
                raise Full("no more")
            # To 4.38 a truth value, later one for each row.
            return hasattr(utils.GenerationMixin, ASKS) and torch.zeros(len(input_ids), dtype=torch.bool)

    def fail():
        with pytest.raises(Full) as caught:
            model.generate(**prompt, **GREEDY, stopping_criteria=[Stops()])
        model.generate(**prompt, **GREEDY)
        return caught.traceback

    trace, frames = record(fail)
    first, second = of_phase(trace, "generate")
    assert (first.status, second.status) == ("error", "ok")
    assert first.attributes["error"] == "Full: no more"
    assert first.attributes["new_tokens"] == 2
    assert second.parent is None
    assert any(frame.name == "__call__" for frame in frames)


def test_nothing_is_left_and_nothing_is_kept(model, prompt):
    names = (
        "generate",
        "_get_stopping_criteria",
        "_validate_generated_length",
        "_update_model_kwargs_for_generation",
    )
    functions = [vars(utils.GenerationMixin)[name] for name in names]
    codes = [function.__code__ for function in functions]
    attributes = dict(vars(model))
    caches: list[object] = []

    def run():
        if hasattr(transformers, "DynamicCache") and hasattr(utils.GenerationMixin, ASKS):
            caches.append(transformers.DynamicCache())
            name = "cache" if "cache" in sys.modules["inspect"].signature(model.forward).parameters else None
            return model.generate(**prompt, **GREEDY, **{name or "past_key_values": caches[0]})
        return model.generate(**prompt, **GREEDY)

    gc.collect()
    with hftrace.trace(None) as recorded:
        run()
        held = sys.getrefcount(caches[0]) if caches else 0
        inside = [function.__code__ for function in functions]
    assert not recorded.trace.header["errors"]
    assert all(one is not other for one, other in zip(inside, codes, strict=True))
    assert [function.__code__ for function in functions] == codes
    assert vars(model) == attributes
    # The list, and the argument of getrefcount.
    assert held in (0, 2)


def test_a_load_inside_is_a_load(model, prompt, folder):
    class Looks(transformers.LogitsProcessor):
        def __call__(self, input_ids, scores):
            transformers.AutoConfig.from_pretrained(folder)
            return scores

    processors = transformers.LogitsProcessorList([Looks()])
    asked = {**GREEDY, "max_new_tokens": 1}
    trace, _ = record(lambda: model.generate(**prompt, **asked, logits_processor=processors))
    (load,) = trace.loads
    (span,) = of_phase(trace, "generate")
    parents = {each.id: each.parent for each in trace.spans}
    above = parents[load.span]
    while parents[above] is not None:
        above = parents[above]
    assert above == span.id


def test_calls_beyond_the_limit_are_counted(model, prompt, monkeypatch):
    monkeypatch.setattr(calls, "MAX_SPANS", 4)
    asked = {**GREEDY, "max_new_tokens": 2}
    trace, _ = record(lambda: [model.generate(**prompt, **asked) for _ in range(4)])
    # The first with both of its parts, the second without.
    assert [span.phase for span in trace.spans if span.phase != "import"] == [
        "generate",
        "prefill",
        "decode",
        "generate",
    ]
    left_out = trace.header["calls"]["left_out"]["generate"]
    assert left_out["calls"] == 2
    assert left_out["duration_ns"] > 0


class Layer:
    def __init__(self, *tensors):
        self.tensors = tensors


class MyCache:
    def __init__(self, *layers):
        self.layers = list(layers)


class MyCacheLayer(Layer):
    pass


@pytest.mark.once
def test_bytes_of_a_cache():
    plain = torch.zeros(3, 4)
    assert cache_facts(None) is None
    assert cache_facts(((plain, plain), (torch.zeros(2, dtype=torch.int8), None))) == {
        "class": "tuple",
        "bytes": {"cpu": 48 + 2},
    }
    made = MyCache(MyCacheLayer(plain, torch.zeros(1, device="meta")))
    made.again = made
    made.model = torch.nn.Linear(8, 8)
    assert cache_facts(made) == {"class": "MyCache", "bytes": {"cpu": 48, "meta": 4}}
    # Somebody else's object is none of the cache's.
    assert cache_facts(MyCache(Layer(plain))) == {"class": "MyCache"}
