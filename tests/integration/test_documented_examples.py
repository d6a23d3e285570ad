"""What README, docs and the skill show runs: their commands in a shell, their programs as programs.

A folder holds what the pages speak of, such as ``./my-model`` and ``out.json``. What starts a load is for the
long run; everything that reads a trace runs each time.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from documented import ROOT, commands, programs

pytestmark = [pytest.mark.integration, pytest.mark.process, pytest.mark.once]

TRACE = ROOT / "traces" / "examples" / "llama-D-5.23.0.json"
TRACES = (
    *("TRACE", "A.json", "B.json", "out.json", "before.json", "after.json", "last-week.json", "trace.json"),
    *("start.json", "load.json", "verified.json", "old.json"),
    *("runs/a-1.json", "runs/a-2.json", "runs/b-1.json", "traces/last.json"),
)
MODELS = ("my-model", "meta-llama/Llama-2-7b-hf", "my/model", "MODEL", "org/encoder")
HERE = {r"/traces/": "traces/", r"/var/lib/node_exporter/": "", r"--port 8000": "--port 0"}
"""What a page says of another machine, and what stands in its place here."""
APP = """
import sys
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("my-model")
print("loaded", sys.argv[1:])
"""
EXTRAS = {".parquet": "pyarrow", "otlp": "opentelemetry.proto"}
"""What a command needs besides hftrace; test_tables.py and test_otlp.py have it in environments apart."""
RESULTS = (0, 3)
"""What a command may exit with that holds a trace against budgets: 3 is an answer."""
SECONDS = 300


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what the pages speak of."""
    place = tmp_path_factory.mktemp("documented")
    first = place / MODELS[0]
    made = [sys.executable, "-m", "hftrace", "synth", "llama-2-7b", "--size", "5MB", "-o", first]
    subprocess.run(list(map(str, made)), check=True, capture_output=True, timeout=SECONDS)
    for name in MODELS[1:]:
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).symlink_to(first)
    for name in TRACES:
        (place / name).parent.mkdir(exist_ok=True)
        shutil.copy(TRACE, place / name)
    for name in ("llama.json.gz", "out.json.gz"):
        subprocess.run(f"gzip -c {TRACE} > {place / name}", shell=True, check=True)
    shutil.copytree(ROOT / "traces" / "examples", place / "traces" / "examples")
    for name in ("app.py", "service.py", "train.py"):
        (place / name).write_text(APP)
    (place / "tests").mkdir()
    (place / "tests" / "test_nothing.py").write_text("def test_nothing():\n    pass\n")
    shims = place / "bin"
    shims.mkdir()
    modules = {"hftrace": "-m hftrace", "torchrun": "-m torch.distributed.run", "python": ""}
    for name, module in modules.items():
        (shims / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        (shims / name).chmod(0o755)
    return place


def run_in(place: Path, text: str) -> subprocess.CompletedProcess[str]:
    for pattern, instead in HERE.items():
        text = re.sub(rf"(?<![\w.]){pattern}", instead, text)
    variables = {name: value for name, value in os.environ.items() if name not in ("AI_AGENT", "AGENT")}
    variables["PATH"] = f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", text],
        cwd=place,
        env=variables | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )


@contextlib.contextmanager
def as_it_was(place: Path):
    """Lets the next example find the traces that this one has found."""
    before = {path: path.read_bytes() for path in place.glob("*.json")}
    try:
        yield
    finally:
        for path, content in before.items():
            path.write_bytes(content)


def ready(place: Path, text: str) -> str:
    """Makes room for what a command is going to write, and measures once where it would five times."""
    for name in re.findall(r"(?:-o|--torch-profile) (\S+)", text):
        if not name.startswith("/") and name not in MODELS:
            shutil.rmtree(place / name, ignore_errors=True)
            (place / name).unlink(missing_ok=True)
    if re.match(r"hftrace compare .*--(?:variant|sweep)", text) and "--repeat" not in text:
        text += " --repeat 1"
    return text


def cases():
    seen: set[str] = set()
    for each in commands():
        # What has its output on the page, update_docs.py runs; those of the skill, test_agent_texts.py.
        elsewhere = "traces/examples/" in each.text or each.page in ("SKILL.md", "llms.txt")
        if each.reason is None and each.text not in seen and not elsewhere:
            seen.add(each.text)
            marks = [pytest.mark.long] if each.loads else []
            yield pytest.param(each, id=each.name, marks=marks)


@pytest.mark.parametrize("example", list(cases()))
def test_a_command_of_a_page_runs(example, place):
    if " | jq " in example.text and shutil.which("jq") is None:
        pytest.skip("no jq here")
    for word, module in EXTRAS.items():
        if word in example.text:
            pytest.importorskip(module)
    with as_it_was(place):
        done = run_in(place, ready(place, example.text))
    allowed = RESULTS if "hftrace check " in example.text else (0,)
    assert done.returncode in allowed, f"{example.name}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert done.stdout or done.stderr, "it says something"


WHOLE = [
    each for each in programs() if "import hftrace" in each.text and "from_pretrained(name)" not in each.text
]


@pytest.mark.long
@pytest.mark.parametrize("example", WHOLE, ids=lambda example: example.name)
def test_a_program_of_a_page_runs(example, place):
    (place / "program.py").write_text(example.text)
    if "to_pandas" in example.text:
        pytest.importorskip("pandas")
    with as_it_was(place):
        for name in re.findall(r"hftrace\.trace\(\"([^\"]+)\"", example.text):
            (place / name).unlink(missing_ok=True)
        done = run_in(place, "python program.py")
    assert done.returncode == 0, f"{example.name}\n{done.stderr[-2000:]}"
