"""Starts and stops the sampler's process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hftrace.schema.journal import samples_path

SAMPLER = Path(__file__).with_name("sampler.py")
DEFAULT_RATE_HZ = 50.0


class SamplerProcess:
    """A sampler of one process, in a process of its own.

    Args:
        pid: Whom to sample.
        directory: Where the samples go, beside the journal.
        rate_hz: Readings per second.
    """

    def __init__(self, pid: int, directory: Path, rate_hz: float = DEFAULT_RATE_HZ) -> None:
        # -S -I: neither site-packages nor the user's environment are needed to read /proc.
        flags = ["-I", "-S"] if sys.platform.startswith("linux") else ["-I"]
        self.process = subprocess.Popen(
            [sys.executable, *flags, str(SAMPLER), str(pid), str(samples_path(directory, pid)), str(rate_hz)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Ctrl-C is for the load; the sampler ends when its standard input does.
            start_new_session=True,
        )

    def stop(self) -> None:
        """Ends the sampler and waits for its last line."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
