"""What ``hftrace compare`` is asked to measure, without measuring it."""

from __future__ import annotations

import sys

import pytest

from hftrace.cli.main import main
from hftrace.launch.variants import rounds


class Asked(Exception):
    """Stands in for the rounds that would be run."""


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Returns a function that gives the request and the variants of a command line."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"\0" * 16)
    monkeypatch.chdir(tmp_path)

    def stand_in(request, specs, **options):
        raise Asked(request, specs)

    monkeypatch.setattr(rounds, "run_rounds", stand_in)
    monkeypatch.setattr(rounds, "check_interpreters", lambda specs: None)

    def call(*arguments):
        with pytest.raises(Asked) as raised:
            main(["compare", "model", *arguments])
        return raised.value.args

    return call


def test_compare_takes_what_a_load_takes(asked):
    request, specs = asked(
        *("--variant", "bf16", "--variant", "old: python=/old/python", "--python", "/other/python"),
        *("--attn-implementation", "eager", "--kwarg", "variant='fp16'".replace("'", '"')),
        *("--input", '{"input_ids": [[1]]}', "--sample-hz", "7", "--memory-limit", "2GB"),
    )
    assert request.load.keywords == {"attn_implementation": "eager", "variant": "fp16"}
    assert request.forward
    assert request.inputs == {"input_ids": [[1]]}
    assert request.watch.sample_hz == 7
    assert request.watch.memory_limit_bytes == 2 * 10**9
    assert [spec.python for spec in specs] == ["/other/python", "/old/python"]


def test_what_is_not_said_is_as_usual(asked):
    request, specs = asked("--sweep", "attn-implementation=eager,sdpa")
    assert not request.forward
    assert request.python == sys.executable
    assert request.watch.memory_limit_bytes is None
    assert request.watch.sample_hz > 0
    assert [spec.keywords for spec in specs] == [
        {"attn_implementation": "eager"},
        {"attn_implementation": "sdpa"},
    ]


def test_options_of_a_measurement_are_for_a_model(capsys):
    with pytest.raises(SystemExit) as end:
        main(["compare", "a.json", "b.json", "--memory-limit", "1GB"])
    assert end.value.code == 2
    assert "options of a model are for one that is measured" in capsys.readouterr().err
