"""``hftrace show`` as a command: options, JSON, errors, and what it leaves alone."""

import json
import os
import pty
import sys
import time

import click
import pytest

import handmade
from hftrace.cli.common.output import output_width, wants_color
from hftrace.cli.main import main
from hftrace.cli.show import command
from hftrace.errors import UsageError
from hftrace.render.chosen import value_matcher
from hftrace.render.filters import matcher
from hftrace.render.registry import ALL
from hftrace.render.views import VIEWS


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traces")
    for name in ("sharded", "failing", "hostile"):
        getattr(handmade, name)().save(folder / f"{name}.json")
    return folder


def test_default_view_and_exit_code(run_cli, traces):
    done = run_cli("show", traces / "sharded.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    for word in ("LlamaForCausalLM", "Call tree", "Timeline", "Findings", "next:"):
        assert word in done.stdout


def test_a_failed_load_is_no_failure_of_show(run_cli, traces):
    assert run_cli("show", traces / "failing.json").returncode == 0


@pytest.mark.parametrize("view", [*VIEWS, ALL])
def test_every_view_in_text_and_json(run_cli, traces, view):
    for name in ("sharded", "hostile"):
        text = run_cli("show", traces / f"{name}.json", "--view", view)
        assert (text.returncode, text.stderr) == (0, "")
        assert text.stdout
        assert "\x1b" not in text.stdout
        facts = run_cli("show", traces / f"{name}.json", "--view", view, "--json")
        assert (facts.returncode, facts.stderr) == (0, "")
        json.loads(facts.stdout)


def test_json_without_a_view_is_the_summary(run_cli, traces):
    made = json.loads(run_cli("show", traces / "sharded.json", "--json").stdout)
    assert made["wall_ns"] == 5_008_000_000
    assert made["outcome"]["status"] == "ok"


@pytest.mark.parametrize("table", ["spans", "tensors", "files", "samples"])
def test_tables_in_json_have_all_rows_and_columns(run_cli, traces, table):
    rows = json.loads(run_cli("show", traces / "sharded.json", "--view", table, "--json").stdout)
    expected = getattr(handmade.sharded(), table)
    assert len(rows) == len(expected)
    assert set(rows[0]) == set(expected.columns)
    assert rows[0] == {name: getattr(expected[0], name) for name in expected.columns}


def test_filter(run_cli, traces):
    arguments = ("show", traces / "sharded.json", "--view", "tensors", "--filter")
    rows = json.loads(run_cli(*arguments, "*q_proj.weight", "--json").stdout)
    assert len(rows) == 22
    assert "22 of 202" in run_cli(*arguments, r"q_proj\.weight$").stdout


def test_limit_says_how_to_see_the_rest(run_cli, traces):
    arguments = ("show", traces / "sharded.json", "--view", "tensors", "--filter", ".")
    cut = run_cli(*arguments, "--limit", "5").stdout
    assert "+ 197 more tensors: --limit 0 shows all" in cut
    assert "more tensors" not in run_cli(*arguments, "--limit", "0").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["missing.json"], 2, "there is no trace at"),
        (["sharded.json", "--filter", "["], 2, "not a regular expression"),
        (
            ["sharded.json", "--view", "samples", "--filter", "x"],
            2,
            "--filter does not apply to --view samples: use it with tree, imports, spans, model",
        ),
        (["sharded.json", "--limit", "3"], 2, "--limit does not apply to the default screen: use it with"),
        (["sharded.json", "--view", "memory", "--depth", "3"], 2, "--depth does not apply"),
        (["sharded.json", "--view", "nonsense"], 2, "nonsense"),
        (["sharded.json", "--width", "3"], 2, "width"),
        (["sharded.json", "--min-ms", "nan"], 2, "--min-ms"),
        (["broken.json"], 1, "not valid JSON"),
    ],
)
def test_bad_input_is_one_sentence(run_cli, traces, arguments, code, words):
    (traces / "broken.json").write_text("{")
    done = run_cli("show", *arguments, cwd=traces)
    assert done.returncode == code
    assert done.stdout == ""
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_streams_that_know_ascii_alone(run_cli, traces):
    for view in (*VIEWS, ALL):
        done = run_cli(
            "show",
            traces / "hostile.json",
            "--view",
            view,
            env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.isascii()


def test_colours_are_written_when_asked_for(run_cli, traces):
    path = traces / "sharded.json"
    assert "\x1b[" in run_cli("show", path, "--color", "always").stdout
    assert "\x1b[" in run_cli("show", path, env={"FORCE_COLOR": "1"}).stdout
    assert "\x1b" not in run_cli("show", path, "--color", "never", env={"FORCE_COLOR": "1"}).stdout


def on_a_terminal(arguments, **environment):
    """Runs show on a pseudo terminal and returns what it wrote."""
    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS="80", **environment)
        os.execv(sys.executable, [sys.executable, "-m", "hftrace.cli.main", "show", *arguments])
    chunks = []
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:
            break
        if not chunk:
            break
        chunks.append(chunk)
    _, status = os.waitpid(process, 0)
    os.close(terminal)
    assert status == 0
    return b"".join(chunks)


def test_no_escape_at_all_without_colour_on_a_terminal(traces):
    path = str(traces / "sharded.json")
    assert b"\x1b[" in on_a_terminal([path])
    assert b"\x1b" not in on_a_terminal([path], NO_COLOR="1")
    assert b"\x1b" not in on_a_terminal([path, "--color", "never"])


