"""Every way to load something is a load: with its class, request, files, time, and a ledger that is true.

sentence-transformers is the real package, where it is installed; a local checkpoint of one layer stands for
every model. What no library offers (a user's own class) is defined here.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.version import Version
from truth import disagreements

import hftrace
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.time.phases import attributed_share, phase_times
from hftrace.analysis.time.weights import weight_bytes
from hftrace.render.views import load as load_view
from hftrace.render.views.options import ViewOptions

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
accelerate = pytest.importorskip("accelerate")
safetensors_torch = pytest.importorskip("safetensors.torch")
hub = pytest.importorskip("huggingface_hub")

pytestmark = pytest.mark.filterwarnings("default")

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
WEIGHTS = "model.safetensors"
SOURCELESS = {"computed", "initialized", "tied", "unknown"}
"""What a healthy load may hold besides what is in its files."""


class Mixed(torch.nn.Module, hub.PyTorchModelHubMixin):
    """A module with huggingface_hub's ``from_pretrained``."""

    def __init__(self, size: int = 4) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(size, size)


class Wrapper(torch.nn.Module):
    """A user's module, whose ``from_pretrained`` loads two models."""

    def __init__(self, one, other):
        super().__init__()
        self.one, self.other = one, other

    @classmethod
    def from_pretrained(cls, path, encoder):
        one = transformers.AutoModelForCausalLM.from_pretrained(path)
        return cls(one, transformers.AutoModel.from_pretrained(encoder))


class Bundle:
    """A user's class that is no module: what diffusers' pipelines are."""

    @classmethod
    def from_pretrained(cls, path):
        made = cls()
        made.tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        made.denoiser = transformers.AutoModelForCausalLM.from_pretrained(path)
        return made


class Parts:
    """A user's class that is no module, of two models by huggingface_hub's ``from_pretrained``."""

    @classmethod
    def from_pretrained(cls, path):
        made = cls()
        made.one, made.other = Mixed.from_pretrained(path), Mixed.from_pretrained(path)
        return made


class Around(torch.nn.Module):
    """A user's module around a model that it is given, and another one."""

    @classmethod
    def from_pretrained(cls, inner, path):
        made = cls()
        made.inner, made.own = inner, Mixed.from_pretrained(path)
        return made


class Maker:
    """A user's factory, by a static method."""

    @staticmethod
    def from_pretrained(path):
        return transformers.AutoModelForCausalLM.from_pretrained(path)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("entries")
    torch.manual_seed(3)
    found = SimpleNamespace(
        llama=root / "llama", bert=root / "bert", decoder=root / "decoder", image=root / "image"
    )
    llama = transformers.LlamaConfig(num_attention_heads=2, num_key_value_heads=2, **SIZES)
    transformers.LlamaForCausalLM(llama).save_pretrained(found.llama)
    bert = transformers.BertConfig(num_attention_heads=2, max_position_embeddings=16, **SIZES)
    transformers.BertModel(bert).save_pretrained(found.bert)
    bert.is_decoder = bert.add_cross_attention = True
    transformers.BertLMHeadModel(bert).save_pretrained(found.decoder)
    image = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=8,
        patch_size=4,
    )
    transformers.ViTModel(image).save_pretrained(found.image)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=_tokenizer(), unk_token="[UNK]")
    fast.save_pretrained(found.llama)
    (found.bert / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    found.features = root / "features"
    transformers.WhisperFeatureExtractor(feature_size=16).save_pretrained(found.features)
    found.mixed = root / "mixed"
    Mixed(4).save_pretrained(found.mixed)
    found.pickle = root / "pytorch_model.bin"
    torch.save(transformers.LlamaForCausalLM(llama).state_dict(), found.pickle)
    return found


def _tokenizer():
    tokenizers = pytest.importorskip("tokenizers")
    return tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))


def traced(load):
    with hftrace.trace(sample_hz=0) as recorded:
        result = load()
    trace = recorded.trace
    assert not trace.header["errors"]
    assert trace.outcome["status"] == "ok"
    return result, trace


def empty(place):
    """A model with random weights, made before anything is traced."""
    torch.manual_seed(9)
    config = transformers.AutoConfig.from_pretrained(place)
    return transformers.AutoModelForCausalLM.from_config(config)


def into(place, load):
    """A load into a model that is there already; returns the model."""
    model = empty(place)

    def run():
        load(model)
        return model

    return run


