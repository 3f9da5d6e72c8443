"""No wake-up is lost: every interleaving of the real methods, at every look at what is shared.

A stress run is no proof here. That the search can fail is shown on broken twins of the pool.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings

pytest.importorskip("greenlet")

from headway.core.mm.gfp import Gfp
from headway.core.mm.ladder import Wake
from headway.core.mm.watched import REFUSED
from tests.core.mm.interleave import Cancelled, Explored, Scene, World, explore
from tests.core.mm.pools import Shelf
from tests.core.mm.stepped import Backed, Fixed, dress, step_refusals

Body = Callable[[], Any]
FUZZING = settings.default.max_examples > 1_000  # all of the larger scenes in ./dev fuzz


def fixed(world: World, elements: str, kind: Any = Fixed, **options: Any) -> Any:
    return dress(world, kind(elements, runtime=world, name="p", **options))


class Stepped(Shelf):
    """A backend whose operations are places where others may come first, too."""

    def __init__(self, world: World, room: int | None = None) -> None:
        super().__init__(room)
        self.world = world

    def _take(self) -> str | None:
        self.world.point(lambda: (self.room, self.out))
        return super()._take()

    def free(self, element: str) -> None:
        self.world.point()
        super().free(element)


def all_home(world: World) -> None:
    pool = world.pool
    pool.check_invariants()
    held = sum(len(a.result) for a in world.actors if isinstance(a.result, list))
    assert pool.outstanding == held, f"{pool!r}, and {held} are held"
    assert pool._gate & 1 == 0 and pool.waiters == 0


def holds(explored: Explored) -> Explored:
    assert explored.failure is None, f"{explored.failure}\n{' '.join(explored.schedule)}"
    assert explored.complete, f"not complete after {explored.runs} runs"
    return explored


def holds_so_far(scene: Scene, *, everything: bool = False) -> None:
    """For scenes of many thousand states: the first of them, or `everything`."""
    explored = explore(scene, all_home, max_runs=500_000 if everything else 2_000)
    assert explored.failure is None, f"{explored.failure}\n{' '.join(explored.schedule)}"
    assert explored.complete or not everything


def fails(explored: Explored, how: str) -> None:
    assert explored.failure is not None and how in explored.failure, explored


def park_against_free(
    kind: Any = Fixed, wake: Wake = Wake.FIFO
) -> Callable[[World], list[tuple[str, Body]]]:
    def scene(world: World) -> list[tuple[str, Body]]:
        pool = fixed(world, "x", kind, wake=wake)
        x = pool.alloc()
        return [("a", lambda: [pool.alloc()]), ("f", lambda: pool.free(x))]

    return scene


@pytest.mark.parametrize("wake", list(Wake))
def test_park_against_free(wake: Wake) -> None:
    explored = holds(explore(park_against_free(wake=wake), all_home))
    assert explored.states > 20 and explored.endings == {(("a", "['x']"), ("f", "None"))}


class _NoSecondLook(Fixed):  # type: ignore[misc]
    """free() as if the gate need not be read again."""

    def free(self, element: Any) -> None:
        if self._gate:
            self._free_slow(element)
            return
        self.free_count += 1
        self._reserve.append(element)


class _NoLookAfterJoin(Fixed):  # type: ignore[misc]
    """join() that trusts the look before it."""

    def join(self, ticket: Any) -> None:
        with self._guard:
            self._queue.join(ticket)
            self.set_gate()


class _KeepsTheGift(Fixed):  # type: ignore[misc]
    """leave() that forgets what was handed over."""

    def leave(self, ticket: Any) -> None:
        super().leave(ticket)


class _GivesUpWhenHeld(Fixed):  # type: ignore[misc]
    """A holder of the guard that does not look again after letting go."""

    def take_reserve(self, count: int) -> Any:
        with self._guard:
            queued = self._wanted != 1 << 62
            return None if queued or len(self._reserve) < count else self._pop(count)


@pytest.mark.parametrize("twin", [_NoSecondLook, _NoLookAfterJoin])
def test_a_pool_that_looks_only_once_is_caught(twin: Any) -> None:
    fails(explore(park_against_free(twin), all_home), "a waits for ever")


def test_a_holder_that_does_not_look_again_is_caught() -> None:
    def scene(kind: Any) -> Callable[[World], list[tuple[str, Body]]]:
        def make(world: World) -> list[tuple[str, Body]]:
            pool = fixed(world, "x", kind)
            x = pool.alloc()
            return [
                ("a", lambda: [pool.alloc()]),
                ("b", lambda: pool.take_reserve(1)),
                ("f", lambda: pool.free(x)),
            ]

        return make

    fails(explore(scene(_GivesUpWhenHeld), all_home, parked=1), "a waits for ever")
    holds(explore(scene(Fixed), all_home, parked=1))


def cancel_against_wake(
    how: str, kind: Any = Fixed, wake: Wake = Wake.FIFO
) -> Callable[[World], list[tuple[str, Body]]]:
    def scene(world: World) -> list[tuple[str, Body]]:
        pool = fixed(world, "x", kind, wake=wake)
        x = pool.alloc()
        limit = 1.0 if how == "timeout" else None
        return [
            ("a", lambda: [pool.alloc(timeout_s=limit)]),
            ("f", lambda: pool.free(x)),
            ("c", lambda: world.interrupt(world.actors[0], how)),
        ]

    return scene


@pytest.mark.parametrize("wake", list(Wake))
@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_cancel_and_timeout_against_wake(how: str, wake: Wake) -> None:
    explored = holds(explore(cancel_against_wake(how, wake=wake), all_home))
    ended = {dict(ending)["a"] for ending in explored.endings}
    assert ended == {"['x']", "'cancelled'" if how == "cancel" else "'timeout'"}  # both happen


def test_a_waiter_that_keeps_the_gift_is_caught() -> None:
    fails(explore(cancel_against_wake("cancel", _KeepsTheGift), all_home), "and 0 are held")


@pytest.mark.parametrize("wake", [Wake.FIFO, Wake.ANY_FIT])
def test_a_cancelled_waiter_hands_on_to_the_next(wake: Wake) -> None:
    def scene(world: World) -> list[tuple[str, Body]]:
        pool = fixed(world, "x", wake=wake)
        x = pool.alloc()
        return [
            ("a", lambda: pool.free(pool.alloc())),
            ("b", lambda: [pool.alloc()]),
            ("f", lambda: pool.free(x)),
            ("c", lambda: world.interrupt(world.actors[0], "cancel")),
        ]

    explored = holds(explore(scene, all_home, parked=2))
    assert {dict(ending)["b"] for ending in explored.endings} == {"['x']"}
    assert {dict(ending)["a"] for ending in explored.endings} == {"None", "'cancelled'"}


def test_a_newcomer_on_the_fast_path_against_park_and_free() -> None:
    def scene(world: World) -> list[tuple[str, Body]]:
        pool = fixed(world, "x")
        x = pool.alloc()

        def newcomer() -> None:
            element = pool.try_alloc()
            if element is not None:
                pool.free(element)

        return [("a", lambda: [pool.alloc()]), ("f", lambda: pool.free(x)), ("n", newcomer)]

    holds_so_far(scene, everything=FUZZING)


def test_two_frees_against_a_bulk() -> None:
    def scene(world: World) -> list[tuple[str, Body]]:
        pool = fixed(world, "xy")
        x, y = pool.alloc(), pool.alloc()
        return [
            ("a", lambda: pool.alloc_bulk(2)),
            ("f", lambda: pool.free(x)),
            ("g", lambda: pool.free(y)),
        ]

    holds(explore(scene, all_home, max_runs=100_000))


def test_without_a_reserve_a_free_to_the_backend_is_seen() -> None:
    def scene(world: World) -> list[tuple[str, Body]]:
        pool = dress(world, Backed(Stepped(world, room=1), min_count=0, runtime=world, name="p"))
        x = pool.alloc()
        return [("a", lambda: [pool.alloc()]), ("f", lambda: pool.free(x))]

    holds_so_far(scene, everything=FUZZING)


def test_a_kick_against_a_park() -> None:
    def scene(world: World) -> list[tuple[str, Body]]:
        shelf = Stepped(world)
        pool = dress(world, Backed(shelf, min_count=1, runtime=world, name="p"))
        pool.alloc_preallocated()
        shelf.shut()

        def recover() -> None:
            world.point()
            shelf.room = None
            pool.kick()

        return [("a", lambda: [pool.alloc(), "element 1"]), ("k", recover)]

    holds(explore(scene, all_home))


class _RefusesWithoutALastLook(Fixed):  # type: ignore[misc]
    """refuse() that publishes, and trusts the look before it."""

    def refuse(self, made: Any, count: int) -> None:
        with self._guard:
            self._above.due = True
            self._gate |= REFUSED


def refusal_against_free(kind: Any = Fixed) -> Callable[[World], list[tuple[str, Body]]]:
    """A pool over this one asks as pools do; somebody else gives the one element back."""

    def scene(world: World) -> list[tuple[str, Body]]:
        pool = fixed(world, "x", kind)
        x = pool.alloc()
        told: list[str] = []
        step_refusals(world, pool)
        pool.on_room(lambda: told.append("told"))

        def ask() -> list[str]:
            element = pool.alloc(Gfp.KERNEL | Gfp.NORETRY)
            return told if element is None else [element]

        return [("a", ask), ("f", lambda: pool.free(x))]

    return scene


class Told(Stepped):
    """A backend that says when it has what it refused."""

    def __init__(self, world: World, room: int) -> None:
        super().__init__(world, room)
        self.due, self.calls = False, list[Callable[[], object]]()

    def on_room(self, call: Callable[[], object]) -> None:
        self.calls.append(call)

    def alloc(self, gfp: Gfp) -> str | None:
        element = super().alloc(gfp)
        if element is None:
            self.due = True
            element = super().alloc(gfp)
        return element

    def free(self, element: str) -> None:
        super().free(element)
        self.world.point(lambda: self.due)
        if self.due:
            self.due = False
            for call in self.calls:
                call()


def test_three_levels_down_what_comes_back_is_heard_of() -> None:
    def scene(world: World) -> list[tuple[str, Body]]:
        below = Told(world, room=1)
        pool = dress(world, Backed(below, min_count=0, runtime=world, name="p"))
        x = below.alloc(Gfp.KERNEL)
        told: list[str] = []
        step_refusals(world, pool)
        pool.on_room(lambda: told.append("told"))

        def ask() -> list[str]:
            element = pool.alloc(Gfp.KERNEL | Gfp.NORETRY)
            return told if element is None else [element]

        return [("a", ask), ("f", lambda: below.free(x))]

    holds(explore(scene, told_or_served))


def told_or_served(world: World) -> None:
    world.pool.check_invariants()
    assert world.actors[0].result, "refused, and not told that there is one now"


def test_who_was_refused_for_a_pool_above_hears_of_what_comes_back() -> None:
    explored = holds(explore(refusal_against_free(), told_or_served))
    assert {dict(ending)["a"] for ending in explored.endings} == {"['x']", "['told']"}
    fails(explore(refusal_against_free(_RefusesWithoutALastLook), told_or_served), "not told")


def test_cancelled_is_not_an_exception_that_pools_catch() -> None:
    assert not issubclass(Cancelled, Exception)
