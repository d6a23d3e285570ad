"""README and docs: they show what hftrace prints, their links lead somewhere, and they are complete."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hftrace
from hftrace.analysis.summary import summary
from hftrace.cli.main import COMMANDS
from hftrace.export import FORMATS
from hftrace.record.hooks.generations import GENERATIONS
from hftrace.render.compare import VIEWS as COMPARED
from hftrace.render.views import VIEWS

ROOT = Path(__file__).resolve().parents[3]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")),
    *sorted(DOCS.glob("*.md")),
    *sorted((ROOT / "examples").glob("*.md")),
    *sorted((ROOT / "news").glob("README.md")),
]
LINK = re.compile(r"\[[^\]]+\]\((?!https?:|mailto:)([^)#\s]*)(#[^)\s]*)?\)")
RULE = re.compile(r'"([A-Z]\d\d)"')


@pytest.fixture(scope="module")
def update_docs():
    spec = importlib.util.spec_from_file_location("update_docs", ROOT / "scripts" / "update_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_show_what_is_printed():
    script = ROOT / "scripts" / "update_docs.py"
    done = subprocess.run(
        [sys.executable, script, "--check"], capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr


def test_readme_is_short_and_shows_a_real_screen():
    text = README.read_text(encoding="utf-8")
    assert text.count("\n") < 150
    assert "$ hftrace show traces/examples/" in text
    assert "python3 -m venv .venv && .venv/bin/pip install" in text
    assert "$ bash tests/run.sh\n" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    missing = [
        target
        for target, _ in LINK.findall(page.read_text(encoding="utf-8"))
        if target and not (page.parent / target).exists()
    ]
    assert missing == []


def headings(page):
    """Returns the anchors of a page's headings, as code hosts and MyST make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_to_sections_find_them(page):
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        place = page.parent / target if target else page
        # What stands in the site's page of a file of the root is that file.
        if anchor and place.suffix == ".md":
            assert anchor[1:] in headings(place), (target, anchor)


def test_every_rule_has_a_row():
    table = (DOCS / "findings.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| ([A-Z]\d\d) \|", table, re.M))
    source = ROOT / "src" / "hftrace" / "analysis" / "findings"
    rules = {rule for path in source.rglob("*.py") for rule in RULE.findall(path.read_text("utf-8"))}
    assert len(rules) >= 15
    assert rules - rows == set()


def test_every_name_of_a_finding_is_in_its_row():
    table = (DOCS / "findings.md").read_text(encoding="utf-8")
    source = ROOT / "src" / "hftrace" / "analysis" / "findings"
    for path in source.rglob("*.py"):
        calls = (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call))
        for call in calls:
            words = [getattr(part, "value", None) for part in call.args[:2]]
            if RULE.fullmatch(f'"{words[0] if words else ""}"') and isinstance(words[-1], str):
                assert re.search(rf"^\| {words[0]} \|[^|]*`{words[1]}`", table, re.M), words


def test_every_key_of_the_summary_is_described():
    trace = hftrace.Trace.open(ROOT / "traces" / "examples" / "llama-D-5.23.0.json")
    text = (DOCS / "json.md").read_text(encoding="utf-8")
    assert [key for key in summary(trace) if f"`{key}`" not in text] == []


def test_every_public_name_is_in_the_reference():
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    assert [name for name in hftrace.__all__ if f":: hftrace.{name}\n" not in text] == []


def test_every_page_is_in_the_contents():
    index = (DOCS / "index.md").read_text(encoding="utf-8").split()
    assert {page.stem for page in DOCS.glob("*.md")} - {"index"} <= set(index)


def test_every_command_is_in_the_reference():
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f"\n## hftrace {name}\n" in text
        assert f"\n$ hftrace {name} --help\n" in text


def test_every_loader_generation_has_a_section_and_a_row():
    text = (DOCS / "generations.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([A-Z]) \| (.*) \|$", text, re.M))
    assert list(rows) == [each.letter for each in GENERATIONS]
    for each in GENERATIONS:
        assert f"\n## {each.letter}: {each.versions}\n" in text
        versions, recognised, dtype, meta = rows[each.letter].split(" | ")
        assert versions == each.versions
        assert recognised == ", ".join(f"`{point.partition(':')[2]}`" for point in each.recognised_by)
        assert dtype == each.default_dtype.replace("auto", "as stored")
        assert (meta == "always") == each.always_meta


def rows_of(section):
    """Returns the cells of the rows of a table of docs/views.md, by their first."""
    text = (
        (DOCS / "views.md").read_text(encoding="utf-8").partition(f"## {section}\n")[2].partition("\n## ")[0]
    )
    found = (
        [cell.strip() for cell in line[1:-1].split("|")]
        for line in text.splitlines()
        if line.startswith("| `")
    )
    return {cells[0].strip("`"): cells[1:] for cells in found}


def test_every_view_and_format_has_a_row():
    views = rows_of("Views of a trace")
    assert set(views) == set(VIEWS)
    for name, cells in views.items():
        assert cells[1].strip() == ", ".join(f"`--{option}`" for option in VIEWS[name].takes), name
        assert ("on the first screen" in cells[0]) == VIEWS[name].on_screen, name
    assert set(rows_of("Views of a comparison")) == set(COMPARED)
    formats = rows_of("Files for other programs")
    assert set(formats) == set(FORMATS)
    for name, cells in formats.items():
        assert cells[0] == ", ".join(f"`{suffix}`" for suffix in FORMATS[name].suffixes), name


def test_promises_name_tests_that_are_there():
    promised = (DOCS / "how-it-works.md").read_text(encoding="utf-8").partition("## What is promised")[2]
    named = re.findall(r"`([a-z]+/[a-z_./]+)`", promised)
    assert len(named) >= 8
    assert [path for path in named if not (ROOT / "tests" / path).exists()] == []


@pytest.mark.process
def test_a_page_that_is_wrong_is_seen(update_docs):
    command = "$ hftrace show traces/examples/llama-D-5.23.0.json --view summary"
    right = update_docs.updated(f"```text\n{command}\n```\n")
    assert "LlamaForCausalLM" in right
    assert update_docs.updated(right) == right
    assert update_docs.updated(right.replace("701 MB", "702 MB")) == right
    with pytest.raises(update_docs.UpdateError, match="prints no section"):
        update_docs.updated(f"```text\n{command}\nNo such section\n```\n")


def test_every_column_has_its_unit(update_docs):
    """By the rows themselves: what a program reads from ``trace.spans[0]`` is on the page, with its unit."""
    page = (DOCS / "trace-format.md").read_text(encoding="utf-8")
    trace = hftrace.Trace.open(ROOT / "traces" / "examples" / "llama-D-5.23.0.json")
    for table in update_docs.ROWS:
        body = re.search(rf"columns {table}:begin -->(.*?)<!--", page, re.S)[1]
        types = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", body, re.M))
        for field in dataclasses.fields(getattr(trace, table).row_type):
            unit = "ns" if field.name.endswith("_ns") else "bytes" if field.name.endswith("bytes") else ""
            assert types[field.name].endswith(f", {unit}" if unit else ""), field.name


def test_a_column_needs_a_meaning(update_docs):
    page = (DOCS / "trace-format.md").read_text(encoding="utf-8")
    assert update_docs.updated(page) == page
    line = next(line for line in page.splitlines() if line.startswith("| `end_ns` |"))
    with pytest.raises(update_docs.UpdateError, match=r"spans\.end_ns has no meaning"):
        update_docs.updated(page.replace(line + "\n", "", 1))
