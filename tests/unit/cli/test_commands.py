"""The list of commands: a new one is a file and a line, and none imports more than it needs."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from hftrace.cli import main
from hftrace.cli.common.model import ModelOptions, model_options
from hftrace.cli.common.refusals import CACHES, OFFLINE, refuse_path
from hftrace.errors import UsageError

MODULE = """
import click

from hftrace.cli.common.model import model_options


@click.command("made-up")
@click.argument("model")
@model_options()
def command(model, chosen):
    click.echo(f"{model} {dict(chosen.keywords)}")
    return 3
"""


def test_a_command_is_one_file_and_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "made_up_command.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(main.COMMANDS, "made-up", ("made_up_command", "Does what was made up."))
    with pytest.raises(SystemExit) as left:
        main.main(["made-up", "some/model", "--dtype", "bfloat16", "--no-fast-init"])
    assert left.value.code == 3
    assert capsys.readouterr().out == "some/model {'dtype': 'bfloat16', '_fast_init': False}\n"
    with pytest.raises(SystemExit):
        main.main(["--help"])
    assert "Does what was made up." in capsys.readouterr().out


HELPED = ("show", "compare", "check", "load")


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in HELPED)], ids=" ".join)
def test_help_imports_neither_torch_nor_rich(run_python, arguments):
    code = (
        "import sys, json\nfrom hftrace.cli.main import main\ntry:\n"
        f"    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'rich.console'}\n"
        "print(json.dumps(sorted(heavy & set(sys.modules))))"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def parsed(*words, **options) -> ModelOptions:
    """Returns what a command is given."""
    found = []

    @click.command()
    @model_options(**options)
    def command(chosen):
        found.append(chosen)

    done = CliRunner().invoke(command, words, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return found[0]


def test_keywords_of_a_model():
    chosen = parsed("--device-map", '{"": 0}', "--max-memory", '{"cpu": "1GB"}', "--kwarg", "x=[1]")
    assert chosen.keywords == {"device_map": {"": 0}, "max_memory": {"cpu": "1GB"}, "x": [1]}
    assert chosen.given
    assert not parsed().given
    with pytest.raises(click.NoSuchOption):
        parsed("--variant", "fp16", without=("variant",))
    assert parsed("--kwarg", "variant=fp16", without=("variant",)).keywords == {"variant": "fp16"}


def test_options_of_a_synthetic_model_do_not_apply_to_another(tmp_path):
    (tmp_path / "config.json").touch()
    chosen = parsed("--stored-format", "bin", "--stored-dtype", "float16")
    with pytest.raises(UsageError, match=r"^--stored-dtype, --stored-format: for synth:NAME alone"):
        chosen.spec(str(tmp_path))
    spec = parsed("--class", "X", "--revision", "v2").spec(str(tmp_path))
    assert (spec.model, spec.class_name, spec.keywords) == (str(tmp_path), "X", {"revision": "v2"})


def test_a_gguf_file_is_named_by_its_path_or_by_an_option(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(UsageError, match="0 bytes are no GGUF file"):
        parsed().spec(str(tmp_path / "empty.gguf"))
    by_path = parsed("--dtype", "float16").spec(str(tmp_path / "m.gguf"))
    by_option = parsed("--dtype", "float16", "--gguf-file", "m.gguf").spec(str(tmp_path))
    for spec in (by_path, by_option):
        assert spec.model == str(tmp_path)
        assert spec.keywords == {"dtype": "float16", "gguf_file": "m.gguf"}
    assert by_path.asked == str(tmp_path / "m.gguf")
    with pytest.raises(UsageError, match="is a GGUF file itself"):
        parsed("--gguf-file", "m.gguf").spec(str(tmp_path / "m.gguf"))
    (tmp_path / "m.txt").touch()
    with pytest.raises(UsageError, match="is a file: name the directory"):
        parsed().spec(str(tmp_path / "m.txt"))


def test_a_directory_of_gguf_files_alone_needs_the_name_of_one(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "a b.gguf").touch()
    with pytest.raises(UsageError) as caught:
        parsed().spec(str(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path} has a GGUF file and no other weights: add --gguf-file 'a b.gguf'"
    )
    for number in range(11):
        (tmp_path / f"m{number:02}.gguf").touch()
    with pytest.raises(UsageError) as caught:
        parsed().spec(str(tmp_path))
    assert "has 12 GGUF files" in str(caught.value)
    assert "('a b.gguf', m00.gguf, m01.gguf," in str(caught.value)
    assert "m08.gguf and 2 more)" in str(caught.value)
    (tmp_path / "model.safetensors").touch()
    assert parsed().spec(str(tmp_path)).model == str(tmp_path)


def test_the_subfolder_is_where_weights_are_looked_for(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "inside" / "m.gguf").touch()
    assert parsed().spec(str(tmp_path)).model == str(tmp_path)
    with pytest.raises(UsageError, match=r"add --gguf-file m\.gguf"):
        parsed("--subfolder", "inside").spec(str(tmp_path))


# -- what is refused at once ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("eager", "eager"),
        ("False", False),
        ("None", None),
        ("null", None),
        ('"False"', "False"),
        ("[1, 2]", [1, 2]),
        ("3.5", 3.5),
        ("model:rev", "model:rev"),
    ],
)
def test_the_value_of_a_keyword(text, value):
    assert parsed("--kwarg", f"x={text}").keywords == {"x": value}


@pytest.mark.parametrize("text", ['{"a": ', "[1,", '"open', "{'a': 1}", "", "[" * 100_000])
def test_what_begins_like_json_and_is_none(text):
    with pytest.raises(UsageError, match=r"^--kwarg x (is not valid JSON|nests too deeply)") as caught:
        parsed("--kwarg", f"x={text}")
    # It may hold a secret.
    assert text[:4] not in str(caught.value) or not text


@pytest.mark.parametrize(
    "words",
    [
        ("--kwarg", "x=1", "--kwarg", "x=1"),
        ("--dtype", "auto", "--dtype", "auto"),
        ("--dtype", "auto", "--kwarg", "torch_dtype=auto"),
        ("--kwarg", "dtype=auto", "--kwarg", "torch_dtype=auto"),
        ("--no-fast-init", "--kwarg", "_fast_init=true"),
        ("--class", "A", "--class", "B"),
    ],
)
def test_a_keyword_is_given_once(words):
    with pytest.raises(UsageError, match="is given twice"):
        parsed(*words)


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        ("{}", "takes a JSON object"),
        ('{"cpu": true}', "of cpu is no size"),
        ('{"0": [1]}', "of 0 is no size"),
        ('{"cpu": "lots"}', "--max-memory of cpu: 'lots' is not a size"),
        ('{"cpu": -5}', "must be at least one byte"),
    ],
)
def test_max_memory_is_sizes(memory, words):
    with pytest.raises(UsageError, match=words):
        parsed("--max-memory", memory)


def test_a_device_may_be_left_empty():
    assert parsed("--max-memory", '{"0": 0, "cpu": "1GiB"}').keywords == {
        "max_memory": {"0": 0, "cpu": "1GiB"}
    }


def test_a_path_that_holds_nothing_to_load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for model in ("model.gguf", "here.safetensors", "./x", "a/b/c", "name/", f"{tmp_path}/m.gguf"):
        with pytest.raises(UsageError, match=r"^no such (file|directory): "):
            parsed().check(model)
    for model in ("gpt2", "org/name", "org/name.gguf", "name.v2"):
        parsed().check(model)
    (tmp_path / "real.gguf").write_bytes(b"GGUF")
    with pytest.raises(UsageError, match=r"no such file: raal\.gguf; there is real\.gguf"):
        parsed().check("raal.gguf")


@pytest.mark.parametrize(
    ("around", "keywords", "by"),
    [
        ({"HF_HUB_OFFLINE": "1"}, {}, "HF_HUB_OFFLINE"),
        ({"TRANSFORMERS_OFFLINE": "yes"}, {}, "TRANSFORMERS_OFFLINE"),
        ({}, {"local_files_only": True}, "local_files_only"),
    ],
)
@pytest.mark.parametrize(
    "place", ["HF_HOME/hub", "HF_HUB_CACHE", "XDG_CACHE_HOME/huggingface/hub", "cache_dir"]
)
def test_a_name_that_is_no_folder_where_the_hub_may_not_be_asked(
    tmp_path, monkeypatch, around, keywords, by, place
):
    monkeypatch.chdir(tmp_path)
    for name in (*OFFLINE, *CACHES, "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nothing"))
    refuse_path("nofolder", {})  # the Hub may have it
    for name, value in around.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"there is no folder nofolder here.*{by} forbids to ask the Hub"):
        refuse_path("nofolder", keywords)
    refuse_path("org/model", keywords)
    variable, _, below = place.partition("/")
    (tmp_path / "cache" / below / "models--nofolder").mkdir(parents=True)
    if variable == "cache_dir":
        keywords = {**keywords, "cache_dir": tmp_path / "cache"}
    else:
        monkeypatch.setenv(variable, str(tmp_path / "cache"))
    refuse_path("nofolder", keywords)


def test_an_empty_folder_and_the_hubs_cache(tmp_path):
    with pytest.raises(UsageError, match=r"holds no file: name the directory that has"):
        parsed().check(str(tmp_path))
    snapshot = tmp_path / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").touch()
    with pytest.raises(UsageError, match=r"holds no file: name the directory of the model, such as .*/0123"):
        parsed().check(str(tmp_path))
    parsed().check(str(snapshot))
    with pytest.raises(UsageError, match="has no folder onnx"):
        parsed("--subfolder", "onnx").check(str(snapshot))
    with pytest.raises(UsageError, match=r"no such file: .*x\.gguf$"):
        parsed("--gguf-file", "x.gguf").check(str(snapshot))


REFUSED = (["empty"], ["gguf"], ["nosuch.gguf"], ["gguf", "--kwarg", "x={"], ["gguf", "--max-memory", "{"])


def test_what_is_refused_starts_nothing_and_writes_nothing(run_python, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "gguf").mkdir()
    (tmp_path / "gguf" / "m.gguf").write_bytes(b"GGUF")
    before = sorted(tmp_path.rglob("*"))
    code = f"""
import subprocess, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        assert name.partition(".")[0] not in ("torch", "transformers"), name

def no_process(*arguments, **options):
    raise AssertionError("a process was started")

sys.meta_path.insert(0, Block())
subprocess.Popen.__init__ = no_process
from hftrace.cli.main import main
for command in (["load"], ["compare", "--variant", "bf16", "--variant", "fp32"]):
    for arguments in {REFUSED!r}:
        try:
            main([*command, *arguments])
        except SystemExit as left:
            assert left.code == 2, (command, arguments, left.code)
"""
    done = run_python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 2 * len(REFUSED)
    assert sorted(tmp_path.rglob("*")) == before
