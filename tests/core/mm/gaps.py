"""Threads between whose steps another comes by: at one moment, of all those at which this one is in no guard."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from headway.runtimes.threads import THREADS


class Gaps:
    """A runtime. At the `moment`-th look at a guard from outside of all, `act` is run to its end."""

    def __init__(self, moment: int) -> None:
        self.act: Callable[[], object] | None = None
        self.came = False
        self._left = moment
        self._depth = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(THREADS, name)

    def guard(self) -> Any:
        return _Guard(self)

    def gap(self) -> None:
        act = self.act
        if act is not None and not self._depth:
            self._left -= 1
            if self._left < 0:
                self.act, self.came = None, True
                act()


class _Guard:
    def __init__(self, of: Gaps) -> None:
        self._of = of
        self._lock = threading.Lock()

    def acquire(self, blocking: bool = True) -> bool:
        self._of.gap()
        got = self._lock.acquire(blocking, 5.0 if blocking else -1)
        assert got or not blocking, "it waits for itself"
        self._of._depth += got
        return got

    def release(self) -> None:
        self._of._depth -= 1
        self._lock.release()
        self._of.gap()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()


def moments(scene: Callable[[Gaps], None]) -> Iterator[int]:
    """Play `scene` with one moment after the other, until it ends before that moment."""
    moment, came = 0, True
    while came:
        gaps = Gaps(moment)
        scene(gaps)
        came = gaps.came
        yield moment
        moment += 1
