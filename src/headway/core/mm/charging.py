"""The slow path of a budget: take, else reclaim, else fail or wait; as one plan for every runtime.

It does not decide who is granted (`headway.core.mm.meeting` does). The story is that of a memory
cgroup: draw from every level; those entitled may draw from reserves, and beyond a limit that allows
force; else the level that has too little asks its reclaimer, and those of the levels below it, as often as
that makes progress; else the request fails where its mask says so (but HIGH passes limits that allow
force), or waits in line. One that comes to starve at another level while
it waits is woken to ask that one's reclaimer too, and keeps its place.

Who may not wait, or reclaims himself (``noreclaim()``), asks no code above us and starts no I/O; but caches
drop for him what is clean, as that takes neither. A budget has no background that would do it for him, and
caches fill it to the last unit. Only who takes away `KSWAPD_RECLAIM` as well asks nobody.

Nobody waits beside room that could be made. Who is about to wait *publishes, then looks*: it enters the
line, and is woken at once to ask the reclaimers once more (`Meeting.join`). Who has something to give
that was not to be had before (a cache whose data was written back) *stores, then looks* for those who
wait, and kicks.

Bound: a reclaimer is asked at most `ROUNDS` times in a row, and no more in that row once it raised; a
request parks once, and again only after each reclaim or `kick`. What can never be granted is refused at
once, also after a `resize`.

Source: Linux ``mm/memcontrol.c``, ``try_charge_memcg``. Departure: it waits in line instead of failing.
"""

from __future__ import annotations

from functools import partial
from typing import Final, TypeAlias

from headway.core.mm import gfp as masks
from headway.core.mm.gfp import Gfp, Scope
from headway.core.mm.giver import STOP, Giver
from headway.core.mm.meeting import Ask, Meeting, Part
from headway.core.plan import Plan, Ticket, now, park
from headway.errors import PoolTimeout

Asked: TypeAlias = tuple[tuple[Giver, int | None], ...]
ROUNDS: Final = 16

_MEMALLOC, _NOMEMALLOC = int(Gfp.MEMALLOC), int(Gfp.NOMEMALLOC)
_MAY_WAIT, _NORETRY = int(Gfp.DIRECT_RECLAIM), int(Gfp.NORETRY)
_HIGH, _OTHERS = int(Gfp.HIGH), int(Gfp.KSWAPD_RECLAIM)
_NORECLAIM = int(Scope.NORECLAIM)


def charge(
    meeting: Meeting,
    parts: tuple[Part, ...],
    gfp: Gfp,
    scope: int,
    who: str,
    timeout_s: float | None,
    entitled: bool,
) -> Plan[bool]:
    """Take units of each budget in `parts`, all or nothing; False where the mask forbids waiting.

    Asks: Offload (reclaim), Now, Park. Raises: UsageError, PoolClosed, PoolTimeout.
    """
    parts[0][0].check_ask(gfp, timeout_s)
    mask = int(masks.restrict(gfp, scope))
    if scope & _NORECLAIM or mask & _MEMALLOC:
        entitled = not mask & _NOMEMALLOC
    ask = Ask(parts, entitled)
    _check(ask)
    gives_up = "PoolTimeout" if timeout_s is not None else ""
    if mask & (_MAY_WAIT | _NORETRY) != _MAY_WAIT:
        gives_up = "none"
    told = mask | _MEMALLOC if entitled else mask & ~_MEMALLOC  # whether reserves are open to it
    for part, (account, units) in enumerate(parts):
        account.tell("request", units, owner=who, mask=told, gives_up=gives_up, part=part)
    try:
        if not (meeting.take_now(ask) or (yield from _reclaim(meeting, ask, mask, scope))):
            if mask & (_MAY_WAIT | _NORETRY) != _MAY_WAIT:
                if not _force(meeting, ask, mask):
                    _tell_of_end(parts, who)
                    return False
            else:
                yield from _wait(meeting, ask, mask, scope, who, timeout_s)
    except BaseException:
        meeting.drop(ask)
        _tell_of_end(parts, who)
        raise
    for account, units in parts:
        account.granted(units, who)
    return True


def _check(ask: Ask) -> None:
    """Raises: PoolClosed, UsageError if the request can never be granted (any more)."""
    for level in ask.levels:
        if level.closed:
            raise level.closed_error()
    ask.check_possible()


def _force(meeting: Meeting, ask: Ask, mask: int) -> bool:
    """An urgent request that would fail: it passes the limits, where all that it meets allow that."""
    if not mask & _HIGH or mask & _NOMEMALLOC or not all(level.force for level in ask.levels):
        return False
    ask.entitled = True
    return meeting.take_now(ask)


def _reclaim(meeting: Meeting, ask: Ask, mask: int, scope: int) -> Plan[bool]:
    """Ask those who can make room at the level that has too little; True if that was enough."""
    if not mask & _MAY_WAIT or scope & _NORECLAIM:
        if not mask & _OTHERS:
            return False
        mask &= _MAY_WAIT
    raised: list[Giver] = []
    for _ in range(ROUNDS):
        short = ask.short
        if ask.granted or short is None or not short.gives_way:
            break
        ask.asked = short
        units = max(units for account, units in ask.parts if short in account.levels())
        givers = meeting.change(partial(short.givers, ask.levels))
        freed = yield from _sweep(givers, units, mask, scope, raised)
        if ask.ticket is None and not ask.granted:
            meeting.take_now(ask)
        if not freed:
            break
    return ask.granted


def _sweep(givers: Asked, units: int, mask: int, scope: int, raised: list[Giver]) -> Plan[int]:
    """Each in turn until there is enough: what is idle first, and whatever may go if that is too little."""
    freed = 0
    for hard in (False, True):
        for giver, most in givers:
            if giver in raised or not giver.may_be_asked(mask, hard):
                continue
            wanted = units - freed if most is None else min(units - freed, most)
            found = yield from giver.ask(wanted, mask, scope, hard)
            if found == STOP:
                raised.append(giver)
            else:
                freed += found
            if freed >= units:
                return freed
    return freed


def _wait(
    meeting: Meeting, ask: Ask, mask: int, scope: int, who: str, timeout_s: float | None
) -> Plan[None]:
    start_s = yield from now()
    ticket = Ticket(who, since_s=start_s)
    meeting.join(ask, ticket)
    try:
        while True:
            left_s = None
            if timeout_s is not None:
                left_s = max(0.0, start_s + timeout_s - (yield from now()))
            woken = yield from park(ticket, left_s)
            if ask.granted:
                return
            if not woken:
                if meeting.leave(ask):
                    return
                raise _timeout(ask, (yield from now()) - start_s)
            _check(ask)
            ticket = Ticket(who, since_s=start_s)
            if not meeting.renew(ask, ticket):
                return  # granted since we looked
            yield from _reclaim(meeting, ask, mask, scope)
            for account, _ in ask.parts:
                meeting.look(account)
    finally:
        for account, _ in ask.parts:
            account.waited(start_s)


def _timeout(ask: Ask, waited_s: float) -> PoolTimeout:
    account, units = ask.parts[0]
    if ask.short is not None:
        account = ask.short
    account.timeouts += 1
    return PoolTimeout(
        f"budget {account.name!r}: waited {waited_s:.3f} s for {account.show(units)}; "
        f"{account.show(account.used)} of {account.show(account.capacity)} out, "
        f"{account.waiters} others waiting; {account.say_holders()}",
        pool=account.name,
        waited_s=waited_s,
        holders=account.holders(),
    )


def _tell_of_end(parts: tuple[Part, ...], who: str) -> None:
    for account, units in parts:
        account.tell("give_up", units, owner=who)
