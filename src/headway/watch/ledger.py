"""The event stream: who asks, is granted, gives back and waits; it feeds the graph as it goes.

It does not patch anything (`patches` does) nor judge (`judge` does). A patch calls `ask` before it may
have to wait, `grant` when it has got an element, `release` when one comes back. A try that cannot wait
is a `grant` without an `ask`, and so makes no edge. What a child did is told to the graph for those
who wait for it: its wishes are theirs.

Bound: an uncontended ask, grant and release by one who holds nothing cost about 1.5 us together. No lock:
each step is one operation on a list or dictionary, so a finaliser or a signal may come in between.

Source: lockdep (held list, edges); the ends of ownership are `headway.core.mm.ownership`'s.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from _thread import get_ident
from collections.abc import Callable
from functools import partial
from time import monotonic
from types import FrameType
from typing import Any, final

from headway.watch.alive import living
from headway.watch.classes import CONNECTIONS, Holding, Owner, Pool, PoolClass, Wait, remove
from headway.watch.doubts import Doubts
from headway.watch.graph import Edge, Graph
from headway.watch.owners import Owners, related, waits_for
from headway.watch.places import Place, far, first, is_final, near, site
from headway.watch.profile import Profile
from headway.watch.sightings import Sightings

_getframe = sys._getframe
_running_loop = asyncio._get_running_loop
_WISHES = 64  # pools that one owner is remembered to have asked
_LOST = 256  # pools that are kept for the report


@final
class Ledger(Sightings):
    """What is known of one process. `sightings` are single events that need no graph to be bad."""

    def __init__(self) -> None:
        super().__init__()
        self.owners = Owners()
        self.current = self.owners.current
        self._carried: Callable[[], Owner | None] = self.owners.flow.get
        self.graph = Graph()
        self.doubts = Doubts(self.graph)
        self._in_doubt = self.doubts.open
        self.classes: dict[tuple[Any, ...], PoolClass] = {}
        self.pools: weakref.WeakSet[Pool] = weakref.WeakSet()  # that ever had something out
        self.waits: dict[Owner, Wait] = {}
        self.maps: dict[tuple[str, str], Pool] = {}
        self.lost: list[Pool] = []  # of objects that were collected with something out
        self.steps: Profile | None = None  # if asked for
        self.hidden = 0  # how many run code that is not to be told of (`hiding`)
        self.breaks = False  # whether waits are made so that they can be ended

    def other_tasks(self, find: Callable[[], Any] | None) -> None:
        """From now on `find` gives the running task of a loop that is not asyncio's; None: there is no such loop."""
        self.owners.foreign = find
        self._carried = self.owners.flow.get if find is None else lambda: None

    # -- pools ---------------------------------------------------------------------------------------

    def pool(
        self,
        kind: str,
        label: str,
        size: int | None,
        *,
        reentrant: bool = False,
        made: Place = (),
        of: Any = None,
    ) -> Pool:
        """A new pool, of the class of all that are made there; when `of` is collected, nobody holds it."""
        made = made or near(_getframe(1))
        key = (kind, label, *(id(part) for part in made[:1]), *made[1:2])
        cls = self.classes.get(key)
        if cls is None:
            cls = self.classes.setdefault(key, PoolClass(kind, label, made, reentrant))
        pool = Pool(cls, size)
        pool.resized(size)
        if cls.road is not None:
            cls.road.pools.add(pool)
        if of is not None:
            pool.of = weakref.ref(of, partial(_collected, self, weakref.ref(pool)))
        return pool

    # -- asking --------------------------------------------------------------------------------------

    def ask(self, pool: Pool, timed: bool = False) -> Owner:
        """Somebody is about to take an element, and waits if there is none."""
        owner = self.current()
        owner.place = place = near(_getframe(1))
        if pool.size is not None:  # else nobody ever waits there
            if owner.held or owner.parent is not None:
                self._hold_and_ask(owner, pool, timed, place, _getframe(1))
            if pool not in owner.wants and len(owner.wants) < _WISHES:
                owner.wants[pool] = 0
            if self.collecting or is_final(place):
                self._final(pool, timed, _getframe(1))
        return owner

    def _hold_and_ask(
        self, owner: Owner, pool: Pool, timed: bool, place: Place, frame: FrameType
    ) -> None:
        held = owner.held if owner.parent is None else self.all_held(owner)
        if not held or (pool.cls.reentrant and owner.holds(pool)):
            return
        own, edges, wanted = len(owner.held), self.graph.edges, pool.cls.number
        pools = list({holding.pool: None for holding in held if holding.pool is not pool.within})
        for number, holding in enumerate(held):
            if holding.pool is pool.within or holding.pool.within is pool:
                continue
            if (holding.pool.cls.number, wanted, holding.pool is pool) not in edges:
                place = far(frame)
            if number < own:
                self.connect(owner, held, holding, pool, 1, pools, timed, place)
                continue
            graph = self.doubts.graph_of(holding, wanted, holding.pool is pool)
            edge = self.connect(owner, held, holding, pool, 1, pools, timed, place, True, graph)
            if graph is not self.graph:
                self.doubts.note(holding, owner, edge)

    def connect(
        self,
        owner: Owner,
        held: list[Holding],
        holding: Holding,
        pool: Pool,
        more: int,
        pools: list[Pool],
        timed: bool,
        place: Place,
        inherited: bool = False,
        graph: Graph | None = None,
    ) -> Edge:
        """One edge: a holding, and `more` units of `pool` wanted in all by the one who asks."""
        same = holding.pool is pool
        edge = (graph or self.graph).edge(holding.pool.cls, pool.cls, same)
        if not edge.count:
            edge.where_held, edge.where_wanted = holding.place, place
        units = 1
        if len(held) > 1:
            units = sum(1 for other in held if other.pool is holding.pool)
        before = (edge.unit_max, edge.seen, edge.gates)
        edge.note(holding.pool, pool, units + more - 1 if same else units, pools, timed)
        if inherited:
            edge.inherited += 1
        self.graph.here(edge, owner.origin, self.owners.starts)
        if before != (edge.unit_max, edge.seen, edge.gates):
            self.graph.version += 1
        if same:
            owner.wants[pool] = max(owner.wants.get(pool, 0), owner.holds(pool))
        return edge

    def all_held(self, owner: Owner) -> list[Holding]:
        """What an owner holds, and those who wait for it."""
        held = list(owner.held)
        child, parent, depth = owner, owner.parent, 0
        while parent is not None and depth < 16:
            if parent.held and not (child.inherits or waits_for(child)):
                break
            held += parent.held
            child, parent, depth = parent, parent.parent, depth + 1
        return held

    def joined(self, child: Owner, place: Place, timed: bool = False) -> None:
        """The current owner waited for `child`: what the child wanted, it wanted too."""
        owner = self.current()
        if child is owner:
            return
        held = self.all_held(owner)
        pools = list({holding.pool: None for holding in held})
        for pool, units in list(child.wants.items()):
            for holding in held:
                if holding.pool is not pool or not pool.cls.reentrant:
                    self.connect(owner, held, holding, pool, units + 1, pools, timed, place, True)
            if len(owner.wants) < _WISHES or pool in owner.wants:
                owner.wants[pool] = max(owner.wants.get(pool, 0), owner.holds(pool) + units)

    # -- having --------------------------------------------------------------------------------------

    def enter(self, pool: Pool, element: Any = None) -> Holding:
        """An element was there and was taken by one who would have waited: `ask` and `grant` in one."""
        carried = self._carried  # not called as a method: Python 3.11 looks those up twice
        owner = carried()
        if owner is None or owner.key != get_ident() or _running_loop() is not None:
            owner = self.owners.current()
        place = pool.here
        try:  # mostly it is the same line as last time, as many frames away
            if site(_getframe(pool.away)) != place:
                place = self._look(pool, _getframe(1))
        except (ValueError, AttributeError):
            place = self._look(pool, _getframe(1))
        held = owner.held
        if held or self.collecting or pool not in owner.simple:
            self._first(owner, pool, place, _getframe(1))
        holding = Holding((pool, owner, place, monotonic(), element))
        pool.out.append(holding)
        held.append(holding)
        return holding

    def _first(self, owner: Owner, pool: Pool, place: Place, frame: FrameType) -> None:
        """All that `enter` has to do but once where an owner who holds nothing takes of a pool again and again."""
        if owner.held or owner.parent is not None:
            self._hold_and_ask(owner, pool, pool.timed, place, frame)
        elif self.steps is None and len(owner.simple) < _WISHES:
            owner.simple.add(pool)
        if pool not in owner.wants and len(owner.wants) < _WISHES:
            owner.wants[pool] = 0
        if self.collecting:
            self._final(pool, pool.timed, frame)
        self._about_to_have(owner, pool)

    def _about_to_have(self, owner: Owner, pool: Pool) -> None:
        if not pool.listed:
            pool.listed = True
            self.pools.add(pool)
        if self.steps is not None:
            self.steps.took(owner, pool.cls)
        if pool.cls.road is not None and owner.held:
            for spent in pool.cls.road.spent(owner.held):
                self.lose(spent)

    def _look(self, pool: Pool, frame: FrameType) -> Place:
        """Where the program took one; remembered for the next time."""
        at, away = first(frame)
        place = near(at)
        if is_final(place):
            self._final(pool, pool.timed, frame)
        elif len(place) == 4:
            pool.here, pool.away = place, away
        return place

    def give(self, holding: Holding, who: Owner | None = None) -> None:
        """What `enter` or `grant` gave comes back, by `who` or whoever calls."""
        pool, owner = holding[0], holding[1]
        who = who or (owner if owner.key == get_ident() else self.owners.current())
        held = owner.held
        if (
            who is owner
            and held
            and held[-1] is holding
            and self.steps is None
            and not self._in_doubt
        ):
            held.pop()
            out = pool.out
            if out and out[-1] is holding:
                out.pop()
            else:
                remove(out, holding)
        else:
            self.doubts.settle(holding, who)
            self._mark_release_path(holding, who)
            self.drop(holding)

    def grant(self, pool: Pool, element: Any = None, owner: Owner | None = None) -> Holding:
        """Somebody has an element now."""
        if owner is None:
            owner = self.current()
            place = near(_getframe(1))
        else:
            place = owner.place
        if owner.held or self.steps is not None or not pool.listed:
            self._about_to_have(owner, pool)
        holding = Holding((pool, owner, place, monotonic(), element))
        pool.out.append(holding)
        owner.held.append(holding)
        return holding

    @property
    def out(self) -> list[Pool]:
        """The pools that have something out."""
        return sorted((p for p in living(self.pools) if p.out), key=lambda pool: pool.number)

    def release(self, pool: Pool, element: Any = None) -> None:
        """An element comes back, whoever brings it."""
        out = pool.out
        try:
            taker = out[0][1]  # if it was taken on this thread, there is no need to ask who we are
            owner = taker if len(out) == 1 and taker.key == get_ident() else self.owners.current()
        except IndexError:  # taken before we watched, or given back by another thread just now
            owner = self.owners.current()
        held = owner.held
        if held:
            holding = held[-1]
            if holding[0] is pool and (element is None or holding[4] is element):
                held.pop()
                if out and out[-1] is holding:
                    out.pop()
                else:
                    remove(out, holding)
                if self.steps is not None:
                    self.steps.gave(owner, pool.cls)
                if self._in_doubt:
                    self.doubts.settle(holding, owner)
                return
        self._release_slow(owner, pool, element)

    def _release_slow(self, owner: Owner, pool: Pool, element: Any) -> None:
        mine = [h for h in reversed(owner.held) if h.pool is pool]
        chosen = next((h for h in mine if h.element is element), None)
        if chosen is None and element is not None:
            chosen = next((h for h in pool.out if h.element is element), None)
        if chosen is None and (element is None or pool.cls.kind == "mempool"):
            others = [*mine, *pool.out]
            chosen = next((h for h in others if h.element is None), None)
            if chosen is None and others and element is None:
                chosen = others[0]
        if chosen is None:  # taken before we watched; or there was nothing out, as in a signal
            pool.cls.passed_on = pool.cls.passed_on or pool.cls.kind == "semaphore"
            return
        if chosen.owner is not owner and pool.cls.kind not in CONNECTIONS:
            if not related(chosen.owner, owner):
                pool.cls.passed_on = True
        self.doubts.settle(chosen, owner)
        self._mark_release_path(chosen, owner)
        self.drop(chosen)

    def withdraw(self, holding: Holding) -> None:
        """What was entered beforehand is not there yet: its taker waits for it."""
        remove(holding.owner.held, holding)
        remove(holding.pool.out, holding)

    def renew(self, early: Holding) -> Holding:
        """What was withdrawn is there now."""
        pool, owner, place, _, element = early
        holding = Holding((pool, owner, place, monotonic(), element))
        pool.out.append(holding)
        owner.held.append(holding)
        return holding

    def _mark_release_path(self, chosen: Holding, owner: Owner) -> None:
        """What was taken after `chosen` is still held: so it was needed to give `chosen` back."""
        held = list(chosen.owner.held)
        later = held[held.index(chosen) + 1 :] if chosen in held else []
        for other in (*later, *(owner.held if owner is not chosen.owner else ())):
            key = (chosen.pool.cls.number, other.pool.cls.number, chosen.pool is other.pool)
            edge = self.graph.edges.get(key)
            if edge is not None and not edge.release_path:
                edge.release_path = True
                self.graph.version += 1

    def drop(self, holding: Holding) -> None:
        """The holding is over."""
        if self._in_doubt:
            self.doubts.settle(holding, holding.owner)
        self.withdraw(holding)
        if self.steps is not None:
            self.steps.gave(holding.owner, holding.pool.cls)

    def lose(self, holding: Holding) -> None:
        """What was got from a queue will not come back, if it ever was to."""
        self.drop(holding)
        if (road := holding.pool.cls.road) is not None:
            road.lost += 1

    # -- waiting -------------------------------------------------------------------------------------

    def wait(
        self,
        what: str,
        pool: Pool | None = None,
        timeout_s: float | None = None,
        target: Any = None,
        owner: Owner | None = None,
    ) -> Wait:
        """The current owner has to wait from now on, until `waited`."""
        owner = owner or self.current()
        wait = Wait(owner, pool, what, near(_getframe(1)), monotonic(), timeout_s, target)
        owner.wait = wait
        self.waits[owner] = wait
        if pool is not None:
            pool.waiters.append(wait)
        return wait

    def waited(self, wait: Wait) -> None:
        """The wait is over, however it ended."""
        self.waits.pop(wait.owner, None)
        if wait.owner.wait is wait:
            wait.owner.wait = None
        if wait.pool is not None:
            remove(wait.pool.waiters, wait)


def _collected(ledger: Ledger, ref: weakref.ref[Pool], _: object) -> None:
    """The watched object is gone: what was out of it is held by nobody, and never came back."""
    pool = ref()
    if pool is not None and pool.out:
        for holding in list(pool.out):
            remove(holding.owner.held, holding)
        if len(ledger.lost) < _LOST:
            ledger.lost.append(pool)
