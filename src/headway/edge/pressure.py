"""How much memory this process may still use, as those see it who would kill it: cgroups and the system.

It decides nothing about giving way (`headway.core.mm.balloon` does) and watches nothing
(`headway.edge.pressure_signal` does). It reads one snapshot: the limits of the process's memory group
and of all groups above it, and what in each of them cannot simply be dropped.

What is compared with a limit is never ``memory.current``: that counts page cache, which the kernel
drops before it kills, so it stands at 99% in a healthy container. It is what the kernel would have to
swap or kill for: anonymous bytes, shared memory, and the kernel's own unreclaimable ones.

Every group up to the root of the mount can be the tightest: the headroom is the least over all levels,
and over what the system has available. `root` is the root of the file system to look in, so that a
tree written for a test is read the same way as the machine's.

Bound: three small files a level, at most one level per part of the group's path.

Source: Linux ``Documentation/admin-guide/cgroup-v2.rst`` and ``cgroup-v1/memory.rst``; apache
datafusion-comet #4576, a guard on ``memory.current`` that was thrown away.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final, final

from headway.core.units import format_size

_NO_LIMIT: Final = 1 << 62  # version 1 has no word for it, but a number near 2**63
_KERNEL_V2: Final = ("kernel_stack", "pagetables", "percpu", "sock", "slab_unreclaimable")


@final
@dataclass(frozen=True, slots=True)
class Level:
    """One group, or the system. Units: bytes."""

    name: str
    limit: int | None
    charged: int  # everything, with page cache: to be shown, never to be judged by
    anonymous: int  # with shared memory, which cannot be dropped either
    unreclaimable: int  # with what the kernel holds for it

    @property
    def headroom(self) -> int | None:
        """What may still be used before the limit; negative if it is passed; None if there is none."""
        return None if self.limit is None else self.limit - self.unreclaimable


@final
@dataclass(frozen=True, slots=True)
class Memory:
    """A snapshot: the levels, innermost first, the system last if it can tell."""

    version: int  # of the cgroups that were found: 1, 2, or 0 for none
    levels: tuple[Level, ...]

    @property
    def tightest(self) -> Level | None:
        """The level with the least headroom; None if nothing is limited."""
        limited = [level for level in self.levels if level.limit is not None]
        return min(limited, key=lambda level: level.headroom or 0, default=None)

    @property
    def headroom(self) -> int | None:
        """What may still be used before somebody is killed. Units: bytes; None if nobody can tell."""
        tightest = self.tightest
        return None if tightest is None else tightest.headroom

    @property
    def limit(self) -> int | None:
        """The least limit of all levels. Units: bytes. What a program may size itself by."""
        limits = [level.limit for level in self.levels if level.limit is not None]
        return min(limits, default=None)

    def __str__(self) -> str:
        tightest = self.tightest
        if tightest is None or tightest.limit is None or tightest.headroom is None:
            return "no memory limit was found"
        return (
            f"{format_size(max(tightest.headroom, 0))} of {format_size(tightest.limit)} left in "
            f"{tightest.name}: {format_size(tightest.anonymous)} anonymous, "
            f"{format_size(tightest.charged)} charged with page cache"
        )


@final
@dataclass(frozen=True, slots=True)
class Group:
    """Where the memory group of this process is: `path` in the file system, below `top`."""

    version: int
    path: str
    top: str

    def upwards(self) -> tuple[str, ...]:
        """The directories from the group's own up to the mount's."""
        found, path = [self.path], self.path
        while path != self.top:
            path = os.path.dirname(path)
            found.append(path)
        return tuple(found)


def find_group(root: str | os.PathLike[str] = "/") -> Group | None:
    """The memory group of this process, or None where there are no cgroups (or no Linux).

    With both versions mounted, the one that has the memory controller counts.
    """
    v1 = v2 = None
    for line in _lines(root, "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            v1 = path
        elif number == "0" and not controllers:
            v2 = path
    if v1 is not None:
        return _placed(root, 1, v1)
    return None if v2 is None else _placed(root, 2, v2)


def read_memory(root: str | os.PathLike[str] = "/") -> Memory:
    """A snapshot of what this process may use. Waits: never. Raises: nothing; what cannot be read is left out."""
    group = find_group(root)
    levels = []
    if group is not None:
        read = _level_v1 if group.version == 1 else _level_v2
        for path in group.upwards():
            level = read(path, os.path.relpath(path, group.top))
            if level is not None:
                levels.append(level)
    system = _system(root)
    if system is not None:
        levels.append(system)
    return Memory(0 if group is None else group.version, tuple(levels))


def pressure_files(root: str | os.PathLike[str] = "/") -> tuple[str, ...]:
    """Where the kernel tells stalls (PSI), the most telling first: the group's own, then the system's."""
    files = []
    group = find_group(root)
    if group is not None and group.version == 2:
        files.append(os.path.join(group.path, "memory.pressure"))
    files.append(os.path.join(root, "proc/pressure/memory"))
    return tuple(path for path in files if os.path.exists(path))


def stalled_us(path: str) -> int | None:
    """For how long in all some task has waited for memory, by a PSI file. Units: microseconds."""
    for line in _read(path).splitlines():
        kind, *fields = line.split()
        for field in fields:
            name, _, number = field.partition("=")
            if kind == "some" and name == "total" and number.isdigit():
                return int(number)
    return None


# -- places --------------------------------------------------------------------------------------------


def _placed(root: str | os.PathLike[str], version: int, path: str) -> Group | None:
    """Join a group's path to where its hierarchy is mounted."""
    top, base = _mounted(root, version)
    inner = os.path.relpath(path, base)
    if inner.startswith(".."):  # mounted for another namespace: the mount is all that we can see
        inner = "."
    while True:
        found = os.path.normpath(os.path.join(top, inner))
        if os.path.isdir(found):
            return Group(version, found, top)
        if inner in ("", "."):
            return None
        inner = os.path.dirname(inner) or "."  # gone, or hidden: what is above it still counts


