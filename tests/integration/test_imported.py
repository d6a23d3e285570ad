"""The imports of real processes: who asked for what, how long it took, what it was made of."""

from __future__ import annotations

import gc
import importlib
import importlib._bootstrap_external as external
import sys
import textwrap
import threading
import zipfile

import pytest

import hftrace
from hftrace.analysis.time.imports import asker, import_rows, imports_ns, package_trees
from hftrace.analysis.time.optional_imports import optional_packages

pytestmark = pytest.mark.sparse

SLEEP = 0.06
"""Seconds that a module of these tests sleeps."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of modules that sleep, on the path; what was imported from it is forgotten again."""
    place = tmp_path / "modules"
    place.mkdir()
    monkeypatch.syspath_prepend(place)
    before = set(sys.modules)
    yield place
    for name in set(sys.modules) - before:
        if name.startswith("slow_") or name == "lazy_one":
            del sys.modules[name]
    importlib.invalidate_caches()


def write(folder, name, text="", seconds=SLEEP):
    path = folder / f"{name.replace('.', '/')}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"import time\ntime.sleep({seconds})\n{textwrap.dedent(text)}")
    return path


def recorded(action, tmp_path, **expected):
    with hftrace.trace(tmp_path / "trace.json", force=True) as run:
        try:
            action()
        except expected.get("error", ()):
            pass
    trace = run.trace
    assert trace.header["errors"] == []
    return trace, {row.name: row for row in trace.imports if row.name is not None}


def took(row):
    return row.duration_ns / 1e9


def test_a_tree_of_modules_with_their_lines(folder, tmp_path):
    write(folder, "slow_b")
    outer = write(folder, "slow_a.__init__", "\n\nimport slow_b\nfrom slow_a import part\n")
    write(folder, "slow_a.part")

    def action():
        import slow_a

        assert slow_a

    here = action.__code__.co_firstlineno + 1
    trace, rows = recorded(action, tmp_path)
    assert set(rows) >= {"slow_a", "slow_b", "slow_a.part"}
    a, b, part = rows["slow_a"], rows["slow_b"], rows["slow_a.part"]
    assert (b.parent, part.parent, a.parent) == (a.id, a.id, None)
    assert (a.importer, a.importer_line) == (__name__, here)
    assert (b.importer, b.importer_line) == ("slow_a", 5)
    assert asker(part) == "slow_a:6"
    assert took(a) >= 3 * SLEEP
    for row in (a, b, part):
        assert SLEEP <= row.self_ns / 1e9 < took(a) - 1.5 * SLEEP
    assert a.file_bytes == outer.stat().st_size
    assert (a.where, a.status) == ("own", "ok")
    span = next(span for span in trace.spans if span.id == a.span)
    assert (span.phase, span.name) == ("import", "import slow_a")
    assert span.start_ns <= a.start_ns <= a.end_ns <= span.end_ns
    # Not a nanosecond is lost, and none is counted twice.
    below = sum(row.self_ns + row.collect_ns for row in trace.imports if row.span == a.span)
    assert below == a.duration_ns


def test_many_small_modules_are_one_row(folder, tmp_path):
    for number in range(300):
        (folder / f"slow_small{number}.py").write_text("x = 1\n")
    write(folder, "slow_top", "".join(f"import slow_small{number}\n" for number in range(300)))

    def action():
        import slow_top

        assert slow_top

    trace, rows = recorded(action, tmp_path)
    assert sum(trace.imports.column("modules")) >= 301
    assert len(trace.imports) <= 301
    assert rows["slow_top"].self_ns / 1e9 < took(rows["slow_top"])


def test_attributes_that_import_are_asked_for_by_who_uses_them(folder, tmp_path):
    write(folder, "slow_inner")
    (folder / "lazy_one.py").write_text(
        "import importlib\n"
        "def __getattr__(name):\n"
        "    if name != 'thing':\n"
        "        raise AttributeError(name)\n"
        "    return importlib.import_module('slow_inner')\n"
    )

    def action():
        import lazy_one

        return lazy_one.thing

    _, rows = recorded(action, tmp_path)
    assert asker(rows["slow_inner"]) == f"{__name__}:{action.__code__.co_firstlineno + 3}"


