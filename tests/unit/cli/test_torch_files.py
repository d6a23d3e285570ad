"""Files of what torch records beside a load: written, or said why not; the trace is worth more."""

import json

import pytest

import handmade
from hftrace.cli.common.torch_files import TorchFiles
from hftrace.launch.child import PROFILE_FILE, SNAPSHOT_FILE


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    return path


def test_a_snapshot_is_copied_as_it_is(run, tmp_path, capsys):
    (run / SNAPSHOT_FILE).write_bytes(b"\x80\x04pickle")
    target = tmp_path / "new" / "m.pickle"
    assert TorchFiles(None, target).save(handmade.sharded(), run)
    assert target.read_bytes() == b"\x80\x04pickle"
    assert capsys.readouterr().err == f"Wrote {target}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not JSON", "torch's profile cannot be read (JSONDecodeError"),
        ('{"traceEvents": []}', "FileNotFoundError"),
        ("[]", "FileNotFoundError"),
    ],
)
def test_a_profile_that_cannot_be_read_is_said_and_nothing_written(run, tmp_path, capsys, text, words):
    (run / PROFILE_FILE).write_text(text)
    target = tmp_path / "p.json"
    assert not TorchFiles(target, None).save(handmade.sharded(), run)
    said = capsys.readouterr().err
    assert words in said
    assert said.endswith(f": {target} was not written\n")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    "document", [[], 3, {"traceEvents": 5}, {"traceEvents": [{"ph": "X", "name": "m 1"}]}]
)
@pytest.mark.parametrize("marks", [[], {"name": "m", "at_start": [[1, 2, 3]], "at_end": 5}, {"name": "m"}])
def test_nothing_in_a_profile_breaks_the_command(run, tmp_path, capsys, document, marks):
    (run / PROFILE_FILE).write_text(json.dumps(document))
    (run / f"{PROFILE_FILE}.clock").write_text(json.dumps(marks))
    assert not TorchFiles(tmp_path / "p.json", None).save(handmade.sharded(), run)
    assert "torch's profile cannot be read" in capsys.readouterr().err


def test_what_a_killed_load_did_not_leave_is_said(run, tmp_path, capsys):
    assert not TorchFiles(tmp_path / "p.json", tmp_path / "m.pickle").save(handmade.killed(), run)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2].partition(" was")[0] for line in lines] == [
        str(tmp_path / "p.json"),
        str(tmp_path / "m.pickle"),
    ]
    assert all("a load that is killed leaves nothing of" in line for line in lines)
