"""Runs the tests of another library twice, untraced and traced, and prints which came out otherwise.

    python tests/suites/run.py SOURCE tests/test_big_modeling.py tests/test_hooks.py
    python tests/suites/run.py SOURCE tests/test_auto.py -- -k "not gpu" -x

SOURCE is the library's own source tree, of the version that is installed: its
source distribution (`pip download --no-deps --no-binary :all: accelerate==...`,
which holds the tests of accelerate and peft) or its repository at the tag of
the version (transformers). What the tests import besides (`parameterized`, for
one) goes on PYTHONPATH. What concerns hftrace:

    accelerate     tests/test_big_modeling.py tests/test_hooks.py tests/test_offload.py
                   tests/test_modeling_utils.py
    peft           tests/test_auto.py tests/test_hub_features.py tests/test_low_level_api.py
                   tests/test_custom_models.py, after an empty tests/__init__.py was put there
    transformers   tests/utils/test_modeling_utils.py tests/utils/test_core_model_loading.py
                   tests/models/llama

A library's own options of pytest that need a plugin are put aside by `-- -o addopts=`.

The traced run has a `hftrace.trace` around each test and one around all of
them. Neither run has a network: what needs one fails in both. `--hub FOLDER`
serves the stand-ins that `hub.py` wrote, on this machine, in the Hub's place;
without it the cache is empty and the Hub is not asked. Compared are the
outcome of each test, the error of each that failed, its figures aside, and the
warnings. What differs is run again in both ways, by itself; what is then alike
was the test's own doing, and is counted as unsteady.

It is no part of the suite: it takes as long as theirs, twice. The last line is
the total, and the exit code is 1 where something differs or went wrong in hftrace.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parents[1] / "src"
sys.path.append(str(HERE.parent))

from hub_server import Hub  # noqa: E402 -- beside this folder

WHOLE = "the session"
"""What ``outcomes.py`` calls the block around all of the tests."""
PHASES = ("collect", "setup", "call", "teardown")
MAX_AGAIN = 60
"""Tests that are run again; where more differ, something else is wrong."""


@dataclass
class Result:
    """What one test came to."""

    outcomes: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        """One word for all of its phases: the worst."""
        for wanted in ("failed", "skipped", "skipped as expected", "passed as expected"):
            if wanted in self.outcomes.values():
                return wanted
        return "passed" if self.outcomes else "nothing"


@dataclass
class Run:
    """What one run of a suite came to."""

    tests: dict[str, Result]
    own: list[str]
    seconds: float
    recorded: dict[str, int]
    """What the traces of its tests hold: how many loads and spans, and in how many tests there was a load."""


def run(options: argparse.Namespace, tests: list[str], traced: bool) -> Run:
    """Runs tests in a process of their own, in the source tree."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hftrace-suite-") as folder, ExitStack() as served:
        results = Path(folder) / "results.jsonl"
        results.touch()
        environment: dict[str, str | None] = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HFTRACE")},
            "PYTHONPATH": os.pathsep.join(
                [str(HERE), str(SOURCES), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
            "HF_HOME": str(Path(folder) / "huggingface"),
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "SUITE_RESULTS": str(results),
            **({"SUITE_TRACED": "1"} if traced else {}),
        }
        hub = None if options.hub is None else served.enter_context(Hub(options.hub, lifetime=24 * 3600))
        environment |= {} if hub is None else hub.variables
        command = [sys.executable, "-m", "pytest", "-p", "outcomes", "-q", "--no-header"]
        command += ["-p", "no:cacheprovider"]
        command += [*options.arguments, *tests]
        log = options.log / ("traced.log" if traced else "untraced.log")
        with log.open("ab") as output:
            done = subprocess.run(
                command,
                cwd=options.source,
                env={name: value for name, value in environment.items() if value is not None},
                stdout=output,
                stderr=output,
                check=False,
            )
        lines = [json.loads(line) for line in results.read_text("utf-8").splitlines()]
    found: dict[str, Result] = defaultdict(Result)
    own, whole = [], False
    recorded: dict[str, int] = defaultdict(int)
    for line in lines:
        if line["what"] == "own":
            own += [f"{line['test']}: {error}" for error in line["errors"]]
        elif line["what"] == "recorded" and line["test"] != WHOLE:
            for what in ("loads", "spans"):
                recorded[what] += line[what]
            recorded["with a load"] += line["loads"] > 0
        elif line["what"] == "warning":
            found[line["test"]].warnings.append(line["said"])
        elif line["what"] in PHASES:
            found[line["test"]].outcomes[line["what"]] = line["outcome"]
            found[line["test"]].errors[line["what"]] = line["error"]
        whole = whole or line["what"] == "end"
    if not whole:
        own.append(f"the run ended before its end, with exit code {done.returncode}: see {log}")
    if traced and not recorded["spans"]:
        own.append("nothing was recorded in any test: there is nothing to compare")
    return Run({**found}, own, time.monotonic() - started, {**recorded})


def differing(one: Run, other: Run) -> dict[str, str]:
    """Returns the tests that came out otherwise, and how."""
    found = {}
    for test in {**one.tests, **other.tests}:
        a, b = one.tests.get(test, Result()), other.tests.get(test, Result())
        if a.outcome != b.outcome:
            errors = "; ".join(filter(None, [*a.errors.values(), *b.errors.values()]))
            found[test] = f"{a.outcome} untraced, {b.outcome} traced: {errors[:600]}"
        elif a.errors != b.errors:
            found[test] = f"{a.outcome} with another error: {a.errors} untraced, {b.errors} traced"
        elif sorted(a.warnings) != sorted(b.warnings):
            lost, new = ({*x.warnings} - {*y.warnings} for x, y in ((a, b), (b, a)))
            found[test] = f"other warnings: {sorted(lost)} untraced only, {sorted(new)} traced only"
    return found


def counted(what: Run) -> str:
    counts: dict[str, int] = defaultdict(int)
    for result in what.tests.values():
        if result.outcomes:
            counts[result.outcome] += 1
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))


