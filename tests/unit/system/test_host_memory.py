"""What is read of /proc/self/status, whatever fields a kernel has."""

from __future__ import annotations

import os

import pytest

from hftrace.system.memory import HostMemory

LINUX = b"Name:\tpython\nVmPeak:\t  9 kB\nVmHWM:\t  400 kB\nVmRSS:\t  390 kB\nRssAnon:\t  300 kB\n"
FILES = b"RssFile:\t   80 kB\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LINUX + FILES + b"RssShmem:\t   10 kB\n", (300, 80, 10, 400)),
        (LINUX + b"RssShmem:\t   10 kB\n" + FILES, (300, 80, 10, 400)),
        (LINUX + FILES, (300, 80, None, 400)),
        (b"Name:\tVmHWM: 5 kB\nRssAnon:\t  300 kB\n", (300, None, None, None)),
        (b"", (None, None, None, None)),
    ],
)
def test_fields_of_the_status(monkeypatch, text, expected):
    memory = HostMemory(reset=False)
    memory.exact = True
    monkeypatch.setattr(os, "pread", lambda file, length, offset: text)
    reading = memory.current()
    memory.close()
    found = (reading.rss_anon, reading.rss_file, reading.rss_shmem, reading.mark)
    assert found == tuple(None if value is None else value * 1024 for value in expected)