def on_meta(place, **keywords):
    with accelerate.init_empty_weights():
        model = empty(place)
    model.tie_weights()
    return lambda: accelerate.load_checkpoint_and_dispatch(model, str(place), **keywords)


# What it loads, a file that it must have found, the class, and where.
CONFIGS = [
    ("generation_config", "generation_config.json", "GenerationConfig", "llama"),
    ("config", "config.json", "LlamaConfig", "llama"),
    ("config", "config.json", "AutoConfig", "llama"),
    ("tokenizer", "tokenizer.json", "PreTrainedTokenizerFast", "llama"),
    ("tokenizer", "tokenizer.json", "AutoTokenizer", "llama"),
    ("processor", "preprocessor_config.json", "WhisperFeatureExtractor", "features"),
]


@pytest.mark.parametrize(("what", "file", "owner", "place"), CONFIGS, ids=[row[2] for row in CONFIGS])
def test_a_load_without_weights(what, file, owner, place, places):
    source = str(getattr(places, place))
    _, trace = traced(lambda: getattr(transformers, owner).from_pretrained(source))
    (load,) = trace.loads
    request = load.attributes["request"]
    own = getattr(transformers, owner).__name__  # 5.x has other names for some of them
    assert (load.name, request["class"], request["what"]) == (own, own, what)
    assert request["model"] == source
    assert file in {row.name for row in trace.files if row.result == "local"}
    assert load.end_ns > load.start_ns
    assert len(trace.tensors) == 0
    # Its own span has the phase, so that the time of the load is not the time of nothing.
    assert what in {span.phase for span in trace.spans if span.parent == load.id}


MODELS = {
    "concrete class": (
        "LlamaForCausalLM",
        "model",
        lambda p: lambda: transformers.LlamaForCausalLM.from_pretrained(p.llama),
    ),
    "encoder and decoder": (
        "EncoderDecoderModel",
        "model",
        lambda p: (
            lambda: transformers.EncoderDecoderModel.from_encoder_decoder_pretrained(
                str(p.bert), str(p.decoder)
            )
        ),
    ),
    "image and text": (
        "VisionTextDualEncoderModel",
        "model",
        lambda p: (
            lambda: transformers.VisionTextDualEncoderModel.from_vision_text_pretrained(
                str(p.image), str(p.bert)
            )
        ),
    ),
    "image to text": (
        "VisionEncoderDecoderModel",
        "model",
        lambda p: (
            lambda: transformers.VisionEncoderDecoderModel.from_encoder_decoder_pretrained(
                str(p.image), str(p.decoder)
            )
        ),
    ),
    "hub mixin": ("Mixed", "model", lambda p: lambda: Mixed.from_pretrained(str(p.mixed))),
    "user's module": (
        "Wrapper",
        "model",
        lambda p: lambda: Wrapper.from_pretrained(str(p.llama), str(p.bert)),
    ),
    "user's factory": ("Maker", "other", lambda p: lambda: Maker.from_pretrained(str(p.llama))),
    "pipeline": (
        "pipeline(text-generation)",
        "pipeline",
        lambda p: (
            lambda: transformers.pipeline("text-generation", model=str(p.llama), tokenizer=str(p.llama)).model
        ),
    ),
    "load_model": (
        "load_model",
        "model",
        lambda p: into(p.llama, lambda model: safetensors_torch.load_model(model, str(p.llama / WEIGHTS))),
    ),
    "load_checkpoint_in_model": (
        "load_checkpoint_in_model",
        "model",
        lambda p: into(p.llama, lambda model: accelerate.load_checkpoint_in_model(model, str(p.llama))),
    ),
    "load_checkpoint_in_model with a map": (
        "load_checkpoint_in_model",
        "model",
        lambda p: into(
            p.llama,
            lambda model: accelerate.load_checkpoint_in_model(
                model, str(p.llama), device_map={"": "cpu"}, dtype=torch.float16
            ),
        ),
    ),
    "load_checkpoint_and_dispatch": (
        "load_checkpoint_and_dispatch",
        "model",
        lambda p: on_meta(p.llama, device_map={"": "cpu"}),
    ),
}


