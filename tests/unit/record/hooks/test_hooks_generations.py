"""Loader generations as data: rows, the points that belong to them, and how one is recognised."""

from __future__ import annotations

import sys
import types

import pytest

from hftrace.analysis.loader import BY_LETTER
from hftrace.record.hooks import generations, lookup
from hftrace.record.hooks.generations import GENERATIONS, UNRECOGNISED, Loader, installed_loader, loader_facts
from hftrace.record.hooks.lookup import STAND_IN, find
from hftrace.record.hooks.points import HookPoint
from hftrace.record.hooks.tables import POINTS, TABLES

LETTERS = [row.letter for row in GENERATIONS]
MODELING, LOADING = generations.MODELING, generations.LOADING


@pytest.fixture
def modules(monkeypatch):
    """Puts modules with the functions that the targets name where transformers' own would be."""
    for name in (MODELING, LOADING):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def make(*targets, **functions):
        monkeypatch.setitem(sys.modules, MODELING, types.ModuleType(MODELING))
        for target in targets:
            name, _, function = target.partition(":")
            module = sys.modules.get(name) or types.ModuleType(name)
            monkeypatch.setitem(sys.modules, name, module)
            module.__dict__[function] = lambda: None
        for name, function in functions.items():
            function.__module__ = LOADING
            sys.modules[LOADING].__dict__[name] = function

    return make


def test_tables_name_only_generations_that_exist():
    assert len({point.target for point in POINTS}) == len(POINTS) > 90
    for point in POINTS:
        assert {point.since, point.until} <= {"", *LETTERS}, point
        if point.since and point.until:
            assert LETTERS.index(point.since) <= LETTERS.index(point.until), point


def test_every_table_is_registered():
    from importlib import resources

    files = resources.files("hftrace.record.hooks.tables").iterdir()
    assert {file.name for file in files if file.name.endswith(".py")} == {"__init__.py"} | {
        f"{table}.py" for table in TABLES
    }


def test_rows_are_recognised_by_points_of_their_own():
    points = {point.target: point for point in POINTS}
    for row in GENERATIONS:
        assert row.recognised_by
        for target in row.recognised_by:
            assert generations._holds_for(points[target], row), target
    assert len(set(LETTERS)) == len(LETTERS)


def test_points_hold_from_one_generation_to_another():
    def held(**span):
        point = HookPoint("x:y", "weights", **span)
        return "".join(row.letter for row in GENERATIONS if generations._holds_for(point, row))

    assert held() == "ABCD"
    assert held(since="B") == "BCD"
    assert held(until="C") == "ABC"
    assert held(since="B", until="B") == "B"


def test_a_new_generation_is_one_row(monkeypatch, modules):
    newer = GENERATIONS[-1]._replace(
        letter="E", versions="6.x", recognised_by=(f"{MODELING}:load_state_dict",)
    )
    monkeypatch.setattr(generations, "GENERATIONS", (*GENERATIONS, newer))
    modules(*newer.recognised_by)
    assert installed_loader() == Loader(newer, True)
    assert loader_facts()["generation"] == "E"
    assert installed_loader().expects(HookPoint("x:y", "weights", since="C"))
    assert not installed_loader().expects(HookPoint("x:y", "weights", until="D"))


@pytest.mark.parametrize("row", GENERATIONS, ids=LETTERS)
def test_a_row_fits_where_all_of_its_names_are_there(modules, row):
    modules(*row.recognised_by)
    assert installed_loader() == Loader(row, True)
    facts = loader_facts()
    assert facts["generation"] == facts["loader"]["traced_as"] == row.letter


@pytest.mark.parametrize("row", GENERATIONS, ids=LETTERS)
def test_a_loader_that_lacks_one_name_is_unrecognised(modules, row):
    modules(*row.recognised_by[1:])
    assert installed_loader() == Loader(GENERATIONS[-1], False)
    facts = loader_facts()
    assert facts["generation"] == UNRECOGNISED
    assert facts["loader"]["traced_as"] == "D"
    assert facts["loader"]["default_dtype"] == "auto"


