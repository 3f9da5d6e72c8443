"""Pools to test: a backend that can be told to fail and writes down what it was asked."""

from __future__ import annotations

from typing import Any

from headway.core.mm.gfp import Gfp
from headway.threaded import Mempool
from tests.steps import Stepper, step


class Shelf:
    """A backend with `room` elements (None: any number); counts what is out, keeps every mask it saw."""

    def __init__(self, room: int | None = None) -> None:
        self.room = room
        self.made = 0
        self.out = 0
        self.asked: list[tuple[str, Gfp]] = []
        self.error: Exception | None = None

    def alloc(self, gfp: Gfp) -> str | None:
        self.asked.append(("heavy", gfp))
        if self.error is not None:
            raise self.error
        return self._take()

    def light(self, gfp: Gfp) -> str | None:
        self.asked.append(("light", gfp))
        return self._take()

    def _take(self) -> str | None:
        if self.room is not None and self.out >= self.room:
            return None
        self.out += 1
        self.made += 1
        return f"element {self.made}"

    def free(self, element: str) -> None:
        assert self.out > 0, "more came back than was ever given"
        self.out -= 1

    def shut(self) -> None:
        """Nothing more from here."""
        self.room = self.out
        self.asked.clear()


def shut_pool(min_count: int = 2, **options: Any) -> tuple[Mempool[str], Shelf]:
    """A full reserve over a backend that gives nothing more."""
    shelf = Shelf()
    pool: Mempool[str] = Mempool(shelf, min_count=min_count, **options)
    shelf.shut()
    return pool, shelf


def alloc(
    pool: Any,
    who: str = "a",
    count: int = 1,
    *,
    gfp: Gfp = Gfp.KERNEL,
    scope: int = 0,
    timeout_s: float | None = None,
) -> Stepper[list[Any] | None]:
    return step(pool.alloc_plan(gfp, scope, who, count, timeout_s))


def parked(pool: Any, who: str = "a", count: int = 1, **options: Any) -> Stepper[list[Any] | None]:
    """A request that waits."""
    stepper = alloc(pool, who, count, **options)
    stepper.to_park()
    return stepper
