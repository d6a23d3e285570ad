"""The project's commands: ``nox -s check``, ``test``, ``kinds``, ``docs``, ``bench``; ``nox -l`` lists them.

Sessions make no environments of their own. They use the pinned ones of tests/environments, so that
a check here sees what CI sees, and torch is installed once.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent
ENVIRONMENTS = Path(os.environ.get("HFTRACE_ENVIRONMENTS") or ROOT / ".venvs").absolute()
PYTHON = str(ENVIRONMENTS / "base" / "bin" / "python")
SITE = ("-m", "sphinx", "-W", "--keep-going", "-q", "docs", "docs/_build/html")

nox.options.sessions = ["check", "docs"]


def _python(session: nox.Session, *arguments: str) -> None:
    session.run(PYTHON, *arguments, external=True)


def _make(session: nox.Session) -> None:
    session.run(sys.executable, "tests/environments/make.py", external=True, silent=True)


@nox.session(python=False)
def check(session: nox.Session) -> None:
    """Lint, format, types, and whether README and docs show what hftrace prints."""
    _make(session)
    _python(session, "-m", "ruff", "check", ".")
    _python(session, "-m", "ruff", "format", "--check", ".")
    _python(session, "-m", "mypy")
    _python(session, "scripts/make_json_schema.py", "--check")
    _python(session, "scripts/update_docs.py", "--check")


@nox.session(python=False)
def test(session: nox.Session) -> None:
    """What CI runs; ``nox -s test -- --all`` for every transformers version."""
    session.run("bash", "tests/run.sh", *session.posargs, external=True)


@nox.session(python=False)
def kinds(session: nox.Session) -> None:
    """Every kind of load with every transformers version, and docs/kinds.md from what came of it; hours."""
    session.run(sys.executable, "tests/environments/make.py", "--all", external=True, silent=True)
    with tempfile.TemporaryDirectory() as reports:
        run = (sys.executable, "tests/environments/run.py", "--all", "--sparse", "--reports", reports)
        # Tests that fail are in the table.
        session.run(*run, *session.posargs, external=True, success_codes=[0, 1])
        _python(session, "scripts/make_kinds_page.py", reports)


@nox.session(python=False)
def docs(session: nox.Session) -> None:
    """The site, in docs/_build/html; a warning is an error."""
    _make(session)
    _python(session, *SITE)


@nox.session(python=False)
def bench(session: nox.Session) -> None:
    """What hftrace costs, as ratios of times, on a quiet machine; ``-- --quick`` tries it out."""
    _make(session)
    _python(session, "tests/benchmarks/overhead.py", *session.posargs)


@nox.session
def changelog(session: nox.Session) -> None:
    """Moves the fragments of news/ into CHANGELOG.md; ``-- --draft`` prints what would be written."""
    session.install("towncrier==26.9.0")
    version = (
        (ROOT / "src/hftrace/_version.py").read_text("utf-8").partition('__version__ = "')[2].split('"')[0]
    )
    session.run("towncrier", "build", "--version", version, *(session.posargs or ("--yes",)))