def main(given: list[str] | None = None) -> int:
    given = sys.argv[1:] if given is None else given
    cut = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="the source tree of the library")
    parser.add_argument("tests", nargs="+", help="files or directories of tests, relative to it")
    parser.add_argument("--hub", type=Path, help="a folder of stand-ins, which hub.py writes")
    parser.add_argument("--log", type=Path, help="a directory for what pytest prints")
    options = parser.parse_args(given[:cut])
    options.arguments = given[cut + 1 :]
    options.log = options.log or Path(tempfile.mkdtemp(prefix="hftrace-suite-log-"))
    options.log.mkdir(parents=True, exist_ok=True)
    untraced = run(options, options.tests, traced=False)
    print(f"untraced: {counted(untraced)} in {untraced.seconds:.0f} s", flush=True)
    traced = run(options, options.tests, traced=True)
    print(f"traced:   {counted(traced)} in {traced.seconds:.0f} s", flush=True)
    print("recorded: " + ", ".join(f"{count} {what}" for what, count in traced.recorded.items()), flush=True)
    found = differing(untraced, traced)
    steady: dict[str, str] = {}
    for test in list(found)[:MAX_AGAIN]:
        again = differing(run(options, [test], traced=False), run(options, [test], traced=True))
        if test in again:
            steady[test] = again[test]
        else:
            print(f"unsteady  {test}: {found[test]}", flush=True)
    for test in list(found)[MAX_AGAIN:]:
        steady[test] = found[test]
    for test, how in steady.items():
        print(f"differs   {test}: {how}")
    for error in traced.own:
        print(f"hftrace   {error}")
    print(
        f"{len(traced.tests)} tests, {len(steady)} differing, {len(found) - len(steady)} unsteady, "
        f"{len(traced.own)} errors of hftrace; what pytest printed is in {options.log}"
    )
    return 1 if steady or traced.own or untraced.own else 0


if __name__ == "__main__":
    sys.exit(main())
