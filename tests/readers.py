"""The programs that read exports back: packages that no other test may see, so they run in a process."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def path_with(*packages: str) -> str:
    """Returns a PYTHONPATH with these packages on it; skips the test where they are not installed."""
    environments = Path(os.environ.get("HFTRACE_ENVIRONMENTS") or ROOT / ".venvs")
    folders = [environments / name for name in ("readers", "extras")]
    missing = [
        package
        for package in packages
        if not any((folder / Path(*package.split("."))).is_dir() for folder in folders)
        and not _is_installed(package)
    ]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: tests/environments/make.py installs it")
    return os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", ""), *map(str, folders)]))


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:  # of its parent
        return False
