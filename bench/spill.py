"""A mapping of four times its memory: SpillStore on a file, beside mappings that keep all on a file.

512 values of 64 KiB (32 MiB) are stored, then read in an order that is far from that of storing. Ours has a
zone of 8 MiB: three quarters of the values are on the swap at any time. `shelve` is Python's own, on what
`dbm` finds; `sqlite3` one table of blobs, one transaction, in its page cache of 8 MiB; *files* one file
for each value; `dict` has everything in memory, which is what the others do without. All files lie in memory
(tmpfs), and nobody syncs: so it is the cost of the mapping, and nothing about disks.

It does not show values that are used often (they stay in memory here), small values (a page each here, a
row there), or what is left after a crash: nothing here, for a swap is scratch; most of it there.
"""

from __future__ import annotations

import os
import shelve
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, MutableMapping
from contextlib import closing
from pathlib import Path
from typing import Any

import headway
from bench.measure import Row, compared, in_turn
from headway.spilling import SpillStore, Swap

NOTE = "on tmpfs, values of 64 KiB, nobody syncs"
VALUE, ZONE = 64 << 10, 8 << 20
COUNT = 4 * ZONE // VALUE


class _Files(MutableMapping[str, bytes]):
    """A file for each value."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def __getitem__(self, key: str) -> bytes:
        return (self._place / key).read_bytes()

    def __setitem__(self, key: str, value: bytes) -> None:
        (self._place / key).write_bytes(value)

    def __delitem__(self, key: str) -> None:
        (self._place / key).unlink()

    def __iter__(self) -> Any:
        return iter(os.listdir(self._place))

    def __len__(self) -> int:
        return len(os.listdir(self._place))


class _Table(_Files):
    """A table of blobs."""

    def __init__(self, path: Path) -> None:
        self._base = sqlite3.connect(path)
        self._base.execute(f"pragma cache_size = -{ZONE >> 10}")
        self._base.execute("pragma synchronous = off")
        self._base.execute("create table kept (key text primary key, value blob)")

    def __getitem__(self, key: str) -> bytes:
        found = self._base.execute("select value from kept where key = ?", (key,)).fetchone()
        return bytes(found[0])

    def __setitem__(self, key: str, value: bytes) -> None:
        self._base.execute("insert or replace into kept values (?, ?)", (key, value))

    def close(self) -> None:
        self._base.close()


def run(quick: bool) -> list[Row]:
    """Storing and loading, each with a fresh mapping every round."""
    memory = Path("/dev/shm")
    where = memory if memory.is_dir() else None
    count = 64 if quick else COUNT
    values = [os.urandom(VALUE) for _ in range(16)]
    makers: dict[str, Callable[[Path], Any]] = {
        "ours": _Spilled,
        "shelve": lambda place: closing(shelve.open(str(place / "shelf"))),
        "sqlite3": lambda place: closing(_Table(place / "table")),
        "a file each": _Plain,
        "dict": lambda place: _Held({}),
    }

    def timed(name: str) -> Callable[[], float]:
        def once() -> float:
            with tempfile.TemporaryDirectory(dir=where, prefix="headway-bench-") as directory:
                with makers[name](Path(directory)) as mapping:
                    began = time.perf_counter()
                    for number in range(count):
                        mapping[str(number)] = values[number % 16]
                    taken[name].append((time.perf_counter() - began) / count * 1e6)
                    began = time.perf_counter()
                    for number in range(count):
                        key = number * 197 % count
                        assert mapping[str(key)] == values[key % 16]
                    return (time.perf_counter() - began) / count * 1e6

        return once

    taken: dict[str, list[float]] = {name: [] for name in makers}
    loaded = in_turn({name: timed(name) for name in makers}, rounds=1 if quick else 9)
    return [
        compared(f"{what} a value of 64 KiB", found["ours"], "us", peer, found[peer], note=NOTE)
        for what, found in (("store", taken), ("load", loaded))
        for peer in makers
        if peer != "ours"
    ]


class _Held:
    """Something that needs no closing."""

    def __init__(self, mapping: Any) -> None:
        self._mapping = mapping

    def __enter__(self) -> Any:
        return self._mapping

    def __exit__(self, *exc: object) -> None:
        """Nothing to do."""


class _Plain(_Held):
    def __init__(self, place: Path) -> None:
        directory = place / "values"
        directory.mkdir()
        super().__init__(_Files(directory))
        self._directory = directory

    def __exit__(self, *exc: object) -> None:
        shutil.rmtree(self._directory)


class _Spilled(_Held):
    def __init__(self, place: Path) -> None:
        path = place / "swap"
        with path.open("wb") as file:
            file.truncate(2 * COUNT * VALUE)
        self._device = headway.open_device(str(path), writable=True)
        self._zone = headway.Zone(ZONE, min_free=0)
        self._store: Any = SpillStore(Swap(self._device, slot_size=VALUE), memory=self._zone)
        super().__init__(self._store)

    def __exit__(self, *exc: object) -> None:
        self._store.close()
        self._zone.close()
        self._device.close()
