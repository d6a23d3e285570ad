"""Which distribution a package belongs to, and what that one requires: from the metadata that pip left."""

from __future__ import annotations

import os
import re
from typing import Any

MAX_METADATA_BYTES = 1 << 20
OTHER_NAMES = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "google": "protobuf",
    "jwt": "pyjwt",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""Distributions that go by another name than their package, and do not say so in a ``top_level.txt``."""
_REQUIRED = re.compile(rb"^Requires-Dist:\s*([A-Za-z0-9._-]+)([^\n]*)$", re.MULTILINE)


def normalized(name: str) -> str:
    """Returns the name of a distribution as all its spellings have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


class Distributions:
    """Finds distributions, in any number of folders."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, str]] = {}
        """By folder: the metadata directories in it, by the normalized name of what they are of."""
        self._top_levels: dict[str, dict[str, str]] = {}

    def has_metadata(self, folder: str) -> bool:
        """Returns whether packages were installed into a folder."""
        return bool(self._metadata_of(folder))

    def facts(self, package: str, folder: str) -> dict[str, Any] | None:
        """Returns ``distribution, version, requires`` of a package that lies in a folder.

        Args:
            package: The first part of the names of its modules.
            folder: Where it lies.

        Returns:
            None where its distribution is not known. ``requires`` has normalized names, without extras.
        """
        known = self._metadata_of(folder)
        name = next(
            (each for each in (normalized(package), OTHER_NAMES.get(package)) if each in known), None
        ) or self._by_top_level(folder).get(package)
        if name is None:
            return None
        directory = known[name]
        head = _read(os.path.join(folder, directory, "METADATA")).partition(b"\n\n")[0]
        if not head:
            return None
        requires = {
            normalized(match.group(1).decode("ascii"))
            for match in _REQUIRED.finditer(head)
            if b"extra" not in match.group(2)
        }
        version = directory.removesuffix(".dist-info").partition("-")[2]
        return {"distribution": name, "version": version, "requires": sorted(requires)}

    def _metadata_of(self, folder: str) -> dict[str, str]:
        known = self._folders.get(folder)
        if known is None:
            known = self._folders[folder] = {}
            try:
                names = os.listdir(folder)
            except OSError:
                names = []
            for name in names:
                if name.endswith(".dist-info"):
                    known[normalized(name.partition("-")[0])] = name
        return known

    def _by_top_level(self, folder: str) -> dict[str, str]:
        known = self._top_levels.get(folder)
        if known is None:
            known = self._top_levels[folder] = {}
            for name, directory in self._metadata_of(folder).items():
                text = _read(os.path.join(folder, directory, "top_level.txt"))
                for package in text.decode("utf-8", "replace").split():
                    known.setdefault(package, name)
        return known


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as handle:
            return handle.read(MAX_METADATA_BYTES).replace(b"\r\n", b"\n")
    except OSError:
        return b""