def _mounted(root: str | os.PathLike[str], version: int) -> tuple[str, str]:
    """Where the hierarchy is mounted, and which of its groups the mount shows."""
    for line in _lines(root, "proc/self/mountinfo"):
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.partition(" ")
        if kind == ("cgroup" if version == 1 else "cgroup2"):
            if version == 2 or "memory" in options.split(" ")[-1].split(","):
                base, point = fields.split()[3:5]
                return _inside(root, point), base
    return _inside(root, "/sys/fs/cgroup/memory" if version == 1 else "/sys/fs/cgroup"), "/"


def _inside(root: str | os.PathLike[str], path: str) -> str:
    return os.path.normpath(os.path.join(root, path.lstrip("/")))


# -- levels --------------------------------------------------------------------------------------------


def _level_v2(path: str, name: str) -> Level | None:
    """None for the root group, which has no limit and no figures of its own."""
    stat = _fields(os.path.join(path, "memory.stat"))
    charged = _number(os.path.join(path, "memory.current"))
    if not stat or charged is None:
        return None
    limits = [
        number
        for file in ("memory.max", "memory.high")
        if (number := _number(os.path.join(path, file))) is not None
    ]
    anonymous = stat.get("anon", 0) + stat.get("shmem", 0)
    kernel = sum(stat.get(field, 0) for field in _KERNEL_V2)
    return Level(f"group {name}", min(limits, default=None), charged, anonymous, anonymous + kernel)


def _level_v1(path: str, name: str) -> Level | None:
    stat = _fields(os.path.join(path, "memory.stat"))
    charged = _number(os.path.join(path, "memory.usage_in_bytes"))
    if not stat or charged is None:
        return None
    limit = _number(os.path.join(path, "memory.limit_in_bytes"))
    if limit is not None and limit >= _NO_LIMIT:
        limit = None
    # With the groups below it where they are counted ("total_"); `rss` is anonymous memory only.
    anonymous = sum(stat.get("total_" + field, stat.get(field, 0)) for field in ("rss", "shmem"))
    return Level(f"group {name}", limit, charged, anonymous, anonymous)


def _system(root: str | os.PathLike[str]) -> Level | None:
    found = _fields(os.path.join(root, "proc/meminfo"))
    total, available = found.get("MemTotal:"), found.get("MemAvailable:")
    if total is None or available is None:
        return None
    free = found.get("MemFree:", 0)
    anonymous = found.get("AnonPages:", 0) + found.get("Shmem:", 0)
    kib = 1024
    return Level(
        "the system", total * kib, (total - free) * kib, anonymous * kib, (total - available) * kib
    )


# -- files ---------------------------------------------------------------------------------------------


def _read(path: str) -> str:
    """The file's text; empty if it is not there, or not ours to read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _lines(root: str | os.PathLike[str], path: str) -> list[str]:
    return _read(os.path.join(root, path)).splitlines()


def _number(path: str) -> int | None:
    """A file of one number; None for ``max``, and for what is not there."""
    text = _read(path).strip()
    return int(text) if text.lstrip("-").isdigit() and not text.startswith("-") else None


def _fields(path: str) -> dict[str, int]:
    """A file of names and numbers, one of each in a line (a unit may follow)."""
    found = {}
    for line in _read(path).splitlines():
        name, *rest = line.split()[:2] or [""]
        if rest and rest[0].isdigit():
            found[name] = int(rest[0])
    return found
