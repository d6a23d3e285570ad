"""The identity of a process."""

import subprocess
import sys

import pytest

from hftrace.system.processes import start_ticks


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_process_that_nobody_waited_for_is_no_process():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert start_ticks(child.pid) > 0
    child.stdin.close()
    while start_ticks(child.pid) is not None:
        pass
    child.wait()