def test_imports_that_fail(folder, tmp_path):
    write(folder, "slow_broken", "raise RuntimeError('no')\n")

    def action():
        import slow_broken

        assert slow_broken

    _, rows = recorded(action, tmp_path, error=RuntimeError)
    assert rows["slow_broken"].status == "error"
    assert took(rows["slow_broken"]) >= SLEEP


def test_circles_namespaces_zips_and_a_second_time(folder, tmp_path):
    write(folder, "slow_circle", "import slow_round\n")
    write(folder, "slow_round", "import slow_circle\nassert slow_circle\n")
    write(folder, "slow_space.part")
    with zipfile.ZipFile(tmp_path / "slow.zip", "w") as archive:
        archive.writestr("slow_zipped.py", f"import time\ntime.sleep({SLEEP})\n")
    sys.path.insert(0, str(tmp_path / "slow.zip"))
    loaders = {}

    def action():
        import slow_circle
        import slow_space.part
        import slow_zipped

        loaders.update(
            {
                module.__name__: (module.__loader__, module.__spec__)
                for module in (slow_circle, slow_space, slow_zipped)
            }
        )
        importlib.reload(slow_circle)

    finders = list(sys.meta_path), list(sys.path_hooks)
    try:
        _, rows = recorded(action, tmp_path)
    finally:
        sys.path.remove(str(tmp_path / "slow.zip"))
    assert (list(sys.meta_path), list(sys.path_hooks)) == finders
    assert rows["slow_round"].parent == rows["slow_circle"].id
    assert rows["slow_zipped"].made_of == "zip"
    assert rows["slow_space.part"].made_of in ("source", "bytecode", None)
    for name, (loader, spec) in loaders.items():
        assert spec.loader is loader
        assert spec.name == name
        assert type(spec) is importlib.machinery.ModuleSpec


