"""The view of imports, of hand-made traces."""

from __future__ import annotations

import json

from handmade import Builder, hostile
from handmade_imports import SCIPY, session
from hftrace.analysis.time.loads import pick_load
from hftrace.render.views import load
from hftrace.render.views.options import ViewOptions
from hftrace.schema import document
from hftrace.schema.trace import Trace


def drawn(trace, **options):
    blocks = load("imports").draw(trace, ViewOptions(**options))
    return "\n".join(block.text(80) for block in blocks)


def test_it_says_who_asked_what_nothing_needed_and_how_to_do_without():
    text = drawn(session().trace())
    assert "sklearn  transformers.generation:29" in text
    assert "Only because they are installed" in text
    assert "sys.modules.update(sklearn=None)" in text
    assert "all Python source came from bytecode" in text
    assert "4.10 kB came from storage" in text
    assert all(len(line) <= 80 for line in text.split("\n"))


def test_what_is_small_is_left_out_and_comes_with_limit_0():
    made = session()
    made.imported(None, 1, 0, 3, package="tiny", where="installed")
    assert "tiny" not in drawn(made.trace())
    assert "--limit 0 shows it" in drawn(made.trace())
    assert "tiny" in drawn(made.trace(), limit=0)
    assert "--limit 0 shows it" not in drawn(made.trace(), limit=0)


def test_modules_by_name():
    text = drawn(session().trace(), matches=lambda name: name.startswith("scipy"))
    assert "scipy.stats" in text
    assert "sympy" not in text
    assert "Only because" not in text
    assert "scipy.stats" not in drawn(session().trace(), matches=lambda name: False)


def test_bytecode_that_was_kept_and_that_was_not():
    made = session()
    facts = {"compiled": 9, "compile_ns": 50_000_000, "unwritten": 3, "unwritten_ns": 20_000_000}
    made.span(None, "import", "import a", 1000, 1100, attributes={"bytecode": facts})
    text = drawn(made.trace())
    assert "6 modules had no bytecode yet: compiling took 30 ms" in text
    assert "3 modules had no bytecode, and left none" in text


def test_a_failed_import_is_marked():
    made = session()
    made.imported("colorama", 1, 0, 200, status="error")
    assert "✗ colorama" in drawn(made.trace())


def test_traces_without_the_table():
    assert "nothing was imported" in drawn(Builder().trace())
    made = Builder()
    made.span(None, "import", "import torch", 0, 10)
    assert "record it once more" in drawn(made.trace())


def test_one_load_has_its_own_imports():
    made = Builder()
    first = made.span(None, "load", "first", 0, 1000)
    made.span(None, "load", "second", 1000, 2000)
    inside = made.span(first, "import", "import transformers", 0, 500)
    made.imported("transformers", None, 0, 500, span=inside, importer="__main__")
    before = made.span(None, "import", "import torch", 0, 1)
    made.imported("torch", None, 0, 1, span=before, importer="__main__")
    trace = made.trace()
    one = pick_load(trace, 1)
    assert "transformers" in drawn(one)
    assert "torch" not in drawn(one)
    assert "50 % of the load" in drawn(one)
    assert "imported in this load alone" in drawn(one)
    facts = load("imports").facts(one, ViewOptions())
    assert [row["name"] for row in facts["rows"]] == ["transformers"]
    assert facts["optional"] is None
    # A load without any does not speak for the session.
    assert "nothing was imported in this load: without --load" in drawn(pick_load(trace, 2))


def test_json_has_all_of_it():
    made = session()
    made.imported("scipy.optimize", 4, 900, 1000, guard=SCIPY, importer="transformers.generation")
    facts = json.loads(json.dumps(load("imports").facts(made.trace(), ViewOptions())))
    assert facts["imports_ns"] == sum(facts_of["self_ns"] for facts_of in facts["packages"])
    assert {each["package"]: each["dependents"] for each in facts["optional"]} == {
        "sklearn": [],
        "scipy": ["sklearn"],
    }
    rows = {row["name"]: row for row in facts["rows"]}
    assert rows["scipy.stats"]["chain"] == ["sklearn.utils:16", "transformers.generation:29", "__main__:3"]
    assert None not in rows


def test_strange_words_of_a_file():
    made = session()
    made.imported("bad\x1b[31m\n", 1, 0, 500, importer="also\x1b[0m", guard="\x07" * 5, made_of="x" * 99)
    made.environment["packages"]["bad"] = {"distribution": "\x1b", "requires": ["a"]}
    text = drawn(made.trace())
    assert "\x1b" not in text
    assert "\x07" not in text
    drawn(hostile())


def test_a_file_holds_what_was_written():
    content = document.from_bytes(document.to_bytes(session().trace()), "t")
    again = Trace.of_content(content)
    assert drawn(again) == drawn(session().trace())
