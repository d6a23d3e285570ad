"""Runs pytest with one transformers version after the other, and prints a table.

    python tests/environments/run.py --ci                          what CI runs
    python tests/environments/run.py --all                         the same for every version
    python tests/environments/run.py --only 4.48.3 --sparse        all that a version can run
    python tests/environments/run.py --only 4.48.3 -- tests/integration -k sharded

Without pytest arguments the newest version runs the whole suite and every
other one what depends on the version: tests/integration and tests/patching
without the tests marked `once`, and without those marked `sparse`, which depend
on a library and not on the loader; `--sparse` runs these too. Those of the Hub's
client run with one older version. With `--ci` 4.50.3 is spared the kinds of load.
`--checks` runs ruff and mypy and builds the docs first. `make.py` makes the environments.

The last line printed is the total: `N passed, N failed, N skipped`. The exit
code is 0 where nothing failed, 1 otherwise.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).resolve().parent))

from make import ROOT, add_selection, base_python, is_complete, overlay, selected
from versions import BASE

WHOLE_SUITE = ("tests",)
PER_VERSION = ("tests/integration", "tests/patching")
CHECKS = (
    ("ruff check", ("-m", "ruff", "check", ".")),
    ("ruff format", ("-m", "ruff", "format", "--check", ".")),
    ("mypy", ("-m", "mypy")),
    ("docs", ("-m", "sphinx", "-W", "--keep-going", "-q", "docs", "docs/_build/html")),
)
CLIENT_VERSION = "4.57.6"
"""Where CI runs what depends on the older client of the Hub."""
BETWEEN_VERSION = "4.50.3"
"""What CI does not load every kind with: a loader of one release, between two whose kinds it loads."""
SECOND_TRY = 10
"""Up to so many failures are tried once more, alone: a test that kills real processes at real moments
may meet a machine that is busy elsewhere, and take what shares its process with it. What passed only then is
named in the table."""
NO_TESTS = 5
"""Pytest's exit code for having found no test."""


@dataclass
class Row:
    """One line of the table."""

    name: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    note: str = ""


def _environment(directory: Path, version: str) -> dict[str, str]:
    environment = dict(os.environ)
    place = overlay(directory, version)
    # The overlay comes first, and the variable is inherited by every process that a test starts.
    environment.pop("PYTHONPATH", None)
    if place is not None:
        environment["PYTHONPATH"] = str(place)
    environment["PATH"] = f"{base_python(directory).parent}{os.pathsep}{environment.get('PATH', '')}"
    environment["HFTRACE_TEST_TRANSFORMERS"] = version
    return environment


def _holds_tests(path: Path) -> bool:
    return path.is_file() or any(path.rglob("test_*.py"))


def _count(report: Path, row: Row) -> None:
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        total, failures, errors, skipped = (
            int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")
        )
        row.failed += failures + errors
        row.skipped += skipped
        # A test that passes and whose teardown fails is in the file once, as an error.
        row.passed += max(0, total - failures - errors - skipped)