@pytest.mark.parametrize("entry", MODELS)
def test_a_load_of_a_model(entry, places):
    name, what, prepare = MODELS[entry]
    model, trace = traced(prepare(places))
    (load,) = trace.loads
    assert (load.name, load.attributes["request"]["what"]) == (name, what)
    assert disagreements(model, trace) == []
    assert {row.load for row in trace.tensors} == {load.id}
    assert {row.result for row in trace.files if row.name == WEIGHTS} == {"local"}
    parameters = [row for row in trace.tensors if row.kind == "parameter"]
    from_files = [row for row in parameters if row.provenance == "checkpoint"]
    assert len(from_files) >= len(parameters) - 3
    assert {row.provenance for row in trace.tensors} - SOURCELESS == {"checkpoint"}
    # A healthy load of everything: none of its parameters is of unknown source.
    assert not {"R29", "R32"} & {finding.rule for finding in findings(trace)}


def test_the_rows_of_a_composite_have_its_names_and_their_own_files(places):
    model, trace = traced(MODELS["encoder and decoder"][2](places))
    rows = {row.name: row for row in trace.tensors}
    encoder = rows["encoder.embeddings.word_embeddings.weight"]
    decoder = rows["decoder.bert.embeddings.word_embeddings.weight"]
    assert encoder.keys == ["embeddings.word_embeddings.weight"]
    assert decoder.keys == ["bert.embeddings.word_embeddings.weight"]
    # Both files have one name: only the whole path tells them apart.
    assert Path(encoder.file).parent.name == "bert"
    assert Path(decoder.file).parent.name == "decoder"
    stored = safetensors_torch.load_file(decoder.file)[decoder.keys[0]]
    assert torch.equal(model.decoder.bert.embeddings.word_embeddings.weight, stored)


def test_what_is_no_module_holds_the_models_that_were_loaded_in_it(places):
    made, trace = traced(lambda: Bundle.from_pretrained(str(places.llama)))
    (load,) = trace.loads
    assert (load.name, load.attributes["request"]["what"]) == ("Bundle", "other")
    below = {span.name for span in trace.spans if span.parent == load.id}
    assert {"AutoTokenizer", "AutoModelForCausalLM"} <= below
    assert {row.load for row in trace.tensors} == {load.id}
    names = {name for name, _ in made.denoiser.named_parameters()}
    assert {row.name for row in trace.tensors if row.provenance == "checkpoint"} == names


def test_the_models_of_another_library_in_a_load_are_parts_of_it(places):
    made, trace = traced(lambda: Parts.from_pretrained(str(places.mixed)))
    (load,) = trace.loads
    assert [span.name for span in trace.spans if span.parent == load.id and span.phase == "load"] == [
        "Mixed",
        "Mixed",
    ]
    stored = safetensors_torch.load_file(str(places.mixed / WEIGHTS))
    assert len(trace.tensors) == 2 * len(stored)
    for row in trace.tensors:
        assert (row.load, row.provenance, row.keys) == (load.id, "checkpoint", [row.name])
        assert torch.equal(made.one.get_parameter(row.name), stored[row.name])


def test_what_a_factory_has_loaded_goes_over_to_what_it_is_put_into(places):
    def load():
        made = Around.from_pretrained(Maker.from_pretrained(str(places.llama)), str(places.mixed))
        return made.half()

    _, trace = traced(load)
    first, second = trace.loads
    assert {row.load for row in trace.tensors} == {second.id}
    assert {row.dtype for row in trace.tensors if row.kind == "parameter"} == {"float16"}
    assert {row.provenance for row in trace.tensors if row.kind == "parameter"} == {"checkpoint"}
    assert first.name == "Maker"


def test_offloaded_weights_of_accelerate(places, tmp_path):
    places_of = {
        "model.embed_tokens": "cpu",
        "model.norm": "cpu",
        "model.rotary_emb": "cpu",
        "lm_head": "cpu",
    }
    load = on_meta(
        places.llama,
        device_map={**places_of, "model.layers": "disk"},
        offload_folder=str(tmp_path / "offload"),
    )
    _, trace = traced(load)
    found = {row.name: row.provenance for row in trace.tensors if row.kind == "parameter"}
    assert found["model.embed_tokens.weight"] == "checkpoint"
    layers = {word for name, word in found.items() if name.startswith("model.layers.")}
    assert layers == {"offloaded"}


