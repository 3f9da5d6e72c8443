"""Real memory: aligned, present, huge if the kernel gives that, lockable, and closed cleanly."""

from __future__ import annotations

import mmap
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from headway.edge import arena as edge
from headway.edge.arena import HUGE_BYTES, PAGE_BYTES, Arena
from headway.errors import NoMemory, PoolBusy, UsageError

linux = pytest.mark.skipif(sys.platform != "linux", reason="requires(Linux)")


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@pytest.mark.parametrize(
    "size_bytes", [PAGE_BYTES, 3 * PAGE_BYTES, HUGE_BYTES, 5 * HUGE_BYTES // 2]
)
def test_every_view_is_writable_contiguous_bytes_of_its_own_part(size_bytes: int) -> None:
    arena = Arena(size_bytes)
    view = arena.view(0, size_bytes)
    assert (view.format, view.readonly, view.c_contiguous) == ("B", False, True)
    assert len(view) == size_bytes
    view[-1] = 7
    last = arena.view(size_bytes - PAGE_BYTES, PAGE_BYTES)
    assert last[-1] == 7
    assert arena.address % (HUGE_BYTES if size_bytes >= HUGE_BYTES else PAGE_BYTES) == 0
    view.release()
    last.release()
    arena.close()


@linux
def test_pages_are_there_from_the_start() -> None:
    arena = Arena(8 << 20, huge=False)
    view = arena.view(0, arena.size_bytes)
    before = faults()
    for offset in range(0, len(view), PAGE_BYTES):
        view[offset] = 1
    assert faults() - before < 20, "2048 pages were written; the interpreter itself may fault a few"
    assert resident(arena) == arena.size_bytes
    view.release()
    arena.close()


@linux
def test_touching_by_hand_is_as_good_where_the_kernel_cannot_do_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(edge, "_POPULATE_WRITE", 9999)  # no such advice: what old kernels say
    arena = Arena(4 << 20, huge=False)
    assert resident(arena) == arena.size_bytes
    arena.close()


def resident(arena: Arena) -> int:
    """Bytes of the arena in memory, from smaps."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        field, *rest = line.split()
        if not field.endswith(":"):
            low, high = (int(end, 16) for end in field.split("-"))
            inside = low < arena.address + arena.size_bytes and high > arena.address
        elif inside and field == "Rss:":
            total += int(rest[0]) * 1024
    return min(total, arena.size_bytes)


@linux
def test_huge_pages_are_verified_and_not_assumed() -> None:
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not enabled.exists() or "[never]" in enabled.read_text():
        pytest.skip("requires(transparent huge pages)")
    asked, plain = Arena(8 << 20), Arena(8 << 20, huge=False)
    assert asked.huge_asked and not plain.huge_asked
    assert 0 <= asked.huge_bytes <= asked.size_bytes
    assert asked.huge_bytes % HUGE_BYTES == 0
    assert plain.huge_bytes == 0
    assert not Arena(PAGE_BYTES).huge_asked, "too small to hold one"
    asked.close()
    plain.close()


def test_smaps_is_read_as_the_kernel_writes_it() -> None:
    smaps = textwrap.dedent("""\
        7f0000000000-7f0000200000 rw-p 00000000 00:00 0
        Size:               2048 kB
        AnonHugePages:      2048 kB
        VmFlags: rd wr mr
        7f0000200000-7f0000400000 rw-p 00000000 00:00 0 [anon: other]
        AnonHugePages:      4096 kB
        ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
        AnonHugePages:      1024 kB
    """).encode()
    assert edge._anon_huge(smaps, 0x7F0000000000, 0x7F0000200000) == 2 << 20
    assert edge._anon_huge(smaps, 0x7F0000000000, 0x7F0000200001) == 6 << 20
    assert edge._anon_huge(smaps, 0x100000, 0x200000) == 0


@linux
def test_a_locked_arena_is_locked() -> None:
    if os.geteuid() and resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] < 1 << 20:
        pytest.skip("requires(RLIMIT_MEMLOCK of 1 MiB)")
    arena = Arena(1 << 20, lock=True)
    assert arena.locked
    status = Path("/proc/self/status").read_text()
    locked_kib = next(int(line.split()[1]) for line in status.splitlines() if "VmLck" in line)
    assert locked_kib >= 1024
    arena.close()


@linux
def test_a_refused_lock_names_the_limit_and_what_to_do() -> None:
    code = """
        import ctypes, os, resource
        from headway.edge.arena import Arena
        from headway.errors import NoMemory
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)  # a right to lock goes with root
        try:
            Arena(1 << 20, lock=True)
        except NoMemory as error:
            print(error)
    """
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "locking an arena of 1MiB" in out
    assert "RLIMIT_MEMLOCK is 64KiB" in out
    assert "lock=False" in out
    assert out.count("\n") == 1


def test_memory_that_cannot_be_mapped_is_no_memory() -> None:
    with pytest.raises(NoMemory, match="cannot be mapped"):
        Arena(1 << 60)


@pytest.mark.parametrize("size_bytes", [0, -PAGE_BYTES, PAGE_BYTES + 1, 100])
def test_sizes_are_whole_pages(size_bytes: int) -> None:
    with pytest.raises(UsageError, match="multiple"):
        Arena(size_bytes)


def test_closing_under_a_view_is_refused_and_the_arena_stays() -> None:
    arena = Arena(4 * PAGE_BYTES)
    view = arena.view(PAGE_BYTES, 10)
    with pytest.raises(PoolBusy, match="in use"):
        arena.close()
    view[0] = 5
    assert arena.view(PAGE_BYTES, 1)[0] == 5
    view.release()
    arena.close()
    assert repr(arena) == f"<Arena {4 * PAGE_BYTES >> 10}KiB, 0B on huge pages, not locked>"


@linux
def test_closing_gives_the_memory_back() -> None:
    def size_kib() -> int:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if "VmSize" in line)

    before = size_kib()
    arena = Arena(64 << 20)
    assert size_kib() - before >= 64 << 10
    arena.close()
    assert size_kib() - before < 16 << 10


def test_only_whole_huge_pages_are_asked_for_so_nothing_outside_is_touched() -> None:
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        pytest.skip("requires(MADV_HUGEPAGE)")
    arena = Arena(3 * HUGE_BYTES // 2)
    assert arena.huge_bytes <= HUGE_BYTES
    arena.close()