def _pytest(
    directory: Path, version: str, arguments: list[str], row: Row, kept: Path | None, name: str
) -> int:
    """Runs pytest and counts into ``row``; returns its exit code. The report is kept below ``kept``."""
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary, "report.xml")
        options = [f"--junitxml={report}", "-o", f"cache_dir=.pytest_cache/{version}"]
        done = subprocess.run(
            [str(base_python(directory)), "-m", "pytest", *options, *arguments],
            cwd=ROOT,
            env=_environment(directory, version),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if report.exists():
            _count(report, row)
            if kept is not None:
                kept.mkdir(parents=True, exist_ok=True)
                shutil.copy(report, kept / f"{name}.xml")
    # In one piece, as another version may be running beside this one.
    heading = f"\n=== transformers {version}: pytest {' '.join(arguments)}\n"
    print(heading + done.stdout.decode("utf-8", "replace"), flush=True)
    return done.returncode


def _chosen(version: str, *, ci: bool, sparse: bool) -> list[str]:
    """Returns the pytest arguments that choose what a version runs."""
    parts = WHOLE_SUITE if version == BASE else PER_VERSION
    arguments = [part for part in parts if _holds_tests(ROOT / part)]
    if arguments and version != BASE:
        chosen = "not once"
        if not sparse:
            chosen += " and (not sparse or client)" if version == CLIENT_VERSION else " and not sparse"
        if ci and version == BETWEEN_VERSION:
            chosen += " and not kinds"
        arguments += ["-m", chosen]
    return arguments


def run_version(
    directory: Path,
    version: str,
    arguments: list[str],
    *,
    ci: bool,
    sparse: bool,
    reports: Path | None = None,
) -> Row:
    """Runs pytest in the environment of one version.

    Args:
        directory: Where the environments are.
        version: Of transformers.
        arguments: For pytest; empty for what this version runs by itself.
        ci: Whether CI runs it, which leaves out what another version shows as well.
        sparse: Whether tests marked `sparse` run with every version.
        reports: Where pytest's own report is kept, as VERSION.xml, and that of a second try as
            VERSION-again.xml.
    """
    row = Row(f"transformers {version}")
    if not arguments:
        arguments = _chosen(version, ci=ci, sparse=sparse)
        if not arguments:
            row.note = "no tests"
            return row
    if not is_complete(directory, version):
        row.failed, row.note = 1, f"no environment: make.py --only {version}"
        print(row.note, flush=True)
        return row
    started = time.monotonic()
    code = _pytest(directory, version, arguments, row, reports, version)
    if code == 1 and 0 < row.failed <= SECOND_TRY:
        again = Row(row.name)
        last = ["--last-failed", "--last-failed-no-failures=none"]
        code = _pytest(directory, version, [*last, *arguments], again, reports, f"{version}-again")
        if again.passed + again.failed == row.failed:
            row.note = f"{again.passed} passed on the second try" if again.passed else ""
            row.passed, row.failed = row.passed + again.passed, again.failed
        else:
            code = 1
    row.seconds = time.monotonic() - started
    if code == NO_TESTS:
        # Nothing collected is a failure, unless the directories named hold no test at all.
        if any(_holds_tests(ROOT / part.partition("::")[0]) for part in arguments if part[:1] != "-"):
            row.failed += 1
        row.note = "no tests"
    elif code and not row.failed:
        row.failed, row.note = 1, f"pytest left with exit code {code}"
    elif not code and row.failed:
        row.note = "pytest left with exit code 0 all the same"
    return row


def run_check(directory: Path, name: str, command: tuple[str, ...]) -> Row:
    """Runs one static check."""
    print(f"\n=== {name}", flush=True)
    started = time.monotonic()
    code = subprocess.run(
        [str(base_python(directory)), *command],
        cwd=ROOT,
        env=_environment(directory, BASE),
        stdin=subprocess.DEVNULL,
    ).returncode
    return Row(
        name,
        failed=int(code != 0),
        seconds=time.monotonic() - started,
        note=f"exit code {code}" if code else "fine",
    )


def table(rows: list[Row]) -> str:
    """Returns the rows as aligned text."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'':{width}}  passed  failed  skipped  seconds"]
    for row in rows:
        numbers = f"{row.passed:6}  {row.failed:6}  {row.skipped:7}  {row.seconds:7.1f}"
        lines.append(f"{row.name:{width}}  {numbers}  {row.note}".rstrip())
    return "\n".join(lines)


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_selection(parser)
    parser.add_argument("--checks", action="store_true", help="run ruff and mypy and build the docs first")
    parser.add_argument("--sparse", action="store_true", help="also run the tests marked sparse with each")
    parser.add_argument("--reports", type=Path, metavar="DIRECTORY", help="keep pytest's reports there")
    parser.add_argument("--jobs", type=int, default=2, help="versions that run at a time (default: 2)")
    own, after = _split(sys.argv[1:])
    options = parser.parse_args(own)
    versions = selected(parser, options)
    rows = []
    if options.checks:
        rows += [run_check(options.directory, name, command) for name, command in CHECKS]
    with ThreadPoolExecutor(options.jobs) as pool:
        # What takes longest begins first: the whole suite, then the version with the client's tests.
        order = sorted(versions, key=lambda version: (version != BASE, version != CLIENT_VERSION))
        pending = {
            version: pool.submit(
                run_version,
                options.directory,
                version,
                after,
                ci=options.ci,
                sparse=options.sparse,
                reports=options.reports,
            )
            for version in order
        }
        rows += [pending[version].result() for version in versions]
    passed, failed, skipped = (
        sum(getattr(row, name) for row in rows) for name in ("passed", "failed", "skipped")
    )
    print(f"\n{table(rows)}\n")
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed or not passed else 0


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Divides the command line at ``--``: our options, pytest's arguments."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


if __name__ == "__main__":
    sys.exit(main())
