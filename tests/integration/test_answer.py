"""``hftrace load --generate``: the first answer of a model, and what is said where there is none."""

from __future__ import annotations

import json
import shutil

import pytest

import hftrace
from hftrace.analysis.summary import summary
from hftrace.record.child.ready import Readiness
from hftrace.record.tracer import Tracer
from hftrace.render.views.summary import labelled_facts
from hftrace.replay.trace import replay
from hftrace.synth import plan, write

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]

TEMPLATE = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}<answer>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("answer") / "llama"
    write(plan("llama-2-7b", size="1MB"), place)
    path = place / "generation_config.json"
    told = json.loads(path.read_text()) if path.exists() else {}
    # Sampling that is asked for by the checkpoint, and an end that random weights could choose.
    path.write_text(json.dumps({**told, "do_sample": True, "temperature": 0.6, "eos_token_id": None}))
    return place


@pytest.fixture(scope="module")
def model(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder)


def answer(place, source, model, **asked):
    """Does in this process what the loading process does after a load; returns the spans by phase."""
    tracer = Tracer(place)
    tracer.start()
    request = {"model": str(source), "generate": {"max_new_tokens": 4, "chat": False, **asked}}
    held = [model]
    try:
        Readiness(tracer.recorder, {**request, "release": True}).run(held)
    finally:
        tracer.stop()
    trace = replay(place)
    assert not trace.header["errors"]
    assert not len(trace.loads)
    # Of one phase the outermost.
    return {span.phase: span for span in reversed(trace.spans) if span.phase != "import"}


def test_tokenizer_tokens_and_text(folder, model, tmp_path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer("Hello", return_tensors="pt")
    torch.manual_seed(3)
    state = torch.get_rng_state()
    spans = answer(tmp_path, folder, model, text="Hello")
    assert torch.equal(torch.get_rng_state(), state)
    assert model.generation_config.do_sample
    expected = model.generate(**inputs, max_new_tokens=4, do_sample=False, pad_token_id=0)
    length = inputs["input_ids"].shape[1]
    noted = spans["generate"].attributes
    assert spans["generate"].status == "ok", noted
    assert noted["text"] == tokenizer.decode(expected[0][length:], skip_special_tokens=True)
    assert (noted["prompt_tokens"], noted["new_tokens"], noted["device"]) == (length, 4, "cpu")
    assert spans["tokenize"].attributes["tokens"] == length
    assert spans["tokenize"].attributes["characters"] == 5
    assert spans["prefill"].parent == spans["decode"].parent == spans["generate"].id
    ends = [spans[phase].end_ns for phase in ("tokenizer", "tokenize", "generate")]
    assert ends == sorted(ends)
    assert all(spans[phase].parent is None for phase in ("tokenize", "generate"))
    # This process holds it still.
    assert spans["release"].attributes["freed"] is False


def test_a_chat_goes_through_the_template(folder, model, tmp_path):
    place = tmp_path / "with-template"
    shutil.copytree(folder, place)
    path = place / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": TEMPLATE}))
    spans = answer(tmp_path, place, model, text="Hi", chat=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    written = tokenizer("<user>Hi<answer>", add_special_tokens=False)["input_ids"]
    assert spans["tokenize"].attributes["tokens"] == len(written)
    assert spans["generate"].status == "ok"


def makes_a_tokenizer(folder):
    """Whether transformers makes one out of nothing, as 5.0 and 5.3 do."""
    try:
        transformers.AutoTokenizer.from_pretrained(folder)
    except Exception:
        return False
    return True


def test_what_cannot_answer_is_told_in_one_sentence(folder, model, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(folder / "config.json", bare)
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=50
    )
    cases = [
        (folder, transformers.BertModel(config), "BertModel has nothing to generate with"),
        (folder, config, "which is no torch.nn.Module"),
    ]
    if not makes_a_tokenizer(bare):
        cases.append((bare, model, f"{bare} has no tokenizer that can be loaded ("))
    for number, (source, made, words) in enumerate(cases):
        place = tmp_path / str(number)
        place.mkdir()
        spans = answer(place, source, made, text="Hello")
        assert set(spans) <= {"tokenizer", "processor", "config", "release"}
        told = spans["tokenizer"].attributes
        assert spans["tokenizer"].status == "error"
        assert words in told["error"]
        assert told["asked"] == "generate"
        assert "\n" not in told["error"]
        assert "Traceback" not in told["error"]


@pytest.mark.sparse
def test_the_command(folder, tmp_path, run_cli):
    out = tmp_path / "out.json"
    asked = ("--generate", "Hello", "--max-new-tokens", "3", "--release")
    done = run_cli("load", folder, *asked, "-o", out)
    assert done.returncode == 0, done.stderr
    trace = hftrace.Trace.open(out)
    assert not trace.header["errors"]
    assert [load.name for load in trace.loads] == ["AutoModelForCausalLM"]
    roots = [span.phase for span in trace.spans if span.parent is None and span.phase != "import"]
    assert roots == ["load", "tokenizer", "tokenize", "generate", "release"]
    assert next(span for span in trace.spans if span.phase == "release").attributes["freed"] is True
    (each,) = summary(trace)["generation"]["each"]
    assert (each["asked"], each["new_tokens"], each["steps"]) == (True, 3, 3)
    assert each["cache_bytes"]["cpu"] > 0
    facts = dict(labelled_facts(trace))
    assert facts["answer"].startswith("first token after ")
    assert "3 new" in facts["answer"]
    assert facts["text"] == f'"{each["text"].strip()}"'
    assert "ready" not in facts
    assert "answer" in done.stdout


@pytest.mark.sparse
@pytest.mark.process
def test_wrong_usage_and_refusals(folder, tmp_path, run_cli):
    for arguments, words in {
        ("--chat",): "--chat is about the answer to a prompt: give one with --generate",
        ("--max-new-tokens", "3"): "--max-new-tokens is about the answer to a prompt",
    }.items():
        done = run_cli("load", folder, *arguments)
        assert done.returncode == 2
        assert words in done.stderr
    done = run_cli("load", folder, "--class", "LlamaModel", "--generate", "Hello", "-o", tmp_path / "o.json")
    assert done.returncode == 0
    complaint = "hftrace: --generate failed, the load did not: LlamaModel has nothing to generate with"
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
