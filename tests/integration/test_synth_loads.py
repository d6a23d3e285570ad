"""Every architecture that ``hftrace synth`` writes loads whole, with the installed transformers."""

from __future__ import annotations

import pytest

from hftrace.synth import ARCHITECTURES, plan, write, write_many

pytestmark = [
    pytest.mark.integration,
    # What transformers' versions say about torch's and about each other is not ours to fail on.
    pytest.mark.filterwarnings("default"),
]

torch = pytest.importorskip("torch")
TEXT = [name for name, known in ARCHITECTURES.items() if known.tokens]


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Writes a checkpoint of a few MB in several shards, once for the module."""
    directory = tmp_path_factory.mktemp("synth")

    def make(name, format="safetensors"):
        planned = plan(name, size="5MB", max_shard_size="2MB")
        path = directory / f"{name}-{format}"
        if not path.exists():
            write(planned, path, format=format)
        return path, planned

    return make


def numbers(version):
    return tuple(int(part) for part in version.split(".")[:2])


def require(transformers, name):
    since = ARCHITECTURES[name].since
    if numbers(transformers.__version__) < numbers(since):
        pytest.skip(f"{name} needs transformers {since}, this is {transformers.__version__}")


def load(transformers, name, path):
    model, info = getattr(transformers, ARCHITECTURES[name].auto_class).from_pretrained(
        path, output_loading_info=True
    )
    return model.eval(), info


def check_info(transformers, info, planned):
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    ignored = {tensor.name for tensor in planned.tensors if not tensor.parameter}
    if numbers(transformers.__version__)[0] < 5:
        assert not info["unexpected_keys"]
    else:
        # 5.0 reports the causal masks of the published gpt2.
        assert set(info["unexpected_keys"]) <= ignored


def inputs_for(planned):
    config = planned.config
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    if config["model_type"] == "vit":
        return {"pixel_values": torch.randn(1, 3, config["image_size"], config["image_size"])}
    if config["model_type"] == "whisper":
        features = torch.randn(1, config["num_mel_bins"], 2 * config["max_source_positions"])
        return {"input_features": features, "decoder_input_ids": tokens}
    if config["model_type"] == "t5":
        return {"input_ids": tokens, "decoder_input_ids": tokens}
    return {"input_ids": tokens}


def forward(model, planned):
    inputs = inputs_for(planned)
    with torch.no_grad():
        output = model.float()(**inputs)
    return output.prediction_logits if "prediction_logits" in output else output.logits


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_key_arrives_and_a_forward_pass_is_finite(transformers, made, name):
    require(transformers, name)
    path, planned = made(name)
    assert len(planned.shards) > 1
    model, info = load(transformers, name, path)
    check_info(transformers, info, planned)
    assert type(model).__name__ == planned.config["architectures"][0]
    assert sum(parameter.numel() for parameter in model.parameters()) == planned.parameters
    logits = forward(model, planned)
    assert torch.isfinite(logits).all()
    assert logits.std() > 0


@pytest.mark.parametrize("name", ["llama-2-7b", "gpt2"])
def test_bin_loads_to_the_same_model(transformers, made, name):
    model, _ = load(transformers, name, made(name)[0])
    path, planned = made(name, "bin")
    other, info = load(transformers, name, path)
    check_info(transformers, info, planned)
    state = model.state_dict()
    for key, tensor in other.state_dict().items():
        assert torch.equal(tensor, state[key]), key


@pytest.mark.parametrize("name", TEXT)
def test_the_tokenizer_loads_and_returns_the_text(transformers, made, name):
    require(transformers, name)
    path, planned = made(name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    text = "Hällo, wörld!\n\t3.14 日本"
    encoded = tokenizer(text)
    assert max(encoded["input_ids"]) < planned.config["vocab_size"]
    assert ("token_type_ids" in encoded) == (name == "bert-base")
    assert tokenizer.decode(encoded["input_ids"], skip_special_tokens=True) == text
    for role, token in planned.tokens.roles.items():
        assert getattr(tokenizer, role) == token
    first = planned.tokens.template[0]
    if first != "$A":
        assert tokenizer.convert_ids_to_tokens(encoded["input_ids"][0]) == first


def test_text_can_be_generated(transformers, made):
    path, _ = made("llama-2-7b")
    model, _ = load(transformers, "llama-2-7b", path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    encoded = tokenizer("Once", return_tensors="pt")
    result = model.generate(**encoded, max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert result.shape[1] > encoded["input_ids"].shape[1]


def test_many_small_tensors_load(transformers, tmp_path):
    write_many(tmp_path, 300, max_shard_size="300kB")
    model, info = load(transformers, "llama-2-7b", tmp_path)
    assert not any(info.values())
    assert len(list(model.parameters())) == 300
