"""Versions of transformers that are there already: overlay folders, and interpreters that are named."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from hftrace.errors import UsageError

_VERSION = re.compile(
    r"v?(?P<release>\d+(?:\.\d+)*)(?:[._-]?(?P<pre>a|b|rc|dev|post)[._-]?(?P<number>\d*))?(?:\+\S*)?"
)
_BEFORE = {"dev": -4, "a": -3, "b": -2, "rc": -1, None: 0, "post": 1}
"""What comes before a release, and after it."""


@dataclass(frozen=True)
class Candidate:
    """A version that can be tried.

    Args:
        label: What it is called.
        python: Its interpreter; None for the one of all.
        environment: Variables that make it the one that is imported.
        expected: The version that its loads have to report; None where anything may come.
        subject: What a commit's message says first.
    """

    label: str
    python: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    expected: str | None = None
    subject: str | None = None


class Source(Protocol):
    """Where versions come from."""

    def labels(self, good: str, bad: str) -> list[str]:
        """Returns all versions from the good to the bad one, both included, in order.

        Raises:
            HftraceError: One of the two is not there, or they are not in order.
        """

    def prepare(self, label: str) -> Candidate:
        """Returns a version ready to be loaded with.

        Raises:
            HftraceError: It cannot be had.
        """


def version_key(text: str) -> tuple[tuple[int, ...], int, int]:
    """Returns what versions are sorted by, as PEP 440 orders them.

    Raises:
        UsageError: The text is no version.
    """
    match = _VERSION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is no version such as 4.57.6")
    release = [int(part) for part in match["release"].split(".")]
    while len(release) > 1 and release[-1] == 0:
        release.pop()
    return tuple(release), _BEFORE[match["pre"]], int(match["number"] or 0)


def between(known: Sequence[str], good: str, bad: str, where: str) -> list[str]:
    """Returns the versions from a good to a bad one, in order.

    Args:
        known: All that there are.
        good: The good one.
        bad: The bad one.
        where: Where they are, for the message.

    Raises:
        UsageError: One of the two is not there, or they are not in order.
    """
    low, high = version_key(good), version_key(bad)
    if low >= high:
        raise UsageError(f"--good {good} is not older than --bad {bad}: a bisection goes from old to new")
    found = {version_key(label): label for label in known}
    for wanted, text in ((low, good), (high, bad)):
        if wanted not in found:
            there = ", ".join(label for _, label in sorted(found.items())) or "none"
            raise UsageError(f"{where} has no {text}: it has {there}")
    return [label for key, label in sorted(found.items()) if low <= key <= high]


def on_path(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Returns the variables that let a process import from a folder before all others."""
    inherited = os.environ.get("PYTHONPATH")
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, (os.path.abspath(folder), inherited))),
        # Compiled modules are kept after the first run of a version, which is not counted; a version whose
        # modules are compiled in each run would look slow. Python takes an empty value for none.
        "PYTHONDONTWRITEBYTECODE": "",
    }


class Overlays:
    """A folder with a folder for each version, which goes on ``PYTHONPATH``.

    Args:
        directory: The folder.
    """

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory).expanduser()

    def labels(self, good: str, bad: str) -> list[str]:
        """Returns the versions from ``good`` to ``bad``."""
        try:
            folders = [path.name for path in self._directory.iterdir() if path.is_dir()]
        except OSError as error:
            raise UsageError(
                f"cannot read the overlays {self._directory}: {error.strerror or error}"
            ) from None
        # What is named otherwise is something else.
        versions = [name for name in folders if _VERSION.fullmatch(name)]
        return between(versions, good, bad, str(self._directory))

    def prepare(self, label: str) -> Candidate:
        """Returns the version of that folder."""
        return Candidate(label, environment=on_path(self._directory / label))


class Interpreters:
    """Interpreters of environments that have one version each.

    Args:
        named: ``VERSION=PATH``, two or more.
    """

    def __init__(self, named: Sequence[str]) -> None:
        self._paths: dict[str, str] = {}
        for text in named:
            label, equals, path = text.partition("=")
            if not equals or not path:
                raise UsageError(
                    f"--python {text}: write it as VERSION=PATH, such as 4.57.6=/envs/a/bin/python"
                )
            if label in self._paths:
                raise UsageError(f"--python names {label} twice")
            self._paths[label] = os.path.expanduser(path)

    def labels(self, good: str, bad: str) -> list[str]:
        """Returns the versions from ``good`` to ``bad``."""
        return between(list(self._paths), good, bad, "--python")

    def prepare(self, label: str) -> Candidate:
        """Returns the version of that interpreter."""
        return Candidate(label, self._paths[label], {"PYTHONDONTWRITEBYTECODE": ""})
