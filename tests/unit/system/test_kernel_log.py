"""Kills by the kernel: its log and its counters."""

from hftrace.system.kernel_log import kernel_kill_message, killed_in, system_kills

RECORD = (
    "6,1234,9000000,-;Memory cgroup out of memory: Killed process 77 (python) total-vm:1kB\n SUBSYSTEM=x\n"
)


def test_the_kernels_log():
    said = "Memory cgroup out of memory: Killed process 77 (python) total-vm:1kB"
    assert killed_in(RECORD, 77, 9_000_000_000) == said
    assert killed_in(RECORD, 7, 9_000_000_000) is None
    assert killed_in(RECORD, 77, 60_000_000_000) is None, "an earlier process had this number"
    assert killed_in("6,1,2,-;something else", 77, 0) is None
    assert killed_in("nonsense", 77, 0) is None
    assert kernel_kill_message(77, 0, "/nonexistent") is None


def test_the_machines_counter(tmp_path):
    (tmp_path / "vmstat").write_text("nr_free_pages 5\noom_kill 3\n")
    assert system_kills(tmp_path / "vmstat") == 3
    assert system_kills(tmp_path / "none") is None
