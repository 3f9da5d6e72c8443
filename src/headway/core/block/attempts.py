"""Memory for one more buffer: which attempts are made, in which order, and how often.

It does not know what the buffer is for. The order: NOWAIT; once, with no lock held, NOIO; the reserve;
evict a clean buffer; write a dirty one and evict it; wait. After a wait there is no second NOIO try:
what was released is received by the one who waited, and asking the allocator first would let another
take it. A prefetch ends after NOWAIT.

Where others wait already, a newcomer goes behind them after NOIO; so the reserve and what is evicted
go in order of arrival. Who waits publishes that first, then looks once more, since a release that sees
nobody waiting does nothing.

Whatever `take` answers, the caller looks its block up again: it may have appeared meanwhile.

Bound: each attempt is made once before the first wait; a wait ends with the first buffer that is
released, or whose transfer ends, and that nobody ahead has a claim to.

Source: Linux ``drivers/md/dm-bufio.c`` (``__alloc_buffer_wait_no_callback``, 6.12). Departures: nothing is
allocated or written under the lock; FIFO hand-over in place of a wake-up for all and a wait of 5 s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headway.core.block import writeback
from headway.core.block.blocks import Blocks
from headway.core.block.buffer import Buffer
from headway.core.block.supply import Supply
from headway.core.plan import Plan, Ticket, park


def take(cache: Blocks, *, prefetch: bool = False) -> Plan[Any]:
    """A frame for one more buffer; for a prefetch None if there is none at once.

    Waits: until a buffer is released or written; not for a prefetch. Asks: Call, Offload, Park, and
    what writing asks. Raises: PoolClosed.
    """
    supply = cache.supply
    cache.tell("nowait")
    frame = supply.took((yield supply.light_try))
    if frame is not None or prefetch:
        return frame
    cache.tell("noio")
    try:
        frame = supply.took((yield supply.heavy_try))
    except Exception:  # an allocator that fails in its own way has no memory for us
        frame = None
    if frame is not None:
        return frame
    who = ""
    while True:
        with supply.guard:
            found = None if supply.queue else _look(cache, cache.tell)
        if found is None or isinstance(found, Buffer):
            who = who or cache.runtime.owner()
        if found is None:
            found = yield from _wait(cache, who)
        if not isinstance(found, Buffer):
            return found
        # Written, unless somebody else did; then taken.
        frame = yield from writeback.clean(cache, found, who)
        if frame is not None:
            return frame


def _look(cache: Blocks, tell: Callable[[str], None]) -> Any:
    """A frame; or a dirty buffer, claimed, which must be written first; or None. Under the guard."""
    tell("reserve")
    frame = cache.supply.take_reserve()
    if frame is None:
        tell("clean")
        frame = cache.take_clean()
    if frame is not None:
        return frame
    tell("dirty")
    return cache.claim_dirty()


def _wait(cache: Blocks, who: str) -> Plan[Any]:
    """Join the queue, look once more, and park until something is handed over."""
    supply = cache.supply
    ticket = Ticket(who)
    with supply.guard:
        if cache.closed:
            raise cache.closed_error()
        first = not supply.queue
        supply.queue.join(ticket)
        supply.look_around()
        found = _look(cache, _silent) if first else None
        if found is not None:
            _leave(supply, ticket)
            return found
    supply.waits += 1
    cache.tell("wait")
    try:
        while True:
            yield from park(ticket)
            with supply.guard:  # a fresh ticket first: a kick after the next try must find one
                gift = ticket.take_gift()
                if gift is None:
                    if cache.closed:
                        raise cache.closed_error()
                    fresh = Ticket(who)
                    supply.queue.renew(ticket, fresh)
                    ticket = fresh
            if gift is not None:
                return gift[0]
            # The memory has some again, for the first in line.
            frame = supply.took((yield supply.light_try))
            if frame is not None:
                _hand_on(cache, ticket)
                return frame
    except BaseException:
        _hand_on(cache, ticket)
        raise


def _silent(attempt: str) -> None:
    """The look after publishing is the same attempt."""


def _leave(supply: Supply, ticket: Ticket) -> list[Any] | None:
    gift = supply.queue.leave(ticket)
    supply.look_around()
    return gift


def _hand_on(cache: Blocks, ticket: Ticket) -> None:
    """Stop waiting; what was handed over goes to the next, who also hears that there may be more."""
    supply = cache.supply
    with supply.guard:
        gift = _leave(supply, ticket)
    for found in gift or ():
        if isinstance(found, Buffer):
            cache.release(found)
        else:
            supply.put(found)
    supply.kick()
