"""What this process may use, read from trees of cgroups v1 and v2 and from the machine's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headway.core.units import parse_size
from headway.edge.pressure import find_group, pressure_files, read_memory, stalled_us

MEMINFO = "MemTotal: 16777216 kB\nMemFree: 1048576 kB\nMemAvailable: 8388608 kB\nAnonPages: 4194304 kB\nShmem: 0 kB\n"
PSI = "some avg10=0.00 avg60=0.00 avg300=0.00 total={}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"


def mib(count: float) -> int:
    return int(count * (1 << 20))


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v2(root: Path, *, cgroup: str = "0::/pod/job\n") -> Path:
    """A pod of 1 GiB, and in it a job of 512 MiB full of page cache."""
    group = "sys/fs/cgroup/pod/job/"
    return write(
        root,
        {
            "proc/self/cgroup": cgroup,
            "proc/self/mountinfo": "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n",
            "proc/meminfo": MEMINFO,
            "sys/fs/cgroup/memory.stat": "anon 1\n",
            "sys/fs/cgroup/pod/memory.max": f"{mib(1024)}\n",
            "sys/fs/cgroup/pod/memory.high": "max\n",
            "sys/fs/cgroup/pod/memory.current": f"{mib(700)}\n",
            "sys/fs/cgroup/pod/memory.stat": f"anon {mib(300)}\nfile {mib(400)}\nshmem 0\n",
            group + "memory.max": f"{mib(512)}\n",
            group + "memory.high": "max\n",
            group + "memory.current": f"{mib(511.9)}\n",
            group + "memory.stat": f"anon {mib(200)}\nfile {mib(300)}\nshmem {mib(40)}\n"
            f"kernel_stack 4096\nslab_unreclaimable {mib(10)}\nslab_reclaimable {mib(50)}\n",
            group + "memory.pressure": PSI.format(1000),
        },
    )


def v1(root: Path, *, limit: int = 256 << 20) -> Path:
    group = "sys/fs/cgroup/memory/pod/"
    nothing = f"{(1 << 63) - 4096}\n"
    return write(
        root,
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/pod/job\n0::/elsewhere\n",
            "proc/self/mountinfo": "31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
            "proc/meminfo": MEMINFO,
            group + "memory.limit_in_bytes": f"{limit}\n",
            group + "memory.usage_in_bytes": f"{mib(255)}\n",
            group
            + "memory.stat": f"rss 1\ntotal_rss {mib(100)}\ntotal_shmem {mib(6)}\ntotal_cache {mib(149)}\n",
            group + "job/memory.limit_in_bytes": nothing,
            group + "job/memory.usage_in_bytes": f"{mib(200)}\n",
            group + "job/memory.stat": f"rss {mib(90)}\ncache {mib(110)}\n",
        },
    )


def test_v2_compares_what_cannot_be_dropped_and_not_what_is_charged(tmp_path: Path) -> None:
    memory = read_memory(v2(tmp_path))
    assert memory.version == 2
    assert [level.name for level in memory.levels] == ["group pod/job", "group pod", "the system"]
    job = memory.levels[0]
    assert job.charged == mib(511.9), "a gauge of that alone would say: nothing is left"
    assert job.anonymous == mib(240) and job.unreclaimable == mib(250) + 4096
    assert memory.headroom == mib(262) - 4096 and memory.limit == mib(512)
    assert str(memory).startswith("261.9MiB of 512MiB left in group pod/job: 240MiB anonymous")


def test_v2_a_group_above_may_be_the_tightest(tmp_path: Path) -> None:
    root = v2(tmp_path)
    write(root, {"sys/fs/cgroup/pod/memory.stat": f"anon {mib(1000)}\n"})
    memory = read_memory(root)
    assert memory.tightest is not None and memory.tightest.name == "group pod"
    assert memory.headroom == mib(24) and memory.limit == mib(512)


def test_v2_high_is_a_limit_too(tmp_path: Path) -> None:
    root = write(v2(tmp_path), {"sys/fs/cgroup/pod/job/memory.high": f"{mib(260)}\n"})
    assert read_memory(root).limit == mib(260)
    assert read_memory(root).headroom == mib(10) - 4096


def test_v2_in_a_namespace_the_mount_is_all_there_is_to_see(tmp_path: Path) -> None:
    root = v2(tmp_path, cgroup="0::/../../elsewhere\n")
    group = find_group(root)
    assert group is not None and group.path == group.top == str(root / "sys/fs/cgroup")


def test_v2_a_mount_that_shows_a_part(tmp_path: Path) -> None:
    root = v2(tmp_path, cgroup="0::/host/pod/job\n")
    mount = "30 24 0:26 /host /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
    group = find_group(write(root, {"proc/self/mountinfo": mount}))
    assert group is not None and group.path.endswith("/sys/fs/cgroup/pod/job")


def test_v2_a_group_that_is_gone_leaves_those_above(tmp_path: Path) -> None:
    root = v2(tmp_path, cgroup="0::/pod/gone\n")
    assert read_memory(root).levels[0].name == "group pod"


def test_v1_counts_the_groups_below_and_knows_its_word_for_no_limit(tmp_path: Path) -> None:
    memory = read_memory(v1(tmp_path))
    assert memory.version == 1
    job, pod, system = memory.levels
    assert job.limit is None and job.anonymous == mib(90) and job.headroom is None
    assert pod.limit == mib(256) and pod.anonymous == mib(106), "total_rss and total_shmem"
    assert memory.headroom == mib(150) and system.limit == mib(16384)


def test_v1_comes_before_v2_if_it_has_the_controller(tmp_path: Path) -> None:
    group = find_group(v1(tmp_path))
    assert group is not None and group.version == 1


def test_without_groups_the_system_is_asked(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/meminfo": MEMINFO})
    memory = read_memory(root)
    assert (memory.version, memory.headroom, memory.limit) == (0, mib(8192), mib(16384))


def test_where_nothing_can_be_read_nothing_is_claimed(tmp_path: Path) -> None:
    memory = read_memory(tmp_path)
    assert (memory.levels, memory.headroom, memory.limit) == ((), None, None)
    assert str(memory) == "no memory limit was found"


@pytest.mark.parametrize("text", ["", "max\n", "nonsense\n", "-1\n"])
def test_odd_limits_are_no_limits(tmp_path: Path, text: str) -> None:
    root = write(v2(tmp_path), {"sys/fs/cgroup/pod/job/memory.max": text})
    assert read_memory(root).levels[0].limit is None


def test_stalls(tmp_path: Path) -> None:
    root = v2(tmp_path)
    assert pressure_files(root) == (str(root / "sys/fs/cgroup/pod/job/memory.pressure"),)
    assert stalled_us(pressure_files(root)[0]) == 1000
    write(root, {"proc/pressure/memory": PSI.format(5)})
    assert len(pressure_files(root)) == 2
    assert stalled_us(str(root / "proc/meminfo")) is None and stalled_us("/nowhere") is None


@pytest.mark.skipif(not os.path.exists("/proc/meminfo"), reason="this system has no /proc")
def test_the_machine_s_own() -> None:
    memory = read_memory()
    limit, headroom = memory.limit, memory.headroom
    assert limit is not None and headroom is not None
    assert headroom <= limit <= parse_size("1TiB", "memory") * 64
    assert memory.levels[-1].name == "the system"
    assert memory.levels[-1].anonymous > 0
