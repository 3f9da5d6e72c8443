"""What a run says: the cycles of its graph, single events that are bad by themselves, and what never came back.

It does not watch. A leak is judged by call site: elements that are out at the end and whose taker is gone, or
so many that others wait for ever.
"""

from __future__ import annotations

from collections.abc import Iterator

from headway.watch import nesting, places
from headway.watch.classes import MAP, Holding, Pool, PoolClass
from headway.watch.finding import SEVERITIES, Finding, stacks
from headway.watch.ledger import Ledger
from headway.watch.places import Place

_WORKS = ("workers", "lock", "tokens")  # a worker at work at the end is no leak


def findings(ledger: Ledger, *, final: bool, concurrency: int | None = None) -> list[Finding]:
    """All there is to say, the gravest first; `final`: the program has come to its end."""
    found: dict[str, Finding] = {}
    for finding in (
        *nesting.findings(ledger.graph, concurrency),
        *_sightings(ledger),
        *_leaks(ledger, final),
    ):
        known = found.get(finding.key)
        if known is None or _rank(finding) > _rank(known):
            found[finding.key] = finding
    return sorted(found.values(), key=lambda finding: (-_rank(finding), finding.kind, finding.key))


def _rank(finding: Finding) -> int:
    return SEVERITIES.index(finding.severity)


def _sightings(ledger: Ledger) -> Iterator[Finding]:
    for kind, cls, what, place, other in list(ledger.sightings.values()):
        if cls is not None and not cls.holds:
            continue
        yield _sighting(kind, cls, what, place, other)


def _sighting(kind: str, cls: PoolClass | None, what: str, place: Place, other: Place) -> Finding:
    key = f"{kind}: {what} {places.stable(place)}"
    if kind == "blocking-in-loop":
        return Finding(
            kind, "warning", what, stacks(waited_here=place),
            f"{what} stopped the event loop: no other task ran meanwhile, and if one of them has to end this "
            "wait, it never ends", 1, 1,
            "await the asynchronous form, or wait in a worker thread (asyncio.to_thread)", key,
        )  # fmt: skip
    assert cls is not None
    if kind == "wait-in-finaliser":
        return Finding(
            kind, "risk" if cls.size == 1 else "warning", cls.name, stacks(asked_for_here=place),
            f"a finaliser may run between any two instructions, also of one who holds {cls.label}: then it "
            "waits for its own thread, for ever", 1, 1,
            "only try to take it in a finaliser, or put the work on a queue.SimpleQueue for a safe place", key,
        )  # fmt: skip
    if kind == "wait-in-shrinker":
        return Finding(
            kind, "warning", cls.name, stacks(reclaim_began_here=other, waits_here=place),
            f"whoever is to end {what} may be waiting for the memory that is being reclaimed here: then "
            "neither goes on", 1, 1,
            "do not wait in a shrinker: give up what can be given at once, and say how much that was", key,
        )  # fmt: skip
    return Finding(
        kind, "note", cls.name, stacks(taken=other, waits_here=place),
        f"{cls.label} is held during {what} without a time limit: whoever is to end that wait may need "
        f"{cls.label} first", None, 1,
        f"give {cls.label} back before waiting, or wait with a time limit", key,
    )  # fmt: skip


def _leaks(ledger: Ledger, final: bool) -> Iterator[Finding]:
    sites: dict[tuple[PoolClass, int, int], list[Holding]] = {}
    for pool in list(ledger.out):
        if not pool.cls.holds or pool.cls.kind == MAP or pool.cls.kind in _WORKS:
            continue
        for holding in list(pool.out):
            first = (id(holding.place[0]), holding.place[1]) if holding.place else (0, 0)
            sites.setdefault((pool.cls, *first), []).append(holding)
    for (cls, *_), out in sites.items():
        gone = [holding for holding in out if not holding.owner.alive()]
        full = any(_is_empty(holding.pool) for holding in out)
        if not gone and not (final and full and len(out[0].pool.out) > 1):
            continue
        count = len(out) if final else len(gone)
        yield _leak(cls, out[0], count, len(gone), full)


def _is_empty(pool: Pool) -> bool:
    """Whether all of its elements are out."""
    return pool.size is not None and len(pool.out) >= pool.size


def _leak(cls: PoolClass, first: Holding, count: int, gone: int, full: bool) -> Finding:
    whose = f"; {gone} of those who took them have ended" if gone else ""
    return Finding(
        "leak", "risk" if full else "warning", cls.name, stacks(taken_and_not_given_back=first.place),
        f"{count} of {cls.size} taken here never came back{whose}: when the last is gone, everybody waits",
        cls.size, count,
        "give back in a with block, or in finally; of a response, read or close it",
        f"leak: {cls.label} {places.stable(first.place)}",
    )  # fmt: skip
