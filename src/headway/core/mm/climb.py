"""The slow path of an allocation: climb the ladder, then wait; as one plan for every runtime.

It does not know what a thread or an event loop is. The story: try what the ladder says, in its order;
if there is nothing and the mask allows no waiting, None; else push out what the caller has queued
(R5: it may be what others wait for, or bring an element back), join the queue, and be handed what
was asked for. Whatever ends the wait early (a time limit, a cancellation, a closed pool), what was
handed over meanwhile goes on to the next in line.

Bound: with FIFO hand-over a waiter parks once, and is served by the first returns that nobody ahead
of it has a claim to; it climbs again only after a `kick`.

Source: Linux ``mm/mempool.c``, ``mempool_alloc`` and its bulk form; masks as there (`gfp.light`, `gfp.heavy`).
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

from headway.core.mm import gfp as masks
from headway.core.mm.gfp import Gfp
from headway.core.mm.ladder import HEAVY, LIGHT, RETRY_S, Step
from headway.core.mm.mempool import Mempool
from headway.core.plan import Park, Plan, Ticket, call, now, offload, park
from headway.errors import PoolTimeout

E = TypeVar("E")

KERNEL: Final = Gfp.KERNEL  # plain names: see `headway.core.mm.ladder`
DIRECT_RECLAIM: Final = int(Gfp.DIRECT_RECLAIM)
MAY_WAIT: Final = int(Gfp.DIRECT_RECLAIM | Gfp.NORETRY)  # the first, without the second


def alloc(
    pool: Mempool[E],
    gfp: Gfp,
    scope: int,
    who: str,
    count: int,
    timeout_s: float | None,
    light_tried: bool = False,
) -> Plan[list[E] | None]:
    """Take `count` elements, or None where the mask forbids waiting.

    Asks: Call (light try, unplug), Offload (heavy try), Now, Park.
    """
    if gfp is not KERNEL or timeout_s is not None:
        pool.check_ask(gfp, timeout_s)
    if pool.closed:
        raise pool.closed_error()
    mask = masks.restrict(gfp, scope)
    gives_up = "none" if int(mask) & MAY_WAIT != DIRECT_RECLAIM else "PoolTimeout"
    if timeout_s is None and gives_up != "none":
        gives_up = ""
    pool.tell("request", count, owner=who, mask=int(mask), gives_up=gives_up)
    steps = pool.first
    if light_tried:
        steps = tuple(step for step in steps if step is not LIGHT)
    made: list[E] = []
    news = pool.news
    wide = count > pool.min_count
    if wide:
        pool.announce(1)
    try:
        yield from _climb(pool, mask, scope, steps, made, count)
        if len(made) < count:
            if int(mask) & MAY_WAIT == MAY_WAIT:  # as a pool that stands on this one asks
                pool.refuse(made, count)
                while len(made) < count and news is not pool.news:  # kicked before it was published
                    news = pool.news
                    yield from _climb(pool, mask, scope, pool.again, made, count)
                if len(made) == count:
                    return pool.granted(made, who)
            if int(mask) & MAY_WAIT != DIRECT_RECLAIM:
                _put_back(pool, made)
                pool.tell("give_up", count, owner=who)
                return None
            yield from _wait(pool, mask, scope, who, made, count, timeout_s, news)
    except BaseException:
        _put_back(pool, made)
        pool.tell("give_up", count, owner=who)
        raise
    finally:
        if wide:
            pool.announce(-1)
    return pool.granted(made, who)


def line_up(pool: Mempool[E], who: str, count: int) -> Plan[list[E] | None]:
    """`alloc` where there is nothing to do but to wait: fixed elements, no limit, nobody to tell.

    The same as the general form below, step by step, without the tries that would find nothing. It is
    a second form of one wait, and stays because a busy pool spends its time on it: it takes 3.6 us where
    the general form takes 4.7 (Python 3.11). One conformance suite runs on both. Asks: Park.
    """
    start_s = pool.runtime.now()
    ticket = Ticket(who, count, start_s)
    pool.join(ticket)
    made: list[E] = []
    try:
        yield Park(ticket)
        while ticket.gift is None:  # kicked, or closed
            if pool.closed:
                raise pool.closed_error()
            fresh = Ticket(who, count, start_s)
            if pool.renew(ticket, fresh):
                ticket = fresh
                yield Park(ticket)
        pool.add_gift(made, ticket.take_gift())
    except BaseException:
        _put_back(pool, pool.leave(ticket) or [])
        raise
    finally:
        pool.waits += 1
        waited_s = pool.runtime.now() - start_s
        if waited_s > pool.longest_wait_s:
            pool.longest_wait_s = waited_s
    return pool.granted(made, who)


def _climb(
    pool: Mempool[E], mask: Gfp, scope: int, steps: tuple[Step, ...], made: list[E], count: int
) -> Plan[None]:
    """Add to `made` what the steps give. An allocator that raises is heard after the reserve was tried."""
    failure: Exception | None = None
    for step in steps:
        if step is LIGHT:
            while pool.light_door is not None and len(made) < count and not pool.fails():
                element = yield from call(pool.light_door, masks.light(mask), scope=scope)
                if element is None:
                    break
                made.append(element)
        elif step is HEAVY:
            try:
                yield from _try_hard(pool, mask, scope, made, count)
            except Exception as error:
                failure = error
        elif pool.reserve_count >= step.threshold(pool.min_count):
            made.extend(pool.take_reserve(count - len(made)) or ())
        if len(made) == count:
            return
    if failure is not None:
        failure.add_note(
            f"pool {pool.name!r}: the allocator raised this and the reserve has {pool.reserve_count} "
            f"of {pool.min_count}, {pool.outstanding} out"
        )
        raise failure


def _try_hard(pool: Mempool[E], mask: Gfp, scope: int, made: list[E], count: int) -> Plan[None]:
    if not mask.may_park:
        return
    while pool.heavy_door is not None and len(made) < count and not pool.fails():
        element = yield from offload(
            pool.heavy_door, masks.heavy(mask, scope), scope=scope, undo=pool.undo_alloc
        )
        if element is None:
            break
        made.append(element)


def _wait(
    pool: Mempool[E],
    mask: Gfp,
    scope: int,
    who: str,
    made: list[E],
    count: int,
    timeout_s: float | None,
    news: object,
) -> Plan[None]:
    """Park until `made` is complete. Nothing is held meanwhile that the reserve alone could serve."""
    start_s = yield from now()
    if pool.unplug is not None:
        yield from call(pool.unplug, scope=scope)
    ticket = _enter(pool, who, made, count, start_s)
    pool.join(ticket)
    try:
        while True:
            if news is pool.news:  # else somebody kicked since the backend was asked: ask again
                left_s = None
                if timeout_s is not None:
                    left_s = max(0.0, start_s + timeout_s - (yield from now()))
                retry = not pool.wake.hands_over and (left_s is None or left_s > RETRY_S)
                woken = yield from park(ticket, RETRY_S if retry else left_s)
                if not woken and not retry:
                    pool.add_gift(made, pool.leave(ticket))
                    if len(made) < count:
                        raise _timeout(pool, count, (yield from now()) - start_s)
            pool.add_gift(made, ticket.take_gift())
            if len(made) == count:
                return
            if pool.closed:
                raise pool.closed_error()
            news = pool.news
            yield from _climb(pool, mask, scope, pool.again, made, count)
            if len(made) == count:  # the next in line may be as lucky
                _put_back(pool, pool.leave(ticket) or [])
                if pool.wake.hands_over:
                    pool.kick()
                return
            fresh = _enter(pool, who, made, count, start_s)
            if not pool.renew(ticket, fresh):
                if ticket.gift is not None:  # handed over while the allocator was asked
                    pool.add_gift(made, ticket.take_gift())
                    _put_back(pool, made, keep=count)
                    return
                pool.join(fresh)
            ticket = fresh
    except BaseException:
        _put_back(pool, pool.leave(ticket) or [])
        raise
    finally:
        pool.waited(start_s)


def _enter(pool: Mempool[E], who: str, made: list[E], count: int, start_s: float) -> Ticket:
    """A ticket for what is missing; what was made goes back first, where the reserve can serve it all."""
    if count <= pool.min_count:
        _put_back(pool, made)
    return Ticket(who, count - len(made), start_s)


def _put_back(pool: Mempool[E], elements: list[E], keep: int = 0) -> None:
    while len(elements) > keep:
        pool.put_back(elements.pop())


def _timeout(pool: Mempool[Any], count: int, waited_s: float) -> PoolTimeout:
    pool.timeouts += 1
    return PoolTimeout(
        f"pool {pool.name!r}: waited {waited_s:.3f} s for {count} of {pool.min_count} elements; "
        f"{pool.outstanding} out, {pool.waiters} others waiting; {pool.say_holders()}",
        pool=pool.name,
        waited_s=waited_s,
        holders=pool.holders(),
    )
