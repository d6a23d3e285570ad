"""``hftrace synth`` of model types that it has no layout for: what it writes loads whole."""

from __future__ import annotations

import json
import warnings

import pytest
from processes import command, environment

from hftrace.launch.blueprints import ask_blueprint
from hftrace.synth.blueprints import plan_blueprint
from hftrace.synth.writer import write

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.sparse
TYPES = ["mixtral", "bert", "t5", "gpt_neox", "resnet", "whisper", "clip"]
"""Merged experts, tied embeddings, encoders and decoders, buffers of integers, parts with own configs."""


def problems(folder, name):
    owner = getattr(transformers, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, info = owner.from_pretrained(folder, output_loading_info=True)
    return {
        kind: list(info[kind])
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if info[kind]
    }


@pytest.mark.process
@pytest.mark.parametrize("format", ["safetensors", "bin"])
@pytest.mark.parametrize("name", TYPES)
def test_any_model_type_loads_whole(name, format, tmp_path, blueprints):
    found = blueprints(name)
    planned = plan_blueprint(found, name=name, size="1MB", dtype="float32")
    write(planned, tmp_path, format=format)
    assert problems(tmp_path, found["class"]) == {}


@pytest.fixture(scope="module")
def blueprints():
    known = {}

    def blueprint(name):
        if name not in known:
            known[name] = ask_blueprint(model_type=name, most_bytes=1_000_000, float_bytes=4)
        return known[name]

    return blueprint


def test_the_command_writes_a_config_of_a_file(tmp_path):
    config = transformers.GPTNeoXConfig(
        hidden_size=32, num_attention_heads=2, num_hidden_layers=1, intermediate_size=64, vocab_size=96
    )
    config.architectures = ["GPTNeoXForCausalLM"]
    config.save_pretrained(tmp_path / "given")
    words = ["synth", "--config", "given", "--dtype", "bfloat16", "-o", "made", "--json"]
    done = command(*words, cwd=tmp_path, env=environment())
    assert done.code == 0, done.stderr
    facts = json.loads(done.stdout)
    model = transformers.GPTNeoXForCausalLM(config)
    # The truth is the model itself.
    assert facts["parameters"] == sum(each.numel() for each in model.parameters())
    assert facts["changes"] == {}
    assert facts["dtype"] == "bfloat16"
    assert problems(tmp_path / "made", facts["auto_class"]) == {}


@pytest.mark.parametrize(
    ("name", "size", "settings"),
    [
        ("falcon", 3_000_000, {}),
        pytest.param("vit", 3_000_000, {}, marks=pytest.mark.long),
        pytest.param("t5", 3_000_000, {"num_layers": 4}, marks=pytest.mark.long),
        ("mamba", 3_000_000, {"vocab_size": 5000}),
    ],
)
def test_the_size_is_near_and_what_was_set_stays(name, size, settings, tmp_path):
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    done = command(
        *["synth", name, "--size", str(size), *words, "-o", "made", "--json"], cwd=tmp_path, env=environment()
    )
    assert done.code == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["data_bytes"] == pytest.approx(size, rel=0.1)
    stored = json.loads((tmp_path / "made" / "config.json").read_text())
    assert {key: stored[key] for key in settings} == settings
    assert problems(tmp_path / "made", facts["auto_class"]) == {}
    assert facts["transformers"] == f"=={transformers.__version__}"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "hidden_size=4544",
            "falcon cannot be scaled to 3.00 MB: the smallest that hftrace finds with hidden_size",
        ),
        ("hidden_sice=4544", "a config of falcon has no 'hidden_sice' that could be set"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_written(setting, message, tmp_path):
    words = ("synth", "falcon", "--size", "3MB", "--set", setting, "-o", "made")
    done = command(*words, cwd=tmp_path, env=environment())
    assert done.code == 2
    assert message in done.stderr
    assert not (tmp_path / "made").exists()


def test_a_type_that_nobody_knows_is_said_in_a_sentence(tmp_path):
    done = command("synth", "no_such_type", "-o", "made", cwd=tmp_path, env=environment())
    assert done.code == 2
    assert "no architecture is named 'no_such_type'" in done.stderr
    assert not (tmp_path / "made").exists()
