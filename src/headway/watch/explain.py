"""Why nothing moves: who holds what, who waits, which of them can never go on, and what would end it.

It decides what is *stuck*: a wait is hopeless if everyone who could end it is gone, or waits hopelessly too.
Waits with a time limit count like the others; the report names the limit. A task that awaits other
tasks is looked at when asked, not before. Work in the dark (a socket, a sleep) is hope.

Bound: one pass for each waiter that is found to have hope.

Source: Banker-style graph reduction; Linux's hung task detector for "nothing has moved for a while".
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import Any

from headway.watch import places
from headway.watch.classes import MAP, Holding, Owner, Wait
from headway.watch.ledger import Ledger
from headway.watch.naming import folded, lasted, tell_apart, together


def hang(ledger: Ledger, quiet_s: float = 0.0) -> dict[str, Any] | None:
    """Who is stuck for ever, if anybody is; `quiet_s`: only if none of their waits is younger."""
    waits, now = list(ledger.waits.values()), monotonic()
    found = stuck(ledger, quiet_s)
    if not found:
        return None
    held = _held_there(found)
    tell_apart([wait.owner for wait in found] + [holding.owner for holding in held])
    return {
        "holders": [_holder(holding, now) for holding in held],
        "waiters": [_waiter(wait, now) for wait in found],
        "cycle": _cycle(ledger, found),
        "release": _release(ledger, waits, found),
    }


def stuck(ledger: Ledger, quiet_s: float = 0.0) -> list[Wait]:
    """The waits that are hopeless; none if one of them is younger than `quiet_s` seconds."""
    found, now = _stuck(ledger, list(ledger.waits.values()), ()), monotonic()
    return [] if any(now - wait.since_s < quiet_s for wait in found) else found


def snapshot(ledger: Ledger) -> dict[str, Any]:
    """All holders and waiters, stuck or not."""
    now = monotonic()
    out = [h for pool in list(ledger.out) if pool.cls.kind != MAP for h in list(pool.out)]
    tell_apart([h.owner for h in out] + [wait.owner for wait in list(ledger.waits.values())])
    return {
        "holders": [
            _holder(h, now) for h in sorted(out, key=lambda h: h.since_s) if h.pool.cls.holds
        ],
        "waiters": [_waiter(wait, now) for wait in list(ledger.waits.values())],
        "hang": hang(ledger),
    }


def _stuck(ledger: Ledger, waits: Iterable[Wait], freed: Iterable[Wait]) -> list[Wait]:
    """The waits that are hopeless, if those in `freed` end."""
    ended = set(map(id, freed))
    hopeless = {wait.owner: wait for wait in waits if id(wait) not in ended}
    changed = True
    while changed:
        changed = False
        for owner, wait in list(hopeless.items()):
            enders = _enders(wait)  # asked once: meanwhile the others go on
            gone = ledger.waits.get(owner) is not wait
            # Without enders an event may come from anywhere; a pool with room serves at once.
            if gone or not enders or any(_can_move(ledger, one, hopeless) for one in enders):
                del hopeless[owner]
                changed = True
    return list(hopeless.values())


def _enders(wait: Wait) -> list[Owner]:
    """Who could end a wait."""
    if wait.pool is not None:
        if not wait.pool.cls.holds:
            return []  # a road or a signal: what comes may come from anywhere
        return list({holding.owner: None for holding in list(wait.pool.out)})
    if callable(wait.target):
        return [owner for owner in wait.target() if owner is not None]
    return []


def _can_move(ledger: Ledger, owner: Owner, hopeless: dict[Owner, Wait]) -> bool:
    """Whether an owner may still do something by itself."""
    if owner in hopeless or not owner.alive():
        return False
    if owner.wait is not None:
        return True  # its wait has hope
    children = _children(ledger, owner)
    return not children or any(child not in hopeless for child in children)


def _children(ledger: Ledger, owner: Owner) -> list[Owner]:
    """The tasks that a task awaits right now, directly, gathered or in a group."""
    task = None if owner.task is None else owner.task()
    future = getattr(task, "_fut_waiter", None)
    if future is None:
        return []
    awaited = [future, *(getattr(future, "_children", None) or ())]
    found = [ledger.owners.of_task(one) for one in awaited if hasattr(one, "get_coro")]
    if not found:  # a group or a wait: those of our children that somebody waits for
        found = [w.owner for w in list(ledger.waits.values()) if w.owner.parent is owner]
    return [child for child in found if child is not None and child.alive()]


def _held_there(stuck: Iterable[Wait]) -> list[Holding]:
    pools = {wait.pool: None for wait in stuck if wait.pool is not None}
    pools |= {h.pool: None for wait in stuck for h in wait.owner.held}
    holdings = [h for pool in pools for h in list(pool.out) if pool.cls.kind != MAP]
    return sorted(holdings, key=lambda holding: holding.since_s)


def _next(ledger: Ledger, wait: Wait, stuck: dict[Owner, Wait]) -> tuple[Owner, Wait] | None:
    """One who keeps a wait from ending, and waits itself; through a task that awaits it, if need be."""
    enders = _enders(wait)
    for owner in sorted(
        enders, key=lambda owner: owner is wait.owner
    ):  # oneself only if nobody else is
        if owner in stuck:
            return owner, stuck[owner]
        for child in _children(ledger, owner):
            if child in stuck:
                return owner, stuck[child]
    return None


def _cycle(ledger: Ledger, waits: list[Wait]) -> list[str]:
    """One ring of waits in words, or the chain that ends with one who is gone."""
    stuck = {wait.owner: wait for wait in waits}
    path: list[tuple[Wait, str]] = []
    wait: Wait | None = waits[0]
    while wait is not None and all(wait is not one for one, _ in path):
        found = _next(ledger, wait, stuck)
        what = wait.what if wait.pool is None else wait.pool.cls.name
        if found is None:
            whom = next((", who has ended" for o in _enders(wait) if not o.alive()), "")
            holder = next(iter(_enders(wait)), None)
            held = f", held by {holder.name}{whom}" if holder is not None else ""
            path.append((wait, f"{wait.owner.name} waits for {what}{held}"))
            wait = None
        else:
            path.append((wait, f"{wait.owner.name} waits for {what}, held by {found[0].name}"))
            wait = found[1]
    first = 0 if wait is None else [one for one, _ in path].index(wait)
    return [line for _, line in path[first:]]


def _release(ledger: Ledger, waits: list[Wait], stuck: list[Wait]) -> dict[str, Any] | None:
    """The single element whose return frees most; the first in line gets it, and then goes on."""
    best: tuple[int, Holding] | None = None
    for holding in _held_there(stuck):
        line = [wait for wait in stuck if wait.pool is holding.pool]
        if line:
            left = len(_stuck(ledger, waits, line[:1]))
            if best is None or left < best[0]:
                best = (left, holding)
    if best is None:
        return None
    left, holding = best
    return {
        "pool": holding.pool.cls.name,
        "holder": holding.owner.name,
        "taken": places.where(holding.place),
        "frees": len(stuck) - left,
        "of": len(stuck),
    }


def _holder(holding: Holding, now: float) -> dict[str, Any]:
    return {
        "owner": holding.owner.name,
        "alive": holding.owner.alive(),
        "pool": holding.pool.cls.name,
        "held_s": round(now - holding.since_s, 3),
        "taken": places.text(holding.place),
    }


def _waiter(wait: Wait, now: float) -> dict[str, Any]:
    return {
        "owner": wait.owner.name,
        "pool": None if wait.pool is None else wait.pool.cls.name,
        "what": wait.what,
        "waited_s": round(now - wait.since_s, 3),
        "timeout_s": wait.timeout_s,
        "at": places.text(wait.place),
    }


def text(hang: dict[str, Any]) -> str:
    """The same for reading."""
    lines = [f"hang: {_head(hang)}"]
    lines += [f"  {line}" for line in hang.get("broken", ())]
    over = _ended(hang) > 0
    lines += [*_waiting(hang["waiters"], over), *_holding(hang["holders"], over)]
    lines.append("  cycle: " + "; ".join(hang["cycle"]))
    if hang["release"] is not None:
        one = hang["release"]
        lines.append(
            f"  release: one of {one['pool']} given back by {one['holder']} (taken at {one['taken']}) "
            f"frees {one['frees']} of {one['of']}"
        )
    return "\n".join(lines)


def _head(hang: dict[str, Any]) -> str:
    ended = _ended(hang)
    if not ended:
        return "these wait for each other, and nobody else can end it"
    then = "all went on" if hang["went_on"] else "some were stuck all the same"
    return f"these waited for each other until --break ended {ended} of the waits; then {then}"


def _ended(hang: dict[str, Any]) -> int:
    """How many of the waits --break ended."""
    return sum(line.startswith("broken") for line in hang.get("broken", ()))


def _waiting(waiters: list[dict[str, Any]], over: bool = False) -> list[str]:
    lines = []
    for same in folded(waiters, "pool", "what", "timeout_s", "at"):
        one, limit = same[0], same[0]["timeout_s"]
        verb = "waited" if over else "waits" if len(same) == 1 else "wait"
        lines.append(
            f"  {together(each['owner'] for each in same)} {verb} for {one['pool'] or one['what']}, "
            f"for {lasted(each['waited_s'] for each in same)}{'' if limit is None else f', at most {limit} s'}"
        )
        lines += [f"    {frame}" for frame in one["at"][:3]]
    return lines


def _holding(holders: list[dict[str, Any]], over: bool = False) -> list[str]:
    lines = []
    for same in folded(holders, "pool", "alive", "taken"):
        one = same[0]
        alone = len({each["owner"] for each in same}) == 1
        verb = "had" if over else "has" if alone else "have"
        gone = "" if one["alive"] else f", who {verb} ended,"
        lines.append(
            f"  {together(each['owner'] for each in same)}{gone} {verb} held {one['pool']} "
            f"for {lasted(each['held_s'] for each in same)}"
        )
        lines += [f"    {frame}" for frame in one["taken"][:3]]
    return lines


def snapshot_text(found: dict[str, Any]) -> str:
    """Who holds and who waits, for reading; the hang, if there is one."""
    if found["hang"] is not None:
        return text(found["hang"])
    lines = ["no hang: whoever waits, waits for one who can still go on"]
    return "\n".join([*lines, *_waiting(found["waiters"]), *_holding(found["holders"])])
