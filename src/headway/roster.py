"""Which pools, zones, caches and budgets there are, for whoever comes to look: weakly, and only once asked.

It does not look at them (`headway.snapshots` does). Until somebody asks, nothing is kept, and making a
pool costs one call that tests one field. Who asks late finds what was made before by one walk over the objects
that the garbage collector knows; from then on each face enters what it makes. Nothing is kept
alive, and nothing that runs in the simulator is entered.

Bound: one walk in the life of a process, some 50 ns for each of its objects; then one weak reference a pool.

Source: own.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any, Final, final


@final
class Roster:
    """`ROSTER` is the only one. Each change is one atomic operation on a dictionary."""

    __slots__ = ("_open", "_quiet", "_refs", "_start")

    def __init__(self) -> None:
        self._quiet = True  # nobody has asked: all there is on the way of a pool that is made
        self._open = False
        self._refs: dict[int, weakref.ref[Any]] = {}
        self._start: Callable[[], object] | None = None

    def start_with_first(self, start: Callable[[], object]) -> None:
        """Call `start` when the first thing is entered: a program without pools has nothing to tell."""
        self._start = start
        self._quiet = False

    def open(self, kinds: tuple[type, ...]) -> None:
        """Keep from now on what is entered, and find what there is of these kinds already; once.

        What ``gc.freeze`` has hidden is not found.
        """
        if self._open:
            return
        self._start = None
        self._open = True
        self._quiet = False
        known: dict[type, bool] = {}
        for thing in gc.get_objects():
            kind = type(
                thing
            )  # never isinstance: a proxy's __class__ would run code of the program
            wanted = known.get(kind)
            if wanted is None:
                wanted = known[kind] = any(one in kind.__mro__ for one in kinds)
            if wanted:
                self._keep(thing)

    def enter(self, thing: Any) -> None:
        """Something has been made. Waits: never."""
        if self._quiet:
            return
        start, self._start = self._start, None
        if start is not None:
            start()
        if self._open:
            self._keep(thing)

    def all(self) -> list[Any]:
        """What is still there and not closed, in the order in which it came."""
        found = [ref() for ref in list(self._refs.values())]
        return [thing for thing in found if thing is not None and not thing.closed]

    def _keep(self, thing: Any) -> None:
        refs, key = self._refs, id(thing)

        def forget(ref: weakref.ref[Any]) -> None:
            if refs.get(key) is ref:
                del refs[key]

        if key not in refs:
            refs[key] = weakref.ref(thing, forget)


ROSTER: Final = Roster()
