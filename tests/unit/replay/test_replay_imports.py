"""The table of imports, as it comes out of a journal."""

from __future__ import annotations

from hftrace.replay.imports import ImportTables
from hftrace.replay.reader import OpenedSpan, Process
from hftrace.schema import lines
from hftrace.schema.lines import Edge, ImportedModule

BASE = 1_000
MS = 1_000_000


def process(*rows, span=4):
    made = Process({"pid": 7, "clock_base_ns": BASE})
    made.spans[4] = OpenedSpan(4, None, "import", "import a", None, 9, BASE, Edge(), {}, end=BASE + 99)
    made.add_line(lines.Imports(span, 9, [field for row in rows for field in row]))
    return made


def row(number, parent, name, start, end, own, package=None, **more):
    first = (name or package).partition(".")[0]
    times = (None, None) if name is None else (BASE + start * MS, BASE + end * MS)
    fields = {"modules": 1, "compiled": 0, "compile_ns": 0, **more}
    return ImportedModule(number, parent, name, first, *times, own * MS, **fields)


def table(made, merged=None, offset=0):
    tables = ImportTables(BASE)
    tables.add(made, merged or {}, offset)
    return tables.tables[0]


def test_times_and_numbers_are_those_of_the_trace():
    made = process(row(11, 12, "a.b", 10, 40, 30), row(12, None, "a", 0, 90, 60))
    rows = list(table(made, offset=100))
    assert [(each.id, each.parent, each.name) for each in rows] == [(1, 2, "a.b"), (2, None, "a")]
    assert [each.span for each in rows] == [104, 104]
    assert [(each.start_ns, each.end_ns) for each in rows] == [(10 * MS, 40 * MS), (0, 90 * MS)]
    assert {(each.pid, each.thread) for each in rows} == {(7, 9)}


def test_an_import_that_became_a_part_of_another():
    made = process(row(1, None, "a", 0, 90, 90), span=8)
    assert table(made).column("span") == [None]
    assert table(made, {8: 4}).column("span") == [4]


def test_what_is_short_is_in_sums_and_no_time_is_lost():
    rows = [
        row(1, None, "a", 0, 1000, 900),
        row(2, 1, "a.b", 10, 60, 48),
        row(3, 2, "b", 20, 22, 1),
        row(4, 3, "b.c", 21, 22, 1),
        row(5, 2, None, 0, 0, 1, package="b", modules=5),
        row(6, 1, None, 0, 0, 49, package="a", modules=40),
    ]
    found = table(process(*rows))
    assert sum(found.column("self_ns")) == 1000 * MS
    assert sum(found.column("modules")) == 49
    named = [(each.id, each.parent, each.name) for each in found if each.name is not None]
    assert named == [(1, None, "a"), (2, 1, "a.b")]
    sums = {(each.package, each.parent): each.modules for each in found if each.name is None}
    # Below the first module of the package that led to them.
    assert sums == {("b", 1): 7, ("a", 1): 40}


def test_rows_that_cannot_be_are_left_out_and_counted():
    made = process(row(1, None, "a", -5, 9, 9), row(2, None, "b", 9, 5, 4), row(3, 99, "c", 1, 9, 8))
    found = table(made)
    assert found.column("name") == ["c"]
    assert found.column("parent") == [None]
    assert made.damage.lines == 2


def test_rows_that_lie_in_themselves():
    made = process(row(1, 2, "a", 0, 900, 450), row(2, 1, "b", 0, 900, 449), row(3, 3, "a.c", 0, 1, 1))
    assert sum(table(made).column("self_ns")) == 900 * MS


def test_where_packages_come_from(tmp_path):
    (tmp_path / "site" / "scipy-1.17.dist-info").mkdir(parents=True)
    (tmp_path / "site" / "scipy-1.17.dist-info" / "METADATA").write_text("Requires-Dist: numpy>=1.26\n\n")
    (tmp_path / "site" / "numpy-2.3.dist-info").mkdir()
    (tmp_path / "site" / "numpy-2.3.dist-info" / "METADATA").write_text("Name: numpy\n\n")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.py").write_text("if is_scipy_available():\n    import scipy\n")
    scipy = row(
        1,
        2,
        "scipy",
        0,
        50,
        50,
        origin=str(tmp_path / "site" / "scipy" / "__init__.py"),
        importer="mine",
        file=str(tmp_path / "own" / "mine.py"),
        line=2,
    )
    mine = row(2, None, "mine", 0, 90, 20, origin=str(tmp_path / "own" / "mine.py"))
    numpy = row(3, 1, "numpy", 0, 10, 10, origin=str(tmp_path / "site" / "numpy" / "core" / "x.so"))
    numpy = numpy._replace(name="numpy.core.x")
    built_in = row(4, 2, "json", 60, 70, 10)
    tables = ImportTables(BASE)
    tables.add(process(scipy, mine, numpy, built_in), {}, 0)
    rows = list(tables.tables[0])
    assert [each.where for each in rows] == ["installed", "own", "installed", "standard"]
    assert [each.guard for each in rows] == ["if is_scipy_available()", None, None, None]
    assert [each.file_bytes for each in rows][1] == (tmp_path / "own" / "mine.py").stat().st_size
    assert tables.environment() == {
        "packages": {
            "numpy": {"distribution": "numpy", "version": "2.3", "requires": []},
            "scipy": {"distribution": "scipy", "version": "1.17", "requires": ["numpy"]},
        }
    }


def test_a_process_that_imported_nothing():
    tables = ImportTables(BASE)
    tables.add(process(), {}, 0)
    assert (tables.tables, tables.environment()) == ([], {})