# -- files and state dicts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("read", ["load_file", "torch.load"])
def test_a_file_that_is_read_and_handed_over(read, places):
    path = places.llama / WEIGHTS if read == "load_file" else places.pickle
    model = empty(places.llama)

    def load():
        tensors = safetensors_torch.load_file(str(path)) if read == "load_file" else torch.load(path)
        model.load_state_dict(
            {key: value for key, value in tensors.items() if "norm" not in key}, strict=False
        )

    _, trace = traced(load)
    file, given = trace.loads
    assert (file.name, given.name) == (f"{read}({path.name})", "LlamaForCausalLM.load_state_dict")
    assert file.attributes["bytes"] == sum(each.numel() * 4 for each in model.parameters())
    assert next((row.name, row.size_bytes) for row in trace.files if row.asked_by > file.id) == (
        path.name,
        path.stat().st_size,
    )
    assert disagreements(model, trace) == []
    for row in trace.tensors:
        if row.kind == "unused":
            assert "norm" in row.keys[0]
        elif row.kind == "parameter" and "norm" in row.name:
            assert (row.provenance, row.keys) == ("unknown", [])
        elif row.kind == "parameter":
            assert (row.provenance, row.keys, row.load) == ("checkpoint", [row.name], given.id)
            assert Path(row.file).name == path.name


@pytest.mark.once
def test_what_is_copied_into_a_model_was_read(tmp_path):
    # The file is mapped no longer when the load returns, and the model was there before: nothing has grown.
    model = Mixed(1500)
    file = str(tmp_path / WEIGHTS)
    safetensors_torch.save_model(model, file)
    with hftrace.trace(sample_hz=0) as recorded:
        safetensors_torch.load_model(model, file)
    moved = weight_bytes(recorded.trace)
    assert (moved.read, moved.mapped, moved.unknown) == (4 * (1500 * 1500 + 1500), 0, 0)


@pytest.mark.once
def test_what_fails_after_all_tensors_are_placed_is_not_at_one_of_them(places, monkeypatch):
    def broken(*arguments, **keywords):
        raise NotImplementedError("Cannot copy out of meta tensor; no data!")

    with accelerate.init_empty_weights():
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.from_pretrained(places.llama)
        )
    monkeypatch.setattr(accelerate.big_modeling, "add_hook_to_module", broken)
    monkeypatch.setattr(type(model), "to", broken)
    recorded = hftrace.trace(sample_hz=0)
    with pytest.raises(NotImplementedError), recorded:
        accelerate.load_checkpoint_and_dispatch(model, places.llama, device_map={"": "cpu"})
    assert recorded.trace.outcome["last_phase"] == "dispatch"
    block = load_view("summary").brief(recorded.trace, ViewOptions(), set())[0]
    labels = ["".join(text for text, _ in line)[:12].strip() for line in block.lines(100)]
    assert "progress" in labels
    assert "at" not in labels


@pytest.mark.once
def test_a_pickle_is_unpickled_once(tmp_path):
    # Of more than 32 MB: glibc asks the kernel for it, however much the process has free.
    model = Mixed(3000)
    torch.save(model.state_dict(), tmp_path / "weights.bin")
    with hftrace.trace(sample_hz=0) as recorded:
        model.load_state_dict(torch.load(tmp_path / "weights.bin"))
    found = [finding.load for finding in findings(recorded.trace) if finding.rule == "R08"]
    assert found == [recorded.trace.loads[0].span]


@pytest.mark.once
def test_what_makes_a_mixed_model_is_named(tmp_path, monkeypatch):
    Mixed(8).save_pretrained(tmp_path)
    made = Mixed.__init__

    def slow(self, size=4):
        time.sleep(0.05)
        made(self, size)

    monkeypatch.setattr(Mixed, "__init__", slow)
    with hftrace.trace(sample_hz=0) as recorded:
        Mixed.from_pretrained(tmp_path)
    assert phase_times(recorded.trace)["instantiate"] >= 50_000_000
    assert attributed_share(recorded.trace) > 0.9


@pytest.mark.once
def test_a_folder_that_is_there_is_not_said_to_be_missing(tmp_path):
    (tmp_path / "config.json").write_text("{}")

    class Picky:
        @classmethod
        def from_pretrained(cls, path):
            raise ValueError(f"Repo id must be in the form 'repo_name': {path!r}")

    for where, ids in ((tmp_path, []), (tmp_path / "nothing", ["R48"])):
        recorded = hftrace.trace(sample_hz=0)
        with pytest.raises(ValueError, match="Repo id must"), recorded:
            Picky.from_pretrained(str(where))
        assert [finding.rule for finding in findings(recorded.trace)] == ids
        assert recorded.trace.loads[0].attributes["caller"].partition(":")[0] == __file__