def test_threads_import_each_for_themselves(folder, tmp_path):
    for number in range(3):
        write(folder, f"slow_thread{number}", f"import slow_deep{number}\n")
        write(folder, f"slow_deep{number}")

    def action():
        threads = [
            threading.Thread(target=importlib.import_module, args=(f"slow_thread{number}",))
            for number in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    _, rows = recorded(action, tmp_path)
    assert len({rows[f"slow_thread{number}"].thread for number in range(3)}) == 3
    for number in range(3):
        outer, inner = rows[f"slow_thread{number}"], rows[f"slow_deep{number}"]
        assert (inner.parent, inner.thread) == (outer.id, outer.thread)


def test_full_collections_are_no_module_s_time(folder, tmp_path):
    write(
        folder,
        "slow_collecting",
        """
        import gc
        from time import perf_counter
        kept = [[] for _ in range(400_000)]
        started = perf_counter()
        gc.collect()
        took = perf_counter() - started
        """,
        seconds=0,
    )

    def action():
        import slow_collecting

        assert slow_collecting

    before = list(gc.callbacks)
    gc.disable()
    try:
        _, rows = recorded(action, tmp_path)
    finally:
        gc.enable()
    module = sys.modules["slow_collecting"]
    row = rows["slow_collecting"]
    assert 0.5 * module.took < row.collect_ns / 1e9 <= module.took
    assert row.self_ns + row.collect_ns <= row.duration_ns
    assert gc.callbacks == before


def test_nothing_is_left_in_the_machinery(folder, tmp_path):
    write(folder, "slow_plain")
    code = external.SourceLoader.source_to_code.__code__

    def action():
        assert external.SourceLoader.source_to_code.__code__ is not code
        import slow_plain

        assert slow_plain

    recorded(action, tmp_path)
    assert external.SourceLoader.source_to_code.__code__ is code


PROGRAM = """
import sys
import hftrace
sys.path.insert(0, "modules")
with hftrace.trace("trace.json", force=True) as run:
    import slow_compiled
"""


def compiled(run_python, tmp_path, **variables):
    place = tmp_path / "modules"
    place.mkdir(exist_ok=True)
    path = place / "slow_compiled.py"
    if not path.exists():
        # Long enough for the compiler to take some milliseconds.
        path.write_text("".join(f"def f{number}(x):\n    return [x, {number}]\n" for number in range(3000)))
    result = run_python("-c", PROGRAM, env={"PYTHONDONTWRITEBYTECODE": None, **variables})
    assert result.returncode == 0, result.stderr
    trace = hftrace.Trace.open(tmp_path / "trace.json")
    row = next(row for row in trace.imports if row.name == "slow_compiled")
    span = next(span for span in trace.spans if span.id == row.span)
    return row, span.attributes.get("bytecode")


def test_the_first_process_compiles_and_the_second_does_not(run_python, tmp_path):
    row, facts = compiled(run_python, tmp_path)
    assert (row.made_of, row.compiled) == ("source", 1)
    assert 0 < row.compile_ns <= row.self_ns
    assert (facts["compiled"], facts["unwritten"]) == (1, 0)
    row, facts = compiled(run_python, tmp_path)
    assert (row.made_of, row.compiled, row.compile_ns, facts) == ("bytecode", 0, 0, None)


def test_bytecode_that_is_not_kept(run_python, tmp_path):
    for _ in range(2):
        row, facts = compiled(run_python, tmp_path, PYTHONDONTWRITEBYTECODE="1")
        assert row.made_of == "source"
        assert (facts["unwritten"], facts["unwritten_ns"]) == (1, row.compile_ns)
        assert facts["switched_off"]
    # A folder that nothing can be written to: a file in its place.
    (tmp_path / "taken").write_text("")
    _, facts = compiled(run_python, tmp_path, PYTHONPYCACHEPREFIX=str(tmp_path / "taken" / "x"))
    assert facts["unwritten"] == 1
    assert not facts["switched_off"]


def test_a_load_has_all_imports_of_its_process(run_cli, tmp_path):
    result = run_cli("synth", "llama-2-7b", "--size", "1MB", "-o", "model")
    assert result.returncode == 0, result.stderr
    result = run_cli("load", "model", "-o", "trace.json", "--quiet")
    assert result.returncode == 0, result.stderr
    trace = hftrace.Trace.open(tmp_path / "trace.json")
    assert trace.header["errors"] == []
    outermost = [
        span
        for span in trace.spans
        if span.phase == "import"
        and (
            span.parent is None
            or next(each.phase for each in trace.spans if each.id == span.parent) != "import"
        )
    ]
    spent = sum(span.duration_ns for span in outermost)
    assert abs(imports_ns(trace) - spent) <= 0.02 * spent + 5_000_000
    rows = {row.name: row for row in import_rows(trace)}
    assert rows["torch"].importer.startswith("transformers")
    assert rows["torch"].where == "installed"
    assert rows["torch._C"].made_of == "extension"
    assert "torch" in trace.environment["packages"]
    assert "sympy" in trace.environment["packages"]["torch"]["requires"]
    assert "transformers" in package_trees(trace)["outside"].children
    # What the load needs is never among what it does not.
    assert not {"torch", "transformers", "numpy", "sympy", "safetensors", "tokenizers"} & {
        each.package for each in optional_packages(trace)
    }
    size = (tmp_path / "trace.json").stat().st_size
    assert size < 400_000


def test_the_imports_of_a_program(run_cli, tmp_path):
    (tmp_path / "slow_part.py").write_text(f"import time\ntime.sleep({SLEEP})\n")
    (tmp_path / "program.py").write_text("import slow_part\nimport transformers\n")
    result = run_cli("run", "-o", "trace.json", "program.py")
    assert result.returncode == 0, result.stderr
    trace = hftrace.Trace.open(tmp_path / "trace.json")
    rows = {row.name: row for row in trace.imports}
    assert asker(rows["slow_part"]) == "__main__:1"
    assert asker(rows["transformers"]) == "__main__:2"
    shown = run_cli("show", "trace.json", "--view", "imports", "--filter", "slow_*")
    assert "slow_part" in shown.stdout
