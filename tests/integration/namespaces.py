"""Two network namespaces with a cable between them: two machines, as far as a process group can tell.

The second has a clock of its own as well (a time namespace), which is far from that of the first, as of two
machines that were booted at different times. Both have one wall clock.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

ADDRESSES = ("10.97.16.1", "10.97.16.2")
AHEAD_SECONDS = 5000
LINK = "cable"
"""The name of the interface in both."""


def run(*words: str) -> None:
    """Runs a command of the system.

    Raises:
        OSError: It failed; says what it said.
    """
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")


@contextlib.contextmanager
def two_nodes() -> Iterator[list[list[str]]]:
    """Makes them; returns for each the words to put before a command that is to run there.

    Raises:
        OSError: This user, or this kernel, may not.
    """
    if not shutil.which("ip") or not shutil.which("unshare"):
        raise OSError("no ip (iproute2) or unshare (util-linux)")
    clock = ["unshare", "--time", "--fork", "--kill-child", "--monotonic", str(AHEAD_SECONDS)]
    run(*clock, "true")
    names = [f"hftrace-{os.getpid()}-{node}" for node in (0, 1)]
    made = []
    try:
        for name in names:
            run("ip", "netns", "add", name)
            made.append(name)
        ends = [("name", LINK, "netns", name) for name in names]
        run("ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", LINK)
            for interface in ("lo", LINK):
                run("ip", "-n", name, "link", "set", interface, "up")
        first, second = (["ip", "netns", "exec", name] for name in names)
        yield [first, [*second, *clock]]
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=30)