def test_only_what_was_read_is_from_a_file(places):
    """Cast, written into, or made by the program: no file has these values."""
    model = empty(places.llama)

    def load():
        tensors = safetensors_torch.load_file(str(places.llama / WEIGHTS))
        tensors["model.norm.weight"] = tensors["model.norm.weight"].double()
        tensors["lm_head.weight"].add_(1)
        tensors["model.embed_tokens.weight"] = torch.ones(64, 32)
        model.load_state_dict(tensors)

    _, trace = traced(load)
    found = {row.name: row.provenance for row in trace.tensors if row.kind == "parameter"}
    changed = {"model.norm.weight", "lm_head.weight", "model.embed_tokens.weight"}
    assert {name for name, word in found.items() if word == "state_dict"} == changed
    assert {word for name, word in found.items() if name not in changed} == {"checkpoint"}


def test_a_renamed_key_is_the_files_own(places):
    model = torch.nn.Linear(4, 4)
    load = lambda: model.load_state_dict(  # noqa: E731
        {
            key.removeprefix("inner."): value
            for key, value in safetensors_torch.load_file(str(places.mixed / WEIGHTS)).items()
        }
    )
    _, trace = traced(load)
    assert {(row.name, row.provenance, *row.keys) for row in trace.tensors} == {
        ("weight", "checkpoint", "inner.weight"),
        ("bias", "checkpoint", "inner.bias"),
    }


def test_a_failed_load_says_so(places):
    model = Mixed(3)
    with (
        pytest.raises(RuntimeError, match="size mismatch") as failure,
        hftrace.trace(sample_hz=0) as recorded,
    ):
        safetensors_torch.load_model(model, str(places.mixed / WEIGHTS))
    with pytest.raises(RuntimeError) as plain:
        safetensors_torch.load_model(model, str(places.mixed / WEIGHTS))
    assert str(failure.value) == str(plain.value)
    (load,) = recorded.trace.loads
    assert (load.name, load.status) == ("load_model", "error")


# -- tokenizers --------------------------------------------------------------------------------------------


def test_a_tokenizer_says_whether_it_is_fast(places):
    _, trace = traced(lambda: transformers.AutoTokenizer.from_pretrained(str(places.llama)))
    assert trace.loads[0].attributes["tokenizer"] == "fast"


@pytest.mark.skipif(transformers.__version__ >= "5", reason="5.x has no slow tokenizer of this kind")
def test_a_tokenizer_that_is_converted_says_what_that_cost(places):
    _, trace = traced(lambda: transformers.BertTokenizerFast.from_pretrained(str(places.bert)))
    (load,) = trace.loads
    (conversion,) = [span for span in trace.spans if span.name == "convert_slow_tokenizer(BertTokenizer)"]
    assert load.attributes["tokenizer"] == "converted"
    took = conversion.end_ns - conversion.start_ns
    assert took <= load.attributes["conversion_ns"] <= load.end_ns - load.start_ns
    _, trace = traced(lambda: transformers.BertTokenizer.from_pretrained(str(places.bert)))
    assert trace.loads[0].attributes["tokenizer"] == "slow"


# -- classes that come later -------------------------------------------------------------------------------

MODULE = """
import torch

class Imported:
    @classmethod
    def from_pretrained(cls, path):
        return torch.load(path)
"""


