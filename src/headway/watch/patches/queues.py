"""queue: a queue from which elements are got and put back is a pool; any other is a road (`headway.watch.roads`).

Of what was got only as much is remembered as there ever was at once, and of one owner the last few.
"""

from __future__ import annotations

import queue
import sys
from _thread import get_ident
from collections.abc import Callable
from typing import Any

from headway.watch.alive import living
from headway.watch.classes import Pool
from headway.watch.ledger import Ledger
from headway.watch.patches import POOL, Patcher
from headway.watch.patches.carried import entered
from headway.watch.patches.loops import stops_loop
from headway.watch.places import QUIET, Place, near
from headway.watch.roads import SURE

MODULE = "queue"


def install(patcher: Patcher) -> None:
    ledger = patcher.ledger

    def init(original: Any) -> Any:
        def __init__(self: Any, maxsize: int = 0) -> None:
            original(self, maxsize)
            frame = sys._getframe(1)
            if not QUIET[frame.f_code.co_filename]:
                setattr(self, POOL, ledger.pool("queue", "queue", 1, made=near(frame), of=self))

        return __init__

    def get(original: Any) -> Any:
        def get(self: Any, block: bool = True, timeout: float | None = None) -> Any:
            pool = self._headway_pool
            if pool is None:
                return original(self, block, timeout)
            if not block:
                item = original(self, False)
                if not passes(ledger, pool):
                    ledger.grant(pool, item)
                return item
            if self.queue:
                item = original(self, True, timeout)
                if pool.cls.road.back or not passes(ledger, pool):
                    ledger.enter(pool, item)
                return item
            owner, frame = ledger.ask(pool, timeout is not None), sys._getframe(1)
            if not pool.cls.road.back:
                ledger.note_wait("queue.get()", timeout is not None, frame)
            stops_loop(ledger, "queue.get()", frame)
            wait = ledger.wait("queue", pool, timeout, owner=owner)
            with entered(ledger, wait):
                item = original(self, True, timeout)
            if not passes(ledger, pool):
                ledger.grant(pool, item, owner)
            return item

        return get

    def put(original: Any) -> Any:
        def put(self: Any, item: Any, block: bool = True, timeout: float | None = None) -> None:
            pool = self._headway_pool
            try:
                if pool is not None and not pool.cls.road.settled:
                    comes(ledger, pool, item, self, _size)
            finally:
                original(self, item, block, timeout)

        return put

    patcher.mark(queue.Queue)
    patcher.replace(queue.Queue, "__init__", init)
    patcher.replace(queue.Queue, "get", get)
    patcher.replace(queue.Queue, "put", put)
    patcher.replace(queue.Queue, "task_done", done)


def done(original: Any) -> Any:
    """What tells of jobs: who counts them does not put them back."""

    def task_done(self: Any) -> None:
        pool = self._headway_pool
        if pool is not None:
            pool.cls.road.settle()
        original(self)

    return task_done


def passes(ledger: Ledger, pool: Pool) -> bool:
    """Whether what was got just now is not worth remembering; then nothing is, any more."""
    road = pool.cls.road
    assert road is not None  # a queue has one
    if not road.passes():
        return False
    for one in living(road.pools) if pool.out else ():
        for holding in list(one.out):
            ledger.drop(holding)
    return True


def comes(ledger: Ledger, pool: Pool, item: Any, line: Any, size: Callable[[Any], int]) -> None:
    """An item is put: it comes back, if it was got and this pays it back. There are as many as there ever were."""
    out, road = pool.out, pool.cls.road
    assert road is not None
    if road.back >= SURE:
        for last in out[-1:]:  # mostly it is that, by whoever took it
            taker = last[1]
            if last[4] is item and (taker.key == get_ident() or taker is ledger.current()):
                road.back += 1
                ledger.give(last, taker)
                return
    owner = ledger.current()
    place: Place = ()
    if out:
        same = [holding for holding in out if holding[4] is item]
        holding = next((one for one in same if one[1] is owner), same[0] if same else None)
        if holding is not None:
            if road.back < SURE:
                place = near(sys._getframe(2))
            pays = road.pays_back(holding, owner, place)
            if pays is not False:
                if pays:
                    road.back += 1
                ledger.release(pool, item)
                return
            ledger.lose(holding)
        elif (mine := next((one for one in out if one[1] is owner), None)) is not None:
            ledger.drop(mine)  # in exchange, as of a connection that broke
    road.supplied(place or near(sys._getframe(2)), pool.listed)
    for spent in out[: max(0, len(out) - (pool.size or 0))]:  # more than there ever were
        ledger.lose(spent)
    most = size(line) + 1 + (len(out) if road.back > road.late else 0)
    if pool.size is None or most > pool.size:
        pool.size = most
        if pool.cls.size is None or pool.cls.size < most:
            pool.cls.size = most


def _size(line: Any) -> int:
    return int(line._qsize())  # qsize() takes the lock
