"""Releases of transformers: which there are, by the package index, and a folder for each that is tried.

A folder holds transformers and what it pins otherwise than the interpreter has it (tokenizers, the Hub's
client, ...), nothing else: torch and all other libraries are the interpreter's own, so that versions differ
by themselves alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from hftrace.errors import HftraceError
from hftrace.launch.bisecting.places import Candidate, between, on_path

PACKAGE = "transformers"
INDEX_SECONDS = 120
INSTALL_SECONDS = 1800
ROUNDS = 4
"""What a pinned library needs itself is looked for this often: pins of pins of pins are none that exist."""
MARKER = ".complete"
_UNMET = """
import json, re, sys
from importlib.metadata import distributions
try:
    from packaging.requirements import Requirement
except ImportError:
    from pip._vendor.packaging.requirements import Requirement
plain = lambda name: re.sub(r"[-_.]+", "-", name).lower()
have = {}
for found in distributions():
    have.setdefault(plain(found.metadata["Name"] or ""), found.version)
unmet = []
for found in distributions(path=[sys.argv[1]]):
    for text in found.requires or ():
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        version = have.get(plain(wanted.name))
        if version is None or not wanted.specifier.contains(version, prereleases=True):
            unmet.append(wanted.name + str(wanted.specifier))
print(json.dumps(sorted(set(unmet))))
"""
"""Prints what the packages of a folder need and an interpreter has not, with the folder before all else."""


class Releases:
    """Releases of the package index, each in a folder that is made once.

    Args:
        python: The interpreter that they are made for.
        directory: Where the folders are kept.
        say: Hears what takes long.
    """

    def __init__(self, python: str, directory: Path, say: Callable[[str], None]) -> None:
        self._python = python
        self._directory = directory
        self._say = say

    def labels(self, good: str, bad: str) -> list[str]:
        """Returns the versions from ``good`` to ``bad``, as the package index has them."""
        return between(self._available(), good, bad, "the package index")

    def prepare(self, label: str) -> Candidate:
        """Returns a version; installs it where it is not there."""
        place = self._directory / f"{PACKAGE}-{label}-{self._tag()}"
        if not (place / MARKER).exists():
            self._make(label, place)
        return Candidate(label, self._python, on_path(place), expected=label)

    def _tag(self) -> str:
        """Returns what wheels of this interpreter depend on, as a part of a name."""
        code = "import sys, platform; print(sys.implementation.cache_tag, platform.machine(), sep='-')"
        done = _run([self._python, "-c", code], INDEX_SECONDS)
        return re.sub(r"[^\w-]+", "", done.stdout.strip()) or "python"

    def _available(self) -> list[str]:
        words = ["index", "versions", PACKAGE, "--disable-pip-version-check"]
        commands = [[self._python, "-m", "pip", *words]]
        if uv := shutil.which("uv"):
            commands.append([uv, "tool", "run", "pip", *words])
        failed = ""
        for command in commands:
            done = _run(command, INDEX_SECONDS)
            found = re.search(r"^Available versions:(.*)$", done.stdout, re.MULTILINE)
            if done.returncode == 0 and found is not None:
                return [text.strip() for text in found[1].split(",")]
            failed = failed or _last_line(done.stderr or done.stdout)
        raise HftraceError(
            f"the package index did not say which versions of {PACKAGE} there are ({failed}): "
            "name folders with --overlays, or interpreters with --python"
        )

    def _make(self, label: str, place: Path) -> None:
        self._say(f"installing {PACKAGE} {label} into {place}")
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=self._directory))
        except OSError as error:
            raise HftraceError(
                f"cannot write to {self._directory}: {error.strerror or error}; name another place with "
                "--environments"
            ) from None
        try:
            self._install(temporary, [f"{PACKAGE}=={label}"])
            for _ in range(ROUNDS):
                unmet = self._unmet(temporary)
                if not unmet:
                    break
                self._install(temporary, unmet)
            else:
                raise HftraceError(
                    f"{PACKAGE} {label} needs {', '.join(unmet)}, which could not be installed"
                )
            (temporary / MARKER).write_text("")
            shutil.rmtree(place, ignore_errors=True)
            # Another process may have made it meanwhile.
            with contextlib.suppress(OSError):
                temporary.rename(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _install(self, place: Path, requirements: Sequence[str]) -> None:
        if uv := shutil.which("uv"):
            command = [uv, "pip", "install", "--quiet", "--python", self._python]
        else:
            command = [self._python, "-m", "pip", "install", "--quiet", "--no-input", "--no-compile"]
            command += ["--disable-pip-version-check"]
        command += ["--no-deps", "--upgrade", "--target", str(place), *requirements]
        done = _run(command, INSTALL_SECONDS)
        if done.returncode:
            raise HftraceError(
                f"{' '.join(requirements)} could not be installed: {_last_line(done.stderr or done.stdout)}"
            )

    def _unmet(self, place: Path) -> list[str]:
        done = _run([self._python, "-c", _UNMET, str(place)], INDEX_SECONDS, place)
        try:
            return [str(text) for text in json.loads(done.stdout)]
        except (ValueError, RecursionError):
            raise HftraceError(
                f"{self._python} could not read what {place.name} needs: {_last_line(done.stderr)}"
            ) from None


def _run(command: list[str], seconds: float, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    try:
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", f"cannot start {command[0]}: {error.strerror}")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no answer within {seconds:g} s")


def _last_line(text: str) -> str:
    """Returns what a command said last, but for pip's advice about itself."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and "[notice]" not in line]
    return lines[-1][:300] if lines else "no message"