def test_neither_torch_nor_psutil_is_imported(run_python, traces):
    code = (
        "import sys; from hftrace.cli.main import main\n"
        "try: main(['show', sys.argv[1], '--view', 'all'])\n"
        "except SystemExit: pass\n"
        "bad = {'torch', 'transformers', 'psutil', 'numpy', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    done = run_python("-c", code, traces / "sharded.json")
    assert done.returncode == 0, done.stderr


def test_what_is_not_drawn_is_not_imported(run_python, traces):
    code = (
        "import sys; from hftrace.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "slow = {'rich.console', 'tempfile', 'hftrace.replay.tensors'}\n"
        "rooms = ('hftrace.render.views.', 'hftrace.render.compare.')\n"
        "views = {name for name in sys.modules if name.startswith(rooms) and 'options' not in name}\n"
        "print(*sorted((slow & set(sys.modules)) | views))"
    )

    def imported(*arguments):
        return run_python("-c", code, *arguments).stdout.splitlines()[-1].split()

    assert imported("--help") == []
    assert imported("show", "--help") == []
    assert imported("compare", "--help") == []
    path = traces / "sharded.json"
    assert imported("show", path) == [
        "hftrace.render.views.summary",
        "hftrace.render.views.timeline",
        "hftrace.render.views.tree",
    ]
    for name, view in VIEWS.items():
        assert imported("show", path, "--view", name) == [view.module]
        assert imported("show", path, "--view", name, "--json") == [view.module]


def test_width():
    class Stream:
        def fileno(self):
            raise OSError

    assert output_width(120, Stream()) == 120
    os.environ["COLUMNS"] = "99"
    assert output_width(None, Stream()) == 99
    os.environ["COLUMNS"] = "what"
    assert output_width(None, Stream()) == 80


def test_wants_color():
    class Terminal:
        def isatty(self):
            return True

    os.environ["TERM"] = "xterm"
    assert wants_color("auto", Terminal())
    os.environ["TERM"] = "dumb"
    assert not wants_color("auto", Terminal())
    assert wants_color("always", Terminal())
    os.environ.update(TERM="xterm", NO_COLOR="1")
    assert not wants_color("auto", Terminal())


def test_patterns():
    assert matcher("*.weight")("a.weight")
    assert not matcher("*.weight")("a.weight.b")
    assert matcher("layers.1")("model.layers.1.x")
    with pytest.raises(UsageError):
        matcher("(")


def test_is_a_click_command():
    assert isinstance(command, click.Command)


def test_a_hundred_thousand_tensors_are_practical(run_cli, tmp_path):
    path = tmp_path / "large.json"
    handmade.sharded(layers=11_111, hidden=64, shards=30, samples=3000).save(path)
    begin = time.perf_counter()
    done = run_cli("show", path)
    # The target is 1.5 s on an idle machine; this is a guard against another order of magnitude.
    assert time.perf_counter() - begin < 10
    assert "model.layers.0\N{EN DASH}11110" in done.stdout


def shown(capsys, traces, *arguments):
    with pytest.raises(SystemExit) as end:
        main(["show", str(traces / "pickled.json"), *arguments])
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("filters", "keep"),
    [
        (["provenance=initialized"], lambda row: row["provenance"] == "initialized"),
        (["dtype=float32"], lambda row: row["dtype"] == "float32"),
        (["dtype=*16"], lambda row: row["dtype"] and row["dtype"].endswith("16")),
        (["device=null"], lambda row: row["device"] is None),
        (["file=pytorch_model*"], lambda row: row["file"] == "pytorch_model.bin"),
        (["kind=unused"], lambda row: row["kind"] == "unused"),
        (["keys=cls.predictions.bias"], lambda row: row["keys"] == ["cls.predictions.bias"]),
        (
            ["provenance=initialized", "*bias"],
            lambda row: row["provenance"] == "initialized" and row["name"].endswith("bias"),
        ),
        (["provenance=initialised"], lambda row: False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_filter_by_the_value_of_a_column(capsys, traces, filters, keep):
    handmade.pickled().save(traces / "pickled.json")
    every = json.loads(shown(capsys, traces, "--view", "tensors", "--json"))
    asked = [word for each in filters for word in ("--filter", each)]
    rows = json.loads(shown(capsys, traces, "--view", "tensors", *asked, "--json"))
    assert rows == [row for row in every if keep(row)]
    assert f"{len(rows)} of {len(every)}" in shown(capsys, traces, "--view", "tensors", *asked)


def test_a_value_that_no_row_has_names_those_there_are(capsys, traces):
    handmade.pickled().save(traces / "pickled.json")
    text = shown(capsys, traces, "--view", "tensors", "--filter", "kind=weight")
    assert "kind is one of: parameter, unused" in text


def test_a_device_is_known_by_its_kind_and_a_file_by_its_last_component():
    assert value_matcher("device", "cuda")("cuda:1")
    assert not value_matcher("device", "cuda:0")("cuda:1")
    assert value_matcher("path", "config.json")("/models/a/config.json")
    assert value_matcher("fallback", "true")(True)
    assert not value_matcher("dtype", "float16")("bfloat16")
    assert value_matcher("files", "a-*")({"a-1": 3, "b-1": 4})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--filter", "provenance=initialized"],
            "add --view imports, spans, model, tensors, files or requests",
        ),
        (["--view", "tensors", "--filter", "provenence=x"], "there is no column provenence; there are"),
        (["--view", "samples", "--filter", "pid=1"], "--filter does not apply"),
    ],
)
def test_a_column_that_cannot_be_filtered(capsys, traces, arguments, words):
    with pytest.raises(SystemExit) as end:
        main(["show", str(traces / "sharded.json"), *arguments])
    assert end.value.code == 2
    assert words in capsys.readouterr().err
