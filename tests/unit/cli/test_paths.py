"""What a trace is called that nobody has named."""

import pytest

from hftrace.cli.common.paths import output_path


@pytest.mark.parametrize(
    ("model", "stem"),
    [
        ("meta-llama/Llama-2-7b-hf", "Llama-2-7b-hf"),
        (".", "here"),
        ("..", "above"),
        ("./sub/", "sub"),
        (".cache", "cache"),
        ("/", "model"),
        ("synth:llama-2-7b", "llama-2-7b"),
    ],
)
def test_it_is_called_after_the_model_and_can_be_seen(tmp_path, monkeypatch, model, stem):
    folder = tmp_path / "above" / "here"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    path = output_path(None, model, force=False)
    assert path.parent.name == "traces"
    assert path.name.rpartition("-")[0].rpartition("-")[0] == stem
