"""Commits of a git checkout of transformers, each as a folder of its own; the checkout is only read."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from hftrace.errors import HftraceError, UsageError
from hftrace.launch.bisecting.places import Candidate, on_path

SOURCES = ("src/transformers", "transformers")
"""Where a checkout has the package: now, and before it moved."""
GIT_SECONDS = 300
SHORT = 12
"""Letters of a commit: git's own short ones are of different lengths in one repository."""


class Checkout:
    """The commits between two of a checkout that change the package, along the first parents.

    Args:
        directory: The checkout.
    """

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory).expanduser()
        self._folders: Path | None = None
        self._subjects: dict[str, str] = {}

    def labels(self, good: str, bad: str) -> list[str]:
        """Returns the good commit, and all after it up to the bad one that change the package."""
        if not self._directory.is_dir():
            raise UsageError(f"--checkout {self._directory} is no directory")
        first, last = self._commit(good), self._commit(bad)
        if first == last or self._git("merge-base", "--is-ancestor", first, last, check=False) is None:
            raise UsageError(
                f"{good} is no ancestor of {bad} in {self._directory}: a bisection goes from old to new"
            )
        listed = self._git(
            "log", "--reverse", "--first-parent", "--format=%H %s", f"{first}..{last}", "--", *SOURCES
        )
        commits = [line.partition(" ") for line in (listed or b"").decode("utf-8", "replace").splitlines()]
        if not commits:
            raise UsageError(
                f"no commit from {good} to {bad} changes {' or '.join(SOURCES)}: nothing to bisect"
            )
        self._subjects = {commit[:SHORT]: subject for commit, _, subject in commits}
        # What comes after the last of them has the same package.
        return [first[:SHORT], *self._subjects]

    def prepare(self, label: str) -> Candidate:
        """Returns a commit, with its package in a folder."""
        if self._folders is None:
            self._folders = Path(tempfile.mkdtemp(prefix="hftrace-checkout-"))
        folder = self._folders / label
        source = next((path for path in SOURCES if self._has(label, path)), None)
        if source is None:
            raise HftraceError(f"{label} has no {' and no '.join(SOURCES)}")
        if not folder.exists():
            archive = self._git("archive", "--format=tar", label, source) or b""
            try:
                with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                    for member in tar:
                        # Files and folders alone: a link could lead out of the folder.
                        path = os.path.normpath(member.name)
                        if (member.isfile() or member.isdir()) and not path.startswith(("..", "/")):
                            tar.extract(member, folder)
            except (OSError, tarfile.TarError) as error:
                shutil.rmtree(folder, ignore_errors=True)
                raise HftraceError(f"{label} could not be taken out of {self._directory}: {error}") from None
        subject = self._subjects.get(label)
        return Candidate(label, environment=on_path(folder / Path(source).parent), subject=subject)

    def close(self) -> None:
        """Removes the folders."""
        if self._folders is not None:
            shutil.rmtree(self._folders, ignore_errors=True)

    def _commit(self, name: str) -> str:
        # git would take it for an option.
        odd = name.startswith("-")
        found = (
            None if odd else self._git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", check=False)
        )
        if not found:
            raise UsageError(f"{self._directory} has no commit {name!r}")
        return found.decode().strip()

    def _has(self, commit: str, path: str) -> bool:
        return self._git("cat-file", "-e", f"{commit}:{path}", check=False) is not None

    def _git(self, *words: str, check: bool = True) -> bytes | None:
        """Returns what git prints; None where it fails.

        Raises:
            HftraceError: It fails, and ``check`` was asked for.
        """
        try:
            done = subprocess.run(
                ["git", "-C", str(self._directory), *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=GIT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HftraceError(f"git cannot be run: {error}") from None
        if done.returncode == 0:
            return done.stdout
        if check:
            message = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no message"]
            raise HftraceError(f"git {words[0]} failed in {self._directory}: {message[0][:300]}")
        return None