def test_a_name_that_is_no_function_counts_as_there(modules):
    modules(*GENERATIONS[-1].recognised_by)
    sys.modules[LOADING]._materialize_copy = object()
    assert installed_loader().recognised


def test_without_transformers_there_is_no_loader(monkeypatch):
    monkeypatch.delitem(sys.modules, MODELING, raising=False)
    assert installed_loader() is None
    assert loader_facts() == {"generation": None}


def test_renamed_functions_are_one_edit_in_a_table(monkeypatch, modules):
    """A release that renames what its generation is recognised by: the points name it, and no row changes."""
    known = GENERATIONS[-1].recognised_by
    new = {known[0]: "load_everything", known[1]: "_read"}
    points = tuple(
        HookPoint(point.target, point.phase, point.since, other_names=(new[point.target],))
        if point.target in new
        else point
        for point in POINTS
    )
    monkeypatch.setattr(generations, "POINTS", points)
    modules(known[2], f"{LOADING}:load_everything", f"{LOADING}:_read")
    assert installed_loader() == Loader(GENERATIONS[-1], True)
    (point,) = (point for point in points if point.target == known[0])
    assert find(point).target == f"{LOADING}:load_everything"


def test_the_facts_of_old_traces_are_those_of_the_rows():
    assert {
        row.letter: (row.default_dtype, row.dtype_keyword, row.always_meta, row.collects_after_shards)
        for row in GENERATIONS
    } == {letter: tuple(facts) for letter, facts in BY_LETTER.items()}


READ = next(point for point in POINTS if point.target == f"{LOADING}:_materialize_copy")


def read_slowly(tensor, device=None, dtype=None):
    return tensor


def test_a_function_with_the_same_parameters_stands_in(modules):
    modules(f"{LOADING}:other", read_slowly=read_slowly)
    assert find(READ) == (read_slowly, f"{LOADING}:read_slowly", STAND_IN)
    assert not find(READ).present


def test_a_point_by_its_own_name_needs_no_stand_in(modules):
    modules(READ.target, read_slowly=read_slowly)
    assert find(READ).target == READ.target
    assert find(READ).state == "found"


def test_of_two_functions_with_the_same_parameters_none_stands_in(modules):
    modules(f"{LOADING}:other", read_slowly=read_slowly, also=lambda tensor, device, dtype: tensor)
    assert find(READ) == (None, READ.target, "absent")


def test_a_function_of_another_module_does_not_stand_in(modules):
    modules(f"{LOADING}:other", read_slowly=read_slowly)
    read_slowly.__module__ = "elsewhere"
    assert find(READ) == (None, READ.target, "absent")


def test_a_hook_point_does_not_stand_in_for_another(modules):
    modules(f"{LOADING}:other", set_param_for_module=lambda tensor, device, dtype: tensor)
    assert find(READ) == (None, READ.target, "absent")


def test_a_method_stands_in_for_a_method_of_its_class(modules):
    modules(f"{LOADING}:other")
    point = next(point for point in POINTS if point.target == f"{LOADING}:WeightRenaming.convert")

    class WeightRenaming:
        def rename(self, layer_name, model, config, more=None):
            pass

    WeightRenaming.rename.__module__ = LOADING
    sys.modules[LOADING].WeightRenaming = WeightRenaming
    assert find(point) == (WeightRenaming.rename, f"{LOADING}:WeightRenaming.rename", STAND_IN)


def test_modules_that_an_imported_package_lacks():
    assert lookup.module_is_absent("hftrace.record.hooks.tables.nothing")
    assert not lookup.module_is_absent("hftrace.record.hooks.tables.hub")
    assert not lookup.module_is_absent("no_such_package.module")
    assert not lookup.module_is_absent("json.tool")
