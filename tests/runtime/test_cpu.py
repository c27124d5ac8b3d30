"""Cores and memory out of control-group files."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from openclaw.devices.cpu import (
    CgroupMount,
    cores_of,
    default_threads,
    group_folders,
    parse_cpu_max,
    parse_membership,
    parse_memory_limit,
    parse_mountinfo,
    read_grant,
)

V2_MOUNT = "30 23 0:26 {root} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup rw,nsdelegate"
V1_CPU = "33 32 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct"
V1_MEMORY = "34 32 0:30 /kubepods/pod1 /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory"


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_the_smallest_limit_of_a_v2_group_and_its_ancestors_counts(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/mountinfo": V2_MOUNT.format(root="/"),
            "proc/self/cgroup": "0::/kubepods/pod1/server\n",
            "sys/fs/cgroup/cpu.max": "max 100000\n",
            "sys/fs/cgroup/kubepods/pod1/cpu.max": "50000 100000\n",
            "sys/fs/cgroup/kubepods/pod1/memory.max": "1073741824\n",
            "sys/fs/cgroup/kubepods/pod1/server/cpu.max": "max 100000\n",
            "sys/fs/cgroup/kubepods/pod1/server/memory.max": "2147483648\n",
        },
    )
    grant = read_grant(tmp_path)
    assert (grant.cores, grant.memory_bytes) == (0.5, 2**30)


def test_v1_limits_are_read_also_where_the_group_is_not_visible(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/mountinfo": f"{V1_CPU}\n{V1_MEMORY}\nnot a mount\n",
            "proc/self/cgroup": "5:cpu,cpuacct:/outside\n6:memory:/kubepods/pod1/server\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "75000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/server/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912",
        },
    )
    grant = read_grant(tmp_path)
    assert (grant.cores, grant.memory_bytes) == (0.75, 2**29)


def test_without_any_file_there_is_no_limit_but_the_affinity(tmp_path: Path) -> None:
    grant = read_grant(tmp_path)
    assert grant.cores >= 1
    assert grant.memory_bytes is None


def test_this_machine_can_be_read() -> None:
    grant = read_grant()
    assert grant.cores > 0
    assert grant.memory_bytes is None or grant.memory_bytes > 2**20


def test_a_group_above_the_mount_is_looked_for_at_the_mount() -> None:
    point = PurePosixPath("/sys/fs/cgroup")
    mount = CgroupMount(PurePosixPath("/docker/abc"), point, frozenset(), 2)
    assert group_folders(mount, PurePosixPath("/")) == [point]
    assert group_folders(mount, PurePosixPath("/docker/abc/x")) == [point / "x", point]
    assert group_folders(mount, PurePosixPath("/docker/abc/../../..")) == [point]


@given(st.integers(1, 10**9), st.integers(1, 10**6))
def test_a_quota_is_its_share_of_the_period(quota: int, period: int) -> None:
    assert parse_cpu_max(f"{quota} {period}\n") == quota / period == cores_of(str(quota), str(period))


@given(st.text())
def test_unreadable_text_sets_no_limit_or_a_positive_one(text: str) -> None:
    for limit in (parse_cpu_max(text), parse_memory_limit(text), cores_of(text, text)):
        assert limit is None or limit > 0
    assert isinstance(parse_mountinfo(text), list)
    assert isinstance(parse_membership(text), dict)


@given(st.floats(0.01, 512), st.integers(1, 64))
def test_workers_never_get_more_threads_than_cores_and_at_least_one(cores: float, workers: int) -> None:
    threads = default_threads(cores, workers)
    assert threads >= 1
    assert threads == 1 or threads * workers <= cores