def test_a_class_that_is_imported_while_tracing(places, tmp_path, monkeypatch):
    (tmp_path / "entries_imported_late.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)

    def load():
        import entries_imported_late

        before = vars(entries_imported_late.Imported).copy()
        entries_imported_late.Imported.from_pretrained(places.pickle)
        assert vars(entries_imported_late.Imported) == before

    _, trace = traced(load)
    assert [load.name for load in trace.loads] == ["Imported"]
    assert [row.name for row in trace.files] == [places.pickle.name]
    code = sys.modules.pop("entries_imported_late").Imported.from_pretrained.__func__.__code__
    assert code.co_filename == str(tmp_path / "entries_imported_late.py")


def test_a_class_that_is_defined_while_tracing(places):
    """Its first call is seen by what it calls, and ends where the last of that does; its second is hooked."""

    def load():
        class Defined(torch.nn.Module):
            @classmethod
            def from_pretrained(cls, path):
                made = cls()
                made.inner = torch.nn.Linear(4, 4)
                made.load_state_dict(safetensors_torch.load_file(path))
                return made

        models = [Defined.from_pretrained(str(places.mixed / WEIGHTS)) for _ in range(2)]
        transformers.AutoConfig.from_pretrained(places.llama)
        return models, Defined

    (models, owner), trace = traced(load)
    assert [load.name for load in trace.loads] == ["Defined", "Defined", "AutoConfig"]
    first, second, config = trace.loads
    assert first.attributes["seen"] == "partly"
    assert "seen" not in second.attributes
    assert first.end_ns <= second.start_ns <= second.end_ns <= config.start_ns
    for load in (first, second):
        rows = [row for row in trace.tensors if row.load == load.id]
        assert {(row.name, row.provenance) for row in rows} == {
            ("inner.weight", "checkpoint"),
            ("inner.bias", "checkpoint"),
        }
    assert owner.from_pretrained.__func__.__code__.co_filename == __file__
    assert len(models) == 2


def test_what_takes_a_tensor_is_no_load():
    _, trace = traced(lambda: torch.nn.Embedding.from_pretrained(torch.ones(2, 2)))
    assert trace.loads == []


def test_a_trace_inside_of_a_from_pretrained_is_not_about_it(places):
    class Around:
        @classmethod
        def from_pretrained(cls, path):
            return traced(lambda: transformers.AutoConfig.from_pretrained(path))

    _, trace = Around.from_pretrained(places.llama)
    assert [load.name for load in trace.loads] == ["AutoConfig"]


# -- libraries ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("4.48"), reason="sentence-transformers asks for a newer one"
)
def test_sentence_transformers(places, tmp_path):
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    transformers.BertTokenizerFast.from_pretrained(str(places.bert)).save_pretrained(tmp_path / "inner")
    transformers.BertModel.from_pretrained(places.bert).save_pretrained(tmp_path / "inner")
    modules = [Transformer(str(tmp_path / "inner")), Pooling(32)]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "model"))
    model, trace = traced(lambda: SentenceTransformer(str(tmp_path / "model"), device="cpu"))
    (load,) = trace.loads
    assert (load.name, load.attributes["request"]["model"]) == (
        "SentenceTransformer",
        str(tmp_path / "model"),
    )
    assert load.attributes["modules"] == ["Transformer", "Pooling"]
    assert disagreements(model, trace) == []
    assert {row.provenance for row in trace.tensors if row.kind == "parameter"} == {"checkpoint"}


# -- what a config costs -----------------------------------------------------------------------------------


@pytest.mark.sparse
def test_a_config_imports_no_more_than_it_does_alone(places, run_python, tmp_path):
    script = tmp_path / "config.py"
    script.write_text(
        "import contextlib, json, sys, transformers\n"
        "owner = transformers.GenerationConfig\n"
        "import hftrace\n"
        "with hftrace.trace(sample_hz=0) if sys.argv[2] == 'traced' else contextlib.nullcontext():\n"
        "    owner.from_pretrained(sys.argv[1])\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    found = {}
    for how in ("plain", "traced"):
        done = run_python(str(script), str(places.llama), how)
        assert done.returncode == 0, done.stderr
        found[how] = set(json.loads(done.stdout.splitlines()[-1]))
    more = {name for name in found["traced"] - found["plain"] if not name.startswith("hftrace")}
    assert not {name for name in more if name.partition(".")[0] in ("torch", "transformers", "accelerate")}


@pytest.mark.sparse
def test_the_command_loads_a_config_without_modeling_code(places, run_cli, tmp_path):
    trace_path = tmp_path / "config.json"
    done = run_cli("load", "--class", "GenerationConfig", str(places.llama), "-o", str(trace_path))
    assert done.returncode == 0, done.stderr
    trace = hftrace.Trace.open(trace_path)
    (load,) = trace.loads
    assert load.name == "GenerationConfig"
    assert [(row.name, row.result) for row in trace.files] == [("generation_config.json", "local")]
    assert not [span.name for span in trace.spans if "modeling" in span.name]
