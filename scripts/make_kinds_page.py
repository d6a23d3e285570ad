"""Writes docs/kinds.md and its screens: what kinds of load are held against the truth, with which versions.

    python tests/environments/run.py --all --sparse --reports REPORTS
    python scripts/make_kinds_page.py REPORTS

REPORTS is a directory of pytest's reports, VERSION.xml each, and VERSION-again.xml of what was
tried twice; ``nox -s kinds`` makes both. Nothing in the table is written by hand: what a kind is
stands in the docstring of its module, and whether it passed is in the reports. What was found of a
kind with a version stays in tests/data/kinds.json until a report has it anew, so that a few kinds can
be run alone (``-- tests/integration/test_kinds.py -k``); what no report ever had is not claimed. The
screens are those of loads made meanwhile with the newest version, by the same code as the tests.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests" / "integration"
PAGE = ROOT / "docs" / "kinds.md"
SCREENS_PAGE = ROOT / "docs" / "kinds-screens.md"
RESULTS = ROOT / "tests" / "data" / "kinds.json"
KIND = re.compile(r"test_every_row_is_true\[(?P<kind>\w+)\]")
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
NOT_LOADED = re.compile(r"transformers \S+ cannot load this")
NOT_IMPORTED = re.compile(r"(\S+) cannot be imported beside transformers")
WIDTH = 80

sys.path[:0] = [str(ROOT / "tests" / "environments"), str(TESTS)]  # the latter for what kinds share
from make import base_python  # noqa: E402
from versions import ALL, BASE  # noqa: E402

Results = dict[str, dict[str, tuple[str, str]]]
"""By kind and version: how the test ended, and why it was skipped."""


def results_of(reports: Path) -> tuple[Results, Results]:
    """Returns the results of the kinds of load, and those of the other integration tests by module."""
    kinds: Results = defaultdict(dict)
    others: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for version in ALL:
        # The second try comes last, and counts.
        for path in (reports / f"{version}.xml", reports / f"{version}-again.xml"):
            if not path.is_file():
                continue
            for case in ElementTree.parse(path).getroot().iter("testcase"):
                ended, why = _ending(case)
                module = str(case.get("classname")).rpartition(".")[2]
                found = KIND.fullmatch(str(case.get("name")))
                if module == "test_kinds" and found is not None:
                    kinds[found["kind"]][version] = ended, _reason(why) if ended == SKIPPED else ""
                elif (TESTS / f"{module}.py").is_file() and "again" not in path.stem:
                    others[module][version].append(ended)
    modules: Results = {}
    for module, by_version in others.items():
        modules[module] = {
            version: (FAILED if FAILED in endings else PASSED if PASSED in endings else SKIPPED, "")
            for version, endings in by_version.items()
        }
    return kinds, modules


def kept_with(kinds: Results, modules: Results) -> tuple[Results, Results]:
    """Returns what was found before with what is new in the place of it, and keeps both."""
    kept: dict[str, Results] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for name, new in (("kinds", kinds), ("modules", modules)):
        known = kept.setdefault(name, {})
        for row in known.keys() | new.keys():
            known[row] = known.get(row, {}) | new.get(row, {})
    names = {path.stem for path in (TESTS / "kinds").glob("*.py")}, {path.stem for path in TESTS.glob("*.py")}
    kept["kinds"] = {row: found for row, found in kept["kinds"].items() if found and row in names[0]}
    kept["modules"] = {row: found for row, found in kept["modules"].items() if found and row in names[1]}
    RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return kept["kinds"], kept["modules"]


def _ending(case: ElementTree.Element) -> tuple[str, str]:
    if case.find("failure") is not None or case.find("error") is not None:
        return FAILED, ""
    skipped = case.find("skipped")
    return (PASSED, "") if skipped is None else (SKIPPED, str(skipped.get("message")))


def versions_words(results: dict[str, tuple[str, str]]) -> tuple[str, str]:
    """Returns with which versions a test passed, and with which it did not, and why."""
    tried = [version for version in ALL if version in results]
    passed = [version for version in tried if results[version][0] == PASSED]
    words = []
    for ended, text in ((FAILED, FAILED), (SKIPPED, "")):
        by_reason: dict[str, list[str]] = defaultdict(list)
        for version in tried:
            if results[version][0] == ended:
                by_reason[text or results[version][1] or "not tried"].append(version)
        words += [f"{reason}: {ranges(versions, tried)}" for reason, versions in by_reason.items()]
    return (ranges(passed, tried) if passed else "none"), "; ".join(words)


def _reason(message: str) -> str:
    if NOT_LOADED.search(message):
        return "does not apply"
    if (found := NOT_IMPORTED.search(message)) is not None:
        return f"no {found[1]} beside it"
    return "not tried"


def ranges(versions: list[str], among: list[str]) -> str:
    """Returns versions as ranges of those that were tried."""
    if versions == among:
        return f"all {len(among)}" if len(among) > 1 else among[0]
    runs: list[list[str]] = []
    for version in versions:
        if runs and among.index(version) == among.index(runs[-1][-1]) + 1:
            runs[-1].append(version)
        else:
            runs.append([version])
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def first_sentence(path: Path) -> str:
    """Returns what the docstring of a module says first, on one line."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.partition("\n\n")[0].split()).replace("|", "\\|").replace("``", "`")


def screens_of(kinds: list[str], environments: Path) -> dict[str, str]:
    """Loads each kind with the newest transformers, and returns the head of what ``show`` prints of it."""
    tests = _tests_of_kinds(environments)
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for kind in kinds:
        groups[tuple(getattr(tests._facts(kind), "NEEDS", ()))].append(kind)
    python = str(base_python(environments))
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        for needs, alike in groups.items():
            folders = {kind: Path(temporary, kind, "model") for kind in alike}
            for folder in folders.values():
                folder.mkdir(parents=True)
            paths = os.pathsep.join(map(str, tests._places(tests._facts(alike[0]))))
            imported = ",".join(tests.IMPORTED_AS[each] for each in needs if each in tests.IMPORTED_AS)
            pairs = [part for kind, folder in folders.items() for part in (kind, str(folder))]
            environment = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
            subprocess.run(
                [python, str(TESTS / "kind_runner.py"), imported, *pairs],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=True,
            )
            for kind, folder in folders.items():
                trace = folder / "trace.json"
                said = trace.read_text(encoding="utf-8").replace(str(folder.parent), f"checkpoints/{kind}")
                said = said.replace(str(environments.resolve()), ".venvs")
                trace.write_text(said, encoding="utf-8")
                shown = subprocess.run(
                    [python, "-m", "hftrace", "show", str(trace), "--width", str(WIDTH)],
                    capture_output=True,
                    text=True,
                    encoding="utf-8",
                    check=True,
                ).stdout
                head = shown.partition("\n\n")[0].splitlines()
                found[kind] = "\n".join(line.rstrip() for line in head)
    return found


def _tests_of_kinds(environments: Path) -> ModuleType:
    """Returns the module of the tests, which knows what a kind needs."""
    os.environ["HFTRACE_ENVIRONMENTS"] = str(environments.resolve())
    spec = importlib.util.spec_from_file_location("test_kinds", TESTS / "test_kinds.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("reports", type=Path, help="directory of VERSION.xml")
    parser.add_argument("--directory", type=Path, default=ROOT / ".venvs", help="where the environments are")
    options = parser.parse_args()
    kinds, modules = results_of(options.reports)
    if not kinds:
        sys.exit(f"no report of tests/integration/test_kinds.py in {options.reports}")
    kinds, modules = kept_with(kinds, modules)
    tried = [version for version in ALL if any(version in results for results in kinds.values())]
    newest = [kind for kind in sorted(kinds) if kinds[kind].get(BASE, ("", ""))[0] == PASSED]
    screens = screens_of(newest, options.directory)
    lines = [HEAD.format(versions=", ".join(tried), count=len(tried)), *COLUMNS]
    for kind in sorted(kinds):
        passed, rest = versions_words(kinds[kind])
        name = f"[`{kind}`]({SCREENS_PAGE.name}#{kind.replace('_', '-')})" if kind in screens else f"`{kind}`"
        lines.append(f"| {name} | {first_sentence(TESTS / 'kinds' / f'{kind}.py')} | {passed} | {rest} |")
    before = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    lines += ["", OTHERS, *COLUMNS]
    if not modules:
        # Reports of the kinds alone say nothing of the rest: what was found of it stands as it is.
        lines += before.partition(OTHERS)[2].strip().splitlines()[len(COLUMNS) :]
    for module in sorted(modules):
        passed, rest = versions_words(modules[module])
        rest = rest.replace(f"{FAILED}:", "not all of it:")
        if passed != "none" or "not all" in rest:
            lines.append(f"| `{module}` | {first_sentence(TESTS / f'{module}.py')} | {passed} | {rest} |")
    shown = [SCREENS.format(version=BASE)]
    for kind, screen in screens.items():
        words = first_sentence(TESTS / "kinds" / f"{kind}.py")
        shown += ["", f"## {kind.replace('_', '-')}", "", words, "", "```text", screen, "```"]
    SCREENS_PAGE.write_text("\n".join(shown) + "\n", encoding="utf-8")
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    counts = f"{len(kinds)} kinds, {len(tried)} versions, {len(screens)} screens"
    sys.stdout.write(f"{PAGE.name}: {counts}\n")
    return 0


COLUMNS = ("| kind | what is special about it | checked with | not with |", "| --- | --- | --- | --- |")

HEAD = """\
# Kinds of load, by version

<!-- Made by `nox -s kinds`: what a kind is stands in the docstrings of tests/integration/kinds. -->

Each kind was made with random weights (one has real ones) and loaded under hftrace with each of {count}
versions of transformers ({versions}). Every row of the ledger was held against the finished model and
the bytes of the files. *checked with* names the versions with which all of it was true; where
transformers itself cannot load a kind, that is said. A kind that is not here may load as well: nobody
has checked what hftrace says of it.
"""
OTHERS = """\
## What else is checked

Programs, pipelines, distributed loads and the rest, each test against a truth of its own (the finished
model, a file's header, the kernel, a server's log). A module is checked with a version where at least
one of its tests ran and none failed.
"""
SCREENS = """\
# Screens of each kind of load

<!-- Made by `nox -s kinds`. -->

The head of what `hftrace show` prints of each kind, loaded on a CPU with transformers {version}.
"""


if __name__ == "__main__":
    sys.exit(main())
