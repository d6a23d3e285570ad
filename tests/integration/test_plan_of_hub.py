"""``hftrace plan`` of repositories of the Hub: no weight is downloaded, by the server's own log."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest

from hftrace.synth import plan, write

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402

_spec = importlib.util.spec_from_file_location(
    "hftrace_tests_hub_of_plans", Path(__file__).parents[1] / "hub_server.py"
)
_module = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = _module
_spec.loader.exec_module(_module)
Hub = _module.Hub

pytestmark = pytest.mark.sparse


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    place = tmp_path_factory.mktemp("hub")
    folder = place / "organisation" / "tiny-llama"
    write(plan("llama-2-7b", size="6MB", max_shard_size="3MB"), folder)
    pickled = place / "organisation" / "pickled"
    write(plan("llama-2-7b", size="2MB"), pickled)
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with Hub(place) as server:
        yield server


def planned(run_cli, hub, home, *words):
    return run_cli("plan", *words, "--json", env={**hub.variables, "HF_HOME": str(home)})


def test_headers_are_asked_for_and_no_weights(hub, run_cli, tmp_path):
    done = planned(run_cli, hub, tmp_path / "home", "organisation/tiny-llama")
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout)
    shutil.copytree(hub.folder / "organisation" / "tiny-llama", tmp_path / "tiny-llama")
    here = json.loads(planned(run_cli, hub, tmp_path / "home", str(tmp_path / "tiny-llama")).stdout)
    for key in ("parameters", "bytes_by_dtype", "bytes_by_device", "tensors", "unread_bytes"):
        assert there[key] == here[key]
    shards = sorted((hub.folder / "organisation" / "tiny-llama").glob("*.safetensors"))
    assert len(shards) > 1
    for shard in shards:
        assert 0 < hub.served(shard.name) <= 100_001 < shard.stat().st_size
    assert not list((tmp_path / "home").rglob("*.safetensors"))


def test_weights_without_such_headers_are_refused_and_not_fetched(hub, run_cli, tmp_path):
    done = planned(run_cli, hub, tmp_path / "home", "organisation/pickled")
    assert done.returncode == 1
    assert "a plan downloads no weights" in done.stdout + done.stderr
    assert hub.served("pytorch_model.bin") == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("organisation/none",), "the Hub has no model organisation/none, or a private one"),
        (("organisation/tiny-llama", "--revision", "none"), "organisation/tiny-llama has no revision none"),
    ],
)
def test_what_the_hub_does_not_have_is_named(hub, run_cli, tmp_path, words, said):
    done = planned(run_cli, hub, tmp_path / "home", *words)
    assert done.returncode == 1
    assert said in done.stderr


def test_what_is_in_the_cache_is_planned_when_the_hub_does_not_answer(hub, run_cli, run_python, tmp_path):
    """As the load itself takes it from there."""
    home = tmp_path / "home"
    environment = {**hub.variables, "HF_HOME": str(home)}
    fetched = run_python(
        "-c", "import huggingface_hub as h; h.snapshot_download('organisation/tiny-llama')", env=environment
    )
    assert fetched.returncode == 0, fetched.stderr
    environment["HF_ENDPOINT"] = "http://127.0.0.1:9"  # where nobody listens
    done = run_cli("plan", "organisation/tiny-llama", "--json", env=environment)
    assert done.returncode == 0, done.stderr
    stored = sum(
        each.stat().st_size for each in (hub.folder / "organisation" / "tiny-llama").glob("*.safetensors")
    )
    assert 0.99 < sum(json.loads(done.stdout)["bytes_by_dtype"].values()) / stored <= 1
