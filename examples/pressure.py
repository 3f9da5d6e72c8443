"""A program that fills its caches past a hard memory limit, and lives: python examples/pressure.py

It serves pictures, and caches each; there are far more than fit. A real process runs it under a real
limit, once with a plain dictionary, once with headway: a zone, a cache that gives way, a pool of buffers
to work in. The first is killed, or fails. The second must end alive, with every answer right.

The limit is a memory group (cgroup) if there is one that is ours to divide: handed to us by systemd
(``systemd-run --user --scope -p Delegate=yes python examples/pressure.py``), the whole of a container,
or named (``--group PATH``). Groups of others are left alone: each has one owner. Else it is a limit on
the process's addresses, which every Unix has. Where there is neither, it says so and does nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import headway as hw
from headway.edge.pressure import Group, find_group

MIB = 1 << 20
PICTURE = 512 << 10
KEYS, REQUESTS = 1200, 3000
DISTINCT_MIB = KEYS * PICTURE // MIB
ZONE = "96MiB"
GROUP_LIMIT = 256 * MIB
ADDRESS_LIMIT = 448 * MIB  # of which the interpreter, its threads and its libraries want a part
DEADLINE_S = 120


# -- the program: the same twice, but for where it keeps things ----------------------------------------


def picture(key: int) -> bytes:
    """The answer to a request: half a MiB that costs some work to have again."""
    return hashlib.blake2b(b"%d" % key).digest() * (PICTURE // 64)


def requests() -> Iterator[int]:
    """Every picture once, in between and afterwards favourites again and again; always the same."""
    chance = random.Random(2001)
    every = iter(range(KEYS))
    for number in range(REQUESTS):
        fresh = next(every, None) if number % 2 == 0 else None
        yield fresh if fresh is not None else min(int(chance.expovariate(8 / KEYS)), KEYS - 1)


def serve(answer: Callable[[int], bytes]) -> dict[str, Any]:
    """All requests; what was answered, as one checksum."""
    check, done = 0, 0
    for key in requests():
        check = zlib.crc32(answer(key), check)
        done += 1
        if done % 100 == 0:
            print(done, file=sys.stderr, flush=True)  # how far it came, if it is killed
    return {"answers": done, "check": check}


def plain() -> dict[str, Any]:
    """As everybody writes it."""
    cache: dict[int, bytes] = {}

    def answer(key: int) -> bytes:
        found = cache.get(key)
        if found is None:
            found = cache[key] = picture(key)
        return found

    return serve(answer)


def with_headway() -> dict[str, Any]:
    """With a zone: the cache is charged to it, the pool stands on it, and outside pressure reaches it."""
    with hw.Zone(ZONE, name="pictures") as zone, hw.Relief(zone, look_s=0.05) as relief:
        cache: hw.ShrinkableCache[int, bytes] = hw.ShrinkableCache(zone, cost=len)
        frames: hw.Mempool[memoryview] = hw.Mempool(zone.buffers("1MiB"), min_count=4)

        def answer(key: int) -> bytes:
            found = cache.get(key)
            if found is None:
                with frames.lease() as frame:  # where the picture is made; waits if it must
                    frame[:PICTURE] = picture(key)
                    found = cache[key] = bytes(frame[:PICTURE])
            return found

        done = serve(answer)
        stats, given = cache.stats(), relief.stats().given
        done |= {"dropped": stats.evicted, "cached": stats.used, "given_back": given}
        frames.close()
        return done


# -- the limit ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limit:
    what: str
    size: int
    group: str | None = None  # a group that was made for this


def set_up(under: str, named: str | None) -> tuple[Limit | None, str]:
    """A limit that can be set here, and why it is not a better one."""
    why = "not asked for"
    if under in ("auto", "cgroup"):
        group, why = make_group(named)
        if group is not None:
            return Limit("a memory group", GROUP_LIMIT, group), ""
    if under in ("auto", "address-space"):
        try:
            import resource
        except ImportError:
            return None, f"{why}; and this system has no limit on addresses"
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        if hard in (resource.RLIM_INFINITY,) or hard >= ADDRESS_LIMIT:
            return Limit("addresses", ADDRESS_LIMIT), why
        why += f"; and addresses are limited to {hard // MIB} MiB already"
    return None, why


def make_group(named: str | None) -> tuple[str | None, str]:
    """A group below one of ours, with its limit set; or why not."""
    group = find_group() if named is None else Group(_version(named), named, named)
    if group is None:
        return None, "there are no memory groups here"
    if named is None and not is_ours(group):
        return (
            None,
            "this process's memory group was not handed to us, and groups of others are left alone; "
            "--group names one that is ours",
        )
    path = os.path.join(group.path, f"headway-pressure-{os.getpid()}")
    limit = "memory.max" if group.version == 2 else "memory.limit_in_bytes"
    try:
        os.mkdir(path)
        try:
            if group.version == 2 and not os.path.exists(os.path.join(path, limit)):
                write(os.path.join(group.path, "cgroup.subtree_control"), "+memory")
            write(os.path.join(path, limit), str(GROUP_LIMIT))
            for swap in (
                "memory.swap.max",
                "memory.memsw.limit_in_bytes",
            ):  # else it slows, not ends
                if os.path.exists(os.path.join(path, swap)):
                    write(os.path.join(path, swap), "0" if group.version == 2 else str(GROUP_LIMIT))
        except OSError:
            os.rmdir(path)
            raise
    except OSError as error:
        return None, f"no memory group can be made below {group.path}: {error.strerror}"
    return path, ""


def _version(path: str) -> int:
    return 2 if os.path.exists(os.path.join(path, "cgroup.controllers")) else 1


def is_ours(group: Group) -> bool:
    """Handed over by systemd (it marks what it delegates), or all there is, with no systemd above."""
    for mark in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError, AttributeError):
            if os.getxattr(group.path, mark) == b"1":
                return True
    return group.path == group.top and not os.path.isdir("/run/systemd/system")


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def remove(group: str) -> None:
    for _ in range(100):  # the kernel takes a moment to forget who was in it
        with contextlib.suppress(OSError):
            os.rmdir(group)
            return
        time.sleep(0.05)
    print(f"left behind, remove it by hand: rmdir {group}")


# -- the two runs -------------------------------------------------------------------------------------


def confine(group: str | None) -> None:
    """In the child, before anything else: under the limit, and gone with the parent."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if group is not None:
        write(os.path.join(group, "cgroup.procs"), str(os.getpid()))
        return
    import resource

    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_LIMIT, hard))


