"""The memory control group and its limit, in trees of files as kernels and container engines make them."""

from __future__ import annotations

import pytest

from hftrace.system.cgroups import cgroup_limit_bytes, memory_group

GB = 1_000_000_000
UNLIMITED_1 = 9_223_372_036_854_771_712
V2 = "31 24 0:26 {inside} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw"
V1 = "35 31 0:29 {inside} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
HYBRID = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"


@pytest.fixture
def tree(tmp_path):
    """Writes files below a root: ``tree(cgroup, mounts, {path: text})``."""

    def make(cgroup, mounts, files):
        process = tmp_path / "proc" / "self"
        process.mkdir(parents=True)
        (process / "cgroup").write_text(cgroup)
        (process / "mountinfo").write_text("\n".join(mounts) + "\n")
        for name, text in files.items():
            path = tmp_path / "sys/fs/cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        return tmp_path

    return make


def group_2(path, **files):
    names = {"current": "0", "max": "max", **files}
    return {f"{path}/memory.{name}": text for name, text in names.items()}


def group_1(path, limit, usage=0):
    return {f"{path}/memory.limit_in_bytes": limit, f"{path}/memory.usage_in_bytes": usage}


def test_version_2_takes_the_smallest_limit_on_the_way_up(tree):
    root = tree(
        "0::/user.slice/app.scope\n",
        [V2.format(inside="/")],
        {
            **group_2("user.slice/app.scope", max=str(8 * GB), current="12345"),
            **group_2("user.slice", max=str(6 * GB)),
        },
    )
    group = memory_group(root=root)
    assert (group.version, group.limit_bytes()) == (2, 6 * GB)
    assert group.usage_file.read_text() == "12345\n"
    assert group.pressure_file.name == "memory.pressure"


def test_version_2_without_a_limit(tree):
    root = tree("0::/a\n", [V2.format(inside="/")], group_2("a"))
    assert memory_group(root=root).limit_bytes() is None
    assert cgroup_limit_bytes(root=root) is None


def test_version_2_in_a_container_with_a_namespace_of_its_own(tree):
    root = tree("0::/\n", [V2.format(inside="/")], group_2(".", max=str(2 * GB)))
    assert cgroup_limit_bytes(root=root) == 2 * GB


def test_version_2_root_has_no_counters(tree):
    root = tree("0::/\n", [V2.format(inside="/")], {"cgroup.procs": "1"})
    assert memory_group(root=root) is None


def test_version_1_nested(tree):
    root = tree(
        "5:devices:/\n4:memory:/outer/inner\n0::/\n",
        [HYBRID, V1.format(inside="/")],
        {
            **group_1("memory/outer/inner", UNLIMITED_1, usage=77),
            **group_1("memory/outer", 3 * GB),
            **group_1("memory", UNLIMITED_1),
        },
    )
    group = memory_group(root=root)
    assert (group.version, group.limit_bytes()) == (1, 3 * GB)
    assert group.usage_file.read_text() == "77\n"
    assert group.pressure_file is None


def test_version_1_above_that_does_not_count_what_is_below(tree):
    files = {
        **group_1("memory/outer/inner", 5 * GB),
        **group_1("memory/outer", 3 * GB),
        "memory/outer/memory.use_hierarchy": 0,
    }
    root = tree("4:memory:/outer/inner\n", [V1.format(inside="/")], files)
    assert memory_group(root=root).limit_bytes() == 5 * GB


def test_version_1_in_a_container_whose_path_is_the_hosts(tree):
    files = {
        **group_1("memory", UNLIMITED_1),
        "memory/memory.stat": f"cache 1\nhierarchical_memory_limit {GB}",
    }
    root = tree("4:memory:/docker/abc\n", [V1.format(inside="/docker/abc")], files)
    assert memory_group(root=root).limit_bytes() == GB, "the kernel knows of limits that cannot be seen here"
    # Nor does it matter if the mount shows less than the path says.
    assert memory_group(root=root).path == root / "sys/fs/cgroup/memory"


def test_version_1_without_a_limit(tree):
    root = tree("4:cpu,memory:/a\n", [V1.format(inside="/")], group_1("memory/a", UNLIMITED_1))
    assert memory_group(root=root).limit_bytes() is None


def test_counters_of_kills(tree):
    events = {"a/memory.events": "low 0\nhigh 0\nmax 9\noom 2\noom_kill 1"}
    root = tree("0::/a\n", [V2.format(inside="/")], {**group_2("a"), **events})
    assert memory_group(root=root).oom_kills() == 1


def test_counters_of_kills_in_version_1(tree):
    control = {"memory/a/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3"}
    root = tree("4:memory:/a\n", [V1.format(inside="/")], {**group_1("memory/a", GB), **control})
    assert memory_group(root=root).oom_kills() == 3


@pytest.mark.parametrize("cgroup", ["", "nonsense\n", "4:memory\n", "0::/../../etc\n"])
def test_what_makes_no_sense(tree, cgroup):
    root = tree(cgroup, ["nonsense", "1 2 3 - cgroup2", V2.format(inside="/")], {"x": 1})
    assert memory_group(root=root) is None


def test_no_such_process(tmp_path):
    assert memory_group(root=tmp_path) is None
    assert cgroup_limit_bytes(root=tmp_path) is None
