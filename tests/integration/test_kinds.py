"""Every kind of load: each row of the ledger against the finished model and the files' bytes.

A kind is a module of ``kinds/``:

``NEEDS``
    packages of the extras (see ``environments/versions.py``) that it loads with; optional. ``torchao``
    has a directory of its own.
``VERSIONS``
    the transformers versions that can load it, as a specifier; optional.
``make(folder)``
    writes the checkpoint.
``load(folder)``
    loads it, and returns the model.
``check(trace, model, folder)``
    asserts what is special about it.
``DIFFERENT``
    names of the tensors that ``verify`` must find not to hold what the files hold; none by default.
``FINDINGS``
    names of the findings about weights that there must be; none by default: a healthy load has none.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest
import transformers
from packaging.specifiers import SpecifierSet

pytestmark = pytest.mark.integration

HERE = Path(__file__).parent
KINDS = sorted(path.stem for path in (HERE / "kinds").glob("*.py"))
EXTRAS = Path(os.environ.get("HFTRACE_ENVIRONMENTS") or HERE.parents[1] / ".venvs") / "extras"
ABOUT_WEIGHTS = {
    "missing-weights",
    "uninitialized-weights",
    "unknown-weights",
    "overwritten-weights",
    "unused-keys",
    "left-on-meta",
    "mismatched-shapes",
    "tied-over-own-key",
    "tied-by-copy",
    "verify-failed",
}


def _facts(name: str):
    spec = importlib.util.spec_from_file_location(name, HERE / "kinds" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    kind = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kind)
    return kind


@pytest.mark.parametrize("name", KINDS)
def test_every_row_is_true(name, tmp_path, run_python):
    kind = _facts(name)
    if transformers.__version__ not in SpecifierSet(getattr(kind, "VERSIONS", "")):
        pytest.skip(f"transformers {transformers.__version__} cannot load this")
    path = [os.environ.get("PYTHONPATH", "")]
    if getattr(kind, "NEEDS", ()):
        places = [EXTRAS.with_name("torchao") if package == "torchao" else EXTRAS for package in kind.NEEDS]
        if not all(place.is_dir() for place in places):
            pytest.skip(f"no {', '.join(kind.NEEDS)}: tests/environments/make.py installs it")
        path += dict.fromkeys(map(str, places))
    done = run_python(
        HERE / "kind_runner.py",
        name,
        tmp_path,
        env={"PYTHONPATH": os.pathsep.join(filter(None, path))},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["wrong"] == []
    assert result["different"] == list(getattr(kind, "DIFFERENT", ()))
    assert result["failed"] is None, result["failed"]
    assert result["errors"] == []
    found = {name for _, name, _ in result["findings"]}
    assert found & ABOUT_WEIGHTS == set(getattr(kind, "FINDINGS", ()))