def run(way: str, limit: Limit) -> tuple[dict[str, Any] | None, str]:
    """The program as a process of its own under the limit: what it answered, or None, and how it ended."""
    command = [sys.executable, os.path.abspath(__file__), "--as", way]
    if limit.group is not None:
        command += ["--join", limit.group]
    environment = {**os.environ, "PYTHONMALLOC": "malloc", "MALLOC_ARENA_MAX": "2"}
    with tempfile.TemporaryFile("w+") as said:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=said, text=True, timeout=DEADLINE_S,
            env=environment, check=False,
        )  # fmt: skip
        said.seek(0)
        lines = said.read().splitlines()
    if done.returncode == 0:
        answered: dict[str, Any] = json.loads(done.stdout)
        return answered, "ended alive"
    reached = max((int(line) for line in lines if line.isdigit()), default=0)
    last = lines[-1] if lines and not lines[-1].isdigit() else ""
    if done.returncode < 0:
        how = f"killed ({signal.Signals(-done.returncode).name})"
    else:
        how = f"failed with {last or f'status {done.returncode}'}"
    return None, f"{how} after {reached} answers"


def right() -> int:
    """The checksum of all answers, with nothing kept."""
    check = 0
    for key in requests():
        check = zlib.crc32(picture(key), check)
    return check


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--under", choices=["auto", "cgroup", "address-space"], default="auto")
    parser.add_argument("--group", metavar="PATH", help="a memory group that is ours to divide")
    parser.add_argument("--as", dest="way", choices=["plain", "headway"], help=argparse.SUPPRESS)
    parser.add_argument("--join", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.way is not None:
        confine(chosen.join)
        print(json.dumps(plain() if chosen.way == "plain" else with_headway()))
        return 0
    limit, why = set_up(chosen.under, chosen.group)
    if limit is None:
        print(f"skipped: no limit can be set here: {why}")
        return 0
    try:
        return show(limit, why)
    finally:
        if limit.group is not None:
            remove(limit.group)


def show(limit: Limit, why: str) -> int:
    print(f"the limit: {limit.size // MIB} MiB of {limit.what}" + (f" ({why})" if why else ""))
    print(f"the work: {REQUESTS} requests for {KEYS} pictures, {DISTINCT_MIB} MiB if all are kept")
    found, how = run("plain", limit)
    print(f"with a dictionary: {how}")
    if found is not None:
        print("the limit was not met, so this shows nothing")
        return 1
    found, how = run("headway", limit)
    print(f"with headway: {how}")
    if found is None:
        return 1
    good = found["answers"] == REQUESTS and found["check"] == right()
    print(
        f"  {found['answers']} answers, {'all right' if good else 'NOT ALL RIGHT'}; "
        f"{found['cached'] // MIB} MiB cached at the end, {found['dropped']} pictures dropped on the way, "
        f"{found['given_back'] // MIB} MiB of the zone given to the system"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
