"""Every switch that hftrace proposes is set in a real process, in which the package is not imported then.

The packages are small fakes with metadata, as pip leaves it, and real ones where they are installed.
"""

from __future__ import annotations

import json
import os

import pytest
from packaging.version import Version

import hftrace
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.time.import_switches import VARIABLES, program_line
from hftrace.analysis.time.optional_imports import optional_packages

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.sparse

OLD = Version(transformers.__version__) < Version("5")
SECONDS = 0.6
FAKES = {
    "tensorflow": ("2.15.0", {}),
    "jax": ("0.4.30", {"numpy.py": "ndarray = int\n"}),
    "flax": ("0.8.0", {}),
    "torch_xla": ("2.3.0", {"core/__init__.py": "", "core/xla_model.py": ""}),
    "sklearn": ("1.7.0", {"metrics.py": "def roc_curve(): pass\n"}),
}
DISTRIBUTIONS = {"sklearn": "scikit_learn"}
LOAD = """
import json, sys
{before}
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("model")
imported = sorted(name for name, module in sys.modules.items() if module)
print(json.dumps([sum(p.numel() for p in model.parameters()), imported]))
"""


@pytest.fixture
def place(run_cli, tmp_path):
    """A checkpoint, and fakes of the packages in ``packages``."""
    result = run_cli("synth", "llama-2-7b", "--size", "1MB", "-o", "model")
    assert result.returncode == 0, result.stderr
    (tmp_path / "packages").mkdir()
    return tmp_path


def install(place, *names):
    for name in names:
        version, files = FAKES[name]
        folder = place / "packages" / name
        folder.mkdir()
        text = f"import time\ntime.sleep({SECONDS})\n__version__ = {version!r}\nArray = int\n"
        (folder / "__init__.py").write_text(text)
        for file, content in files.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text(content)
        distribution = DISTRIBUTIONS.get(name, name)
        metadata = place / "packages" / f"{distribution}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n\n"
        )


def path_of(place, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{place / 'packages'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


def load(run_cli, place, **variables):
    result = run_cli("load", "model", "-o", "trace.json", "--force", "--quiet", env=variables)
    assert result.returncode == 0, result.stderr
    trace = hftrace.Trace.open(place / "trace.json")
    return trace, {each.package: each for each in optional_packages(trace)}


def loaded(run_python, before=""):
    result = run_python("-c", LOAD.format(before=before))
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.strip().split("\n")[-1])


@pytest.mark.parametrize("package", ["tensorflow", "jax", "torch_xla"])
def test_variables(run_cli, place, monkeypatch, package):
    pytest.importorskip("accelerate")
    install(place, package, *(["flax"] if package == "jax" else []))
    path_of(place, monkeypatch)
    trace, optional = load(run_cli, place)
    if package != "torch_xla" and not OLD:
        # These versions import it for nothing, and there is nothing to propose.
        assert package not in trace.imports.column("package")
        assert package not in optional
        return
    variable = optional[package].variable
    assert (variable.name, variable.value) == (VARIABLES[package].name, "0")
    assert SECONDS <= optional[package].spared_ns / 1e9 < SECONDS + 0.5
    trace, optional = load(run_cli, place, **{variable.name: variable.value})
    assert package not in {row.package for row in trace.imports if row.status == "ok"}
    assert package not in optional


def test_use_jax_changes_nothing(run_cli, place, monkeypatch):
    if not OLD:
        pytest.skip("transformers 5.x does not import jax")
    install(place, "jax", "flax")
    path_of(place, monkeypatch)
    trace, _ = load(run_cli, place, USE_JAX="0")
    assert "jax" in trace.imports.column("package")


def test_the_line_of_a_program(run_cli, run_python, place, monkeypatch):
    if OLD:
        # In front of the real one: it takes as long as is wanted, and requires nothing.
        install(place, "sklearn")
    path_of(place, monkeypatch)
    trace, optional = load(run_cli, place)
    wanted = "sklearn" if OLD else "scipy"
    if wanted not in optional:
        pytest.skip(f"{wanted} is not installed")
    assert optional[wanted].variable is None
    (plain, modules) = loaded(run_python)
    assert wanted in modules
    line = program_line(optional[wanted].names)
    (same, modules) = loaded(run_python, line)
    assert same == plain
    assert not set(optional[wanted].names) & set(modules)
    if OLD:
        assert optional[wanted].spared_ns / 1e9 >= SECONDS
        found = {finding.rule: finding for finding in findings(trace)}
        assert "sklearn=None" in found["R54"].advice


@pytest.mark.long
def test_every_line_that_is_printed_lets_the_load_go_on(run_cli, run_python, place):
    trace, optional = load(run_cli, place)
    (plain, _) = loaded(run_python)
    assert trace.header["errors"] == []
    for each in optional.values():
        if each.variable is None and each.spared_ns >= 20_000_000:
            (same, modules) = loaded(run_python, program_line(each.names))
            assert same == plain
            assert not set(each.names) & set(modules), each.package
