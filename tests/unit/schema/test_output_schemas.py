"""What ``--json`` prints is what its schema says, of every recorded example and every hand-made trace."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

import handmade
import handmade_memory
import hftrace
from hftrace.cli.main import main
from hftrace.render.registry import ALL
from hftrace.render.views import VIEWS

ROOT = Path(__file__).parents[3]
FOLDER = Path(hftrace.__file__).parent / "schema" / "json"
EXAMPLES = [
    path
    for path in sorted((ROOT / "traces" / "examples").rglob("*.json"))
    if path.name != "comparison.json" and path.stem[-2:] not in ("-2", "-3", "-4", "-5")
]
MADE = {
    **handmade.ALL,
    **{name: getattr(handmade, name) for name in ("hostile", "empty", "failing", "killed", "offloaded")},
    **{f"memory-{name}": make for name, make in handmade_memory.LOADS.items()},
    "dead": handmade_memory.dead,
    "hostile-outcome": handmade_memory.hostile_outcome,
    "device-full": lambda: handmade_memory.on_device(full=True),
}


def validator(name):
    schema = json.loads((FOLDER / f"{name}.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture(scope="module")
def validators():
    return {path.name.partition(".")[0]: validator(path.name.partition(".")[0]) for path in FOLDER.iterdir()}


@pytest.fixture
def printed(capsys):
    """Returns what a command prints as JSON."""

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            main([*map(str, arguments), "--json"])
        output = capsys.readouterr()
        assert end.value.code in (0, 3), output.err
        return json.loads(output.out)

    return run


def test_the_files_are_current():
    script = ROOT / "scripts" / "make_output_schemas.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_every_view_has_a_schema(validators):
    assert {f"show-{name}" for name in (*VIEWS, ALL)} <= validators.keys()


def check_views(path, printed, validators):
    whole = printed("show", path, "--view", ALL)
    assert set(whole) == set(VIEWS)
    for name, facts in whole.items():
        validators[f"show-{name}"].validate(facts)
    assert printed("show", path) == whole["summary"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(EXAMPLES[0].parents[1])))
def test_recorded_examples(path, printed, validators):
    check_views(path, printed, validators)


@pytest.mark.parametrize("name", MADE)
def test_hand_made_traces(name, tmp_path, printed, validators):
    MADE[name]().save(tmp_path / "x.json")
    check_views(tmp_path / "x.json", printed, validators)


def test_each_view_alone_and_all_of_them(tmp_path, printed, validators):
    handmade.sharded().save(tmp_path / "x.json")
    for name in (*VIEWS, ALL):
        validators[f"show-{name}"].validate(printed("show", tmp_path / "x.json", "--view", name))


@pytest.mark.parametrize(
    "groups",
    [
        [f"{version}=versions/{version}-*.json" for version in ("4.48.3", "4.57.6", "5.23.0")],
        [f"{name}=fast-init-4.48.3/{name}-*.json" for name in ("fast-init", "no-fast-init", "low-cpu-mem")],
        ["llama-A-4.48.3.json", "llama-D-5.23.0.json"],
        ["mixtral-D-5.23.0-gpu.json", "mixtral-D-5.23.0-gpu-full.json"],
    ],
    ids=["versions", "init", "single", "gpu"],
)
def test_comparisons(groups, printed, validators, monkeypatch):
    monkeypatch.chdir(ROOT / "traces" / "examples")
    validators["compare"].validate(printed("compare", *groups))


@pytest.mark.parametrize("path", EXAMPLES[:3] + EXAMPLES[-3:], ids=lambda path: path.stem)
def test_checks(path, printed, validators):
    made = printed("check", path, "--max-time", "1s", "--max-device-peak", "1MB", "--forbid", "cast")
    validators["check"].validate(made)


def test_synth_list(printed, validators):
    validators["synth-list"].validate(printed("synth", "--list"))


def test_explain(run_cli, validators):
    validators["explain"].validate(json.loads(run_cli("explain", "R02", "--json").stdout))
    validators["explain-all"].validate(json.loads(run_cli("explain", "--json").stdout))


def test_doctor(run_cli, validators):
    done = run_cli("doctor", "--json")
    validators["doctor"].validate(json.loads(done.stdout))


def paths_of(schema, value, root):
    """Yields the places of a value that its schema requires: (holder, key)."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    for part in schema.get("anyOf", ()):
        if part.get("type") == "object" and isinstance(value, dict):
            schema = part
    if isinstance(value, dict):
        for key in schema.get("required", ()):
            yield value, key
        for key, each in value.items():
            known = schema.get("properties", {}).get(key)
            more = schema.get("additionalProperties")
            inner = known if known is not None else more if isinstance(more, dict) else None
            if inner:
                yield from paths_of(inner, each, root)
    elif isinstance(value, list) and value and "items" in schema and isinstance(schema["items"], dict):
        yield from paths_of(schema["items"], value[0], root)


@pytest.mark.parametrize("name", [*VIEWS, ALL])
def test_a_key_that_goes_or_changes_its_type_fails(name, tmp_path, printed, validators):
    handmade_memory.dead().save(tmp_path / "x.json")
    made = printed("show", tmp_path / "x.json", "--view", name)
    check = validators[f"show-{name}"]
    schema = check.schema
    tried = 0
    for holder, key in list(paths_of(schema, made, schema)):
        kept = holder.pop(key)
        assert not check.is_valid(made), f"without {key}"
        holder[key] = {"a": [None]}
        if isinstance(kept, (int, float, str, list)) and key not in LOOSE:
            assert not check.is_valid(made), f"{key} retyped"
        holder[key] = kept
        tried += 1
    assert tried >= 3
    added = copy.deepcopy(made)
    (added[0] if isinstance(added, list) else added)["new"] = 1
    assert check.is_valid(added)


LOOSE = {"model", "class", "command", "start_time", "limit_kind"}
"""What the summary repeats of a trace as it stands there, whatever that is."""
