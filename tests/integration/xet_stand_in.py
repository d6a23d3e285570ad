"""Stands in for the module ``hf_xet``, whose service cannot be had in a test.

It has what huggingface_hub calls: ``download_files`` (before 1.0) and sessions with groups (later). Both copy
the file of the folder ``XET_SOURCE`` that has the digest, slowly, in a thread of their own; ``XET_FAILS``
makes them fail half way. No request of it passes through Python's HTTP clients, as none of the real one does.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

SECONDS = 0.3


class PyXetDownloadInfo:
    def __init__(self, destination_path, hash, file_size):
        self.destination_path, self.hash, self.file_size = destination_path, hash, file_size


class XetFileInfo:
    def __init__(self, hash, file_size):
        self.hash, self.file_size = hash, file_size


def _copy(digest, place):
    time.sleep(SECONDS)
    for item in Path(os.environ["XET_SOURCE"]).rglob("*"):
        if item.is_file() and hashlib.sha256(item.read_bytes()).hexdigest() == digest:
            data = item.read_bytes()
            fails = bool(os.environ.get("XET_FAILS"))
            Path(place).write_bytes(data[: len(data) // 2] if fails else data)
            return fails
    raise FileNotFoundError(digest)


def _fetch(digest, place):
    results = []
    worker = threading.Thread(target=lambda: results.append(_copy(digest, place)))
    worker.start()
    worker.join()
    if results != [False]:
        raise RuntimeError("the content store is gone")


def download_files(files, endpoint, token_info, token_refresher, progress_updater, **more):
    for each in files:
        _fetch(each.hash, each.destination_path)


class _Group:
    def __init__(self):
        self._wanted = []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for info, place in self._wanted:
            _fetch(info.hash, place)

    def start_download_file(self, info, place):
        self._wanted.append((info, place))


class XetSession:
    def new_file_download_group(self, **options):
        return _Group()

    def sigint_abort(self):
        pass
