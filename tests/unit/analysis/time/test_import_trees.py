"""Who imported what, and what nothing needed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from handmade import Builder
from handmade_imports import SCIPY, SKLEARN, distribution, session
from hftrace.analysis.time.import_switches import switch_words, variable_for
from hftrace.analysis.time.imports import (
    MAX_ABOVE,
    STANDARD,
    above,
    asker,
    bytecode,
    chain,
    collections_ns,
    import_rows,
    imports_ns,
    module_count,
    package_sums,
    package_trees,
    parents,
    storage_read,
)
from hftrace.analysis.time.optional_imports import optional_packages


def tree(node):
    return {child.package: (child.total_ns // 10**6, tree(child)) for child in node.ranked()}


def test_packages_stand_where_they_were_asked_for():
    trace = session().trace()
    trees = package_trees(trace)
    assert set(trees) == {"outside"}
    sklearn = {"scipy": (400, {"numpy": (50, {})}), "joblib": (60, {}), STANDARD: (40, {})}
    below = {"sklearn": (600, sklearn), "torch": (300, {"sympy": (100, {})})}
    assert tree(trees["outside"]) == {"transformers": (300 + 600 + 300, below)}
    assert trees["outside"].total_ns == imports_ns(trace) == sum(row.self_ns for row in trace.imports)
    assert module_count(trace) == sum(trace.imports.column("modules"))
    sums = {each.package: each for each in package_sums(trace)}
    assert (sums["scipy"].self_ns, sums["scipy"].modules) == (350_000_000, 61)


def test_what_is_imported_in_a_load_is_told_apart():
    made = session()
    load = made.span(None, "load", "AutoModel", 1000, 1500)
    span = made.span(load, "import", "import transformers.models.llama", 1100, 1200)
    made.imported("transformers.models.llama", None, 1100, 1200, span=span)
    trees = package_trees(made.trace())
    assert tree(trees["loads"]) == {"transformers": (100, {})}


def test_who_asked():
    trace = session().trace()
    rows = {row.name: row for row in import_rows(trace)}
    assert asker(rows["sklearn.metrics"]) == "transformers.generation:29"
    assert [row.name for row in above(trace, rows["scipy.stats"])] == [
        "sklearn.metrics",
        "transformers.generation",
        "transformers",
    ]
    assert [asker(row) for row in chain(trace, rows["scipy.stats"])] == [
        "sklearn.utils:16",
        "transformers.generation:29",
        "__main__:3",
    ]


def test_only_because_they_are_installed():
    (found,) = optional_packages(session().trace())
    assert (found.package, found.guarded.guard) == ("sklearn", SKLEARN)
    # numpy is needed anyway, and of Python's own modules nobody knows who else would ask for them.
    assert found.spared_ns == (100 + 250 + 100 + 60) * 10**6
    assert found.brings == ("scipy", "joblib")
    assert (found.names, found.distributions) == (["sklearn"], ("scikit-learn",))
    assert switch_words([found]) == (
        "put import sys; sys.modules.update(sklearn=None) before the first import of transformers, "
        "or uninstall scikit-learn"
    )


def test_what_requires_a_package_goes_with_it():
    made = session()
    made.imported("scipy.optimize", 4, 900, 1000, guard=SCIPY, importer="transformers.generation")
    found = {each.package: each for each in optional_packages(made.trace())}
    assert set(found) == {"scipy", "sklearn"}
    assert found["scipy"].names == ["scipy", "sklearn"]
    assert found["scipy"].spared_ns == 100 * 10**6
    assert "uninstall scikit-learn scipy" in switch_words([found["scipy"]])


@pytest.mark.parametrize(
    "change",
    [
        {"guard": None},
        {"importer": "__main__", "guard": None, "parent": None},
        {"where": "own"},
    ],
)
def test_without_proof_there_is_none(change):
    made = session()
    at = next(at for at, row in enumerate(made.imports) if row.name == "sklearn.metrics")
    made.imports[at] = replace(made.imports[at], **change)
    assert "sklearn" not in {each.package for each in optional_packages(made.trace())}


def test_what_the_program_imports_it_needs():
    made = session()
    made.imported("sklearn", None, 1000, 1100, importer="__main__", importer_line=9)
    assert optional_packages(made.trace()) == []


def test_what_was_asked_for_is_needed():
    made = session()
    made.environment["packages"]["accelerate"] = distribution("accelerate")
    made.imported(
        "accelerate", 4, 900, 1000, importer="transformers.generation", guard="if is_accelerate_available()"
    )
    assert {each.package for each in optional_packages(made.trace())} == {"sklearn", "accelerate"}
    made.request["keywords"] = {"device_map": "auto"}
    assert {each.package for each in optional_packages(made.trace())} == {"sklearn"}


def test_a_module_that_is_only_imported_under_a_condition():
    made = session()
    made.environment["packages"]["bitsandbytes"] = distribution("bitsandbytes")
    outer = made.imported(
        "transformers.integrations.bitsandbytes",
        1,
        900,
        1000,
        10,
        importer="transformers.quantizers",
        guard="if is_bitsandbytes_available()",
        importer_line=5,
    )
    made.imported("bitsandbytes", outer, 900, 990, importer="transformers.integrations.bitsandbytes")
    found = {each.package: each for each in optional_packages(made.trace())}
    assert asker(found["bitsandbytes"].guarded) == "transformers.quantizers:5"


def test_variables_of_libraries_and_their_versions():
    versions = {"transformers": "4.57.6"}
    assert variable_for("jax", "transformers", versions).name == "USE_FLAX"
    assert variable_for("tensorflow", "transformers", versions).value == "0"
    assert variable_for("tensorflow", "transformers", {"transformers": "5.24.0"}) is None
    assert variable_for("tensorflow", "transformers", {}) is None
    assert variable_for("tensorflow", "keras", versions) is None
    assert variable_for("torch_xla", "accelerate", {}).name == "USE_TORCH_XLA"
    assert variable_for("sklearn", "transformers", versions) is None


def test_a_package_with_a_variable_is_told_apart():
    made = session()
    made.environment["packages"].update(
        accelerate=distribution("accelerate"), torch_xla=distribution("torch-xla")
    )
    outer = made.imported(
        "accelerate",
        4,
        900,
        1000,
        20,
        importer="transformers.generation",
        guard="if is_accelerate_available()",
    )
    made.imported("torch_xla", outer, 900, 980, importer="accelerate.utils", guard="try, except ImportError")
    found = {each.package: each for each in optional_packages(made.trace())}
    assert (found["accelerate"].spared_ns, found["torch_xla"].spared_ns) == (20_000_000, 80_000_000)
    words = switch_words([found["torch_xla"], found["sklearn"]])
    assert words.startswith("set USE_TORCH_XLA=0; put import sys; sys.modules.update(sklearn=None) ")


def test_bytecode_and_storage():
    made = session()
    assert bytecode(made.trace()) is None
    assert storage_read(made.trace()) == (4096, 1_000_000_000)
    facts = {"compiled": 9, "compile_ns": 50, "unwritten": 3, "unwritten_ns": 20}
    made.span(None, "import", "import a", 1000, 1100, attributes={"bytecode": facts})
    more = {"compiled": 1, "compile_ns": 90, "unwritten": 1, "unwritten_ns": 90, "folder": "/a"}
    made.span(None, "import", "import b", 1100, 1200, attributes={"bytecode": {**more, "switched_off": True}})
    assert bytecode(made.trace()) == (10, 140, 4, 110, "/a", True, None)
    assert storage_read(made.trace()) == (4096, 1_000_000_000)  # of the others it is not known


def test_collections_are_told_apart():
    made = session()
    made.imported("torch._C", 2, 0, 50, 20, collect_ns=30_000_000)
    trace = made.trace()
    assert collections_ns(trace) == 30_000_000
    assert imports_ns(trace) == sum(trace.imports.column("self_ns")) + 30_000_000


def test_a_trace_without_any():
    trace = Builder().trace()
    assert package_trees(trace) == {}
    assert optional_packages(trace) == []
    assert (imports_ns(trace), module_count(trace), storage_read(trace), bytecode(trace)) == (
        0,
        0,
        None,
        None,
    )


def test_parents_that_make_no_tree():
    made = Builder()
    made.imported("a", 2, 0, 10)
    made.imported("b", 1, 0, 10)
    made.imported("c", 3, 0, 10)
    made.imported("d", 99, 0, 10)
    made.imported("e", 1, 0, 10)
    trace = made.trace()
    for row in import_rows(trace):
        assert len(above(trace, row)) < 3
    assert 3 not in parents(trace)
    assert 4 not in parents(trace)
    assert package_trees(trace)["outside"].total_ns == 50_000_000


def test_imports_that_lie_too_deep():
    made = Builder()
    for number in range(3 * MAX_ABOVE):
        made.imported(f"p{number}.a", number or None, 0, 10)
    for number in range(3 * MAX_ABOVE):
        made.imported(f"q{number}.a", 3 * MAX_ABOVE + number + 2, 0, 10)
    trace = made.trace()
    assert max(len(above(trace, row)) for row in import_rows(trace)) <= MAX_ABOVE
    roots = package_trees(trace)
    assert roots["outside"].total_ns == 6 * MAX_ABOVE * 10_000_000
