"""Every kind of load: each row of the ledger against the finished model and the files' bytes.

A kind is a module of ``kinds/``:

``NEEDS``
    packages of the extras (see ``environments/versions.py``) that it loads with; optional. ``torchao``
    has a directory of its own, and so have the other libraries that load.
``SPARSE``
    whether it depends on another library more than on the loader; no by default.
``VERSIONS``
    the transformers versions that can load it, as a specifier; optional. What holds for a package is
    said once, in ``IMPORTED_BESIDE``.
``PRINTED``
    whether ``print(model)`` shows all of its modules; yes by default.
``make(folder)``
    writes the checkpoint.
``load(folder)``
    loads it, and returns the model.
``check(trace, model, folder)``
    asserts what is special about it.
``DIFFERENT``
    names of the tensors that ``verify`` must find not to hold what the files hold; none by default.
``UNKNOWN``
    names of the tensors of which nothing says where they are from; none by default.
``FINDINGS``
    names of the findings about weights that there must be; none by default: a healthy load has none.
``WARNED``
    names of the other findings above ``info`` that there must be, from 4.57 on; none by default: a
    healthy load has none.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import transformers
from packaging.specifiers import SpecifierSet

pytestmark = [pytest.mark.integration, pytest.mark.kinds]

HERE = Path(__file__).parent
KINDS = sorted(path.stem for path in (HERE / "kinds").glob("*.py"))
EXTRAS = Path(os.environ.get("HFTRACE_ENVIRONMENTS") or HERE.parents[1] / ".venvs") / "extras"
VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
WARNED_SINCE = (4, 57)
ABOUT_WEIGHTS = {
    "missing-weights",
    "uninitialized-weights",
    "unknown-weights",
    "unread-files",
    "overwritten-weights",
    "unused-keys",
    "left-on-meta",
    "mismatched-shapes",
    "tied-over-own-key",
    "tied-by-copy",
    "verify-failed",
    "initialized-after-load",
    "written-after-load",
}


def _facts(name: str):
    spec = importlib.util.spec_from_file_location(name, HERE / "kinds" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    kind = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kind)
    return kind


IMPORTED_AS = {
    "peft": "peft",
    "compressed-tensors": "compressed_tensors",
    "diffusers": "torchvision_operators,diffusers",
    "timm": "torchvision_operators,timm,open_clip",
}
"""What takes long to import is imported once. Quanto starts threads, which a fork would lose."""


IMPORTED_BESIDE = {"peft": ">=4.44", "diffusers": ">=5.20"}
"""The transformers versions beside which a package can be imported, where not beside all of them."""


def _why_not(kind) -> str | None:
    """Returns why a kind cannot be loaded here; None where it can."""
    for package in getattr(kind, "NEEDS", ()):
        if transformers.__version__ not in SpecifierSet(IMPORTED_BESIDE.get(package, "")):
            return f"{package} cannot be imported beside transformers {transformers.__version__}"
    if transformers.__version__ not in SpecifierSet(getattr(kind, "VERSIONS", "")):
        return f"transformers {transformers.__version__} cannot load this"
    if not all(place.is_dir() for place in _places(kind)):
        return f"no {', '.join(kind.NEEDS)}: tests/environments/make.py installs it"
    return None


OF_THEIR_OWN = {"torchao": "torchao", "diffusers": "others", "timm": "others", "open-clip-torch": "others"}
"""The directories of packages that are not among the extras."""


def _places(kind) -> list[Path]:
    """Returns the directories of the packages that a kind needs."""
    needs = getattr(kind, "NEEDS", ())
    return list(dict.fromkeys(EXTRAS.with_name(OF_THEIR_OWN.get(each, EXTRAS.name)) for each in needs))


@pytest.fixture(scope="module")
def results(request, tmp_path_factory):
    """Returns a function from a kind to its folder, once all kinds of this run with its needs are done."""
    chosen = [item.callspec.params["name"] for item in request.session.items if "name" in _parameters(item)]
    folders: dict[str, Path] = {}

    def folder_of(name: str) -> Path:
        if name not in folders:
            needs = getattr(_facts(name), "NEEDS", ())
            alike = [
                each
                for each in chosen
                if getattr(_facts(each), "NEEDS", ()) == needs and _why_not(_facts(each)) is None
            ]
            folders.update((each, tmp_path_factory.mktemp(each)) for each in alike)
            _run(needs, {each: folders[each] for each in alike})
        return folders[name]

    return folder_of


def _parameters(item) -> dict[str, object]:
    callspec = getattr(item, "callspec", None)
    return callspec.params if callspec is not None and item.fspath.basename == Path(__file__).name else {}


def _run(needs: tuple[str, ...], folders: dict[str, Path]) -> None:
    paths = [os.environ.get("PYTHONPATH", ""), *map(str, _places(_facts(next(iter(folders)))))]
    imported = ",".join(IMPORTED_AS[each] for each in needs if each in IMPORTED_AS)
    pairs = [part for name, folder in folders.items() for part in (name, str(folder))]
    subprocess.run(
        [sys.executable, str(HERE / "kind_runner.py"), imported, *pairs],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=60 + 60 * len(folders),
    )


def _marked(name: str):
    # Read and not imported, which takes long.
    is_sparse = "\nSPARSE = True\n" in (HERE / "kinds" / f"{name}.py").read_text()
    return pytest.param(name, marks=[pytest.mark.sparse] if is_sparse else [])


@pytest.mark.parametrize("name", [_marked(name) for name in KINDS])
def test_every_row_is_true(name, results):
    kind = _facts(name)
    if (reason := _why_not(kind)) is not None:
        pytest.skip(reason)
    folder = results(name)
    output = folder / "output.txt"
    said = output.read_text(errors="replace")[-4000:] if output.exists() else "it did not begin"
    assert (folder / "result.json").exists(), said
    result = json.loads((folder / "result.json").read_text())
    assert result["wrong"] == []
    assert result["different"] == list(getattr(kind, "DIFFERENT", ()))
    assert result["failed"] is None, result["failed"]
    assert result["errors"] == []
    assert result["lost"] == {"events": 0}
    assert result["requests"] == []
    assert not {name for _, name, _ in result["findings"]} & {"failed-requests", "hub-requests"}
    found = {name for _, name, _ in result["findings"]}
    assert found & ABOUT_WEIGHTS == set(getattr(kind, "FINDINGS", ()))
    above = {name for severity, name, _ in result["findings"] if severity != "info"}
    if VERSION >= WARNED_SINCE:
        # Collections are those of a process that makes and loads many kinds, one after the other.
        above -= ABOUT_WEIGHTS | {"full-collections"}
        assert above == set(getattr(kind, "WARNED", ())), result["findings"]
