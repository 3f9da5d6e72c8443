"""Making room: harder and harder, cheapest first, never inside itself."""

from __future__ import annotations

from typing import Any

import pytest

from headway.core.mm.gfp import Gfp, Scope
from headway.core.mm.reclaim import MAX_RECLAIM_RETRIES, MAX_ROUNDS, Patience, Reclaim
from headway.core.mm.shrinker import ScanControl
from headway.runtimes.threads import THREADS
from tests.core.mm.test_shrinker import Things


def direct(reclaim: Reclaim, pages: int = 1, gfp: Gfp = Gfp.KERNEL, scope: int = 0) -> int:
    return THREADS.run(reclaim.direct(gfp, scope, "a", pages))


def test_it_asks_gently_first_and_ends_when_enough_is_freed() -> None:
    reclaim = Reclaim(THREADS)
    things = Things(100_000)
    reclaim.shrinkers.register(things)
    assert 32 <= direct(reclaim) < 1000
    assert things.count > 99_000
    assert direct(reclaim, 5000) >= 5000


def test_a_few_objects_are_found_at_last() -> None:
    reclaim = Reclaim(THREADS)
    things = Things(3)
    reclaim.shrinkers.register(things, object_pages=4)
    assert direct(reclaim) == 12 and things.count == 0
    assert direct(reclaim) == 0
    assert (reclaim.runs, reclaim.freed_pages) == (2, 12)


def test_dear_objects_are_left_while_cheap_ones_are_enough_and_equals_share() -> None:
    reclaim = Reclaim(THREADS)
    dear, one, other = Things(10_000), Things(10_000), Things(10_000)
    reclaim.shrinkers.register(dear, seeks=8, batch=32)
    reclaim.shrinkers.register(one, batch=32)
    reclaim.shrinkers.register(other, batch=32)
    for _ in range(50):
        direct(reclaim)
    assert dear.count > 9_500
    assert abs(one.count - other.count) <= 32 and one.count < 9_500


def test_a_run_is_in_a_noreclaim_scope_and_its_depth_is_counted() -> None:
    reclaim = Reclaim(THREADS)
    seen: list[ScanControl] = []

    class Enters(Things):
        def scan_objects(self, control: ScanControl) -> int:
            seen.append(control)
            if len(seen) == 1:
                direct(reclaim)  # what a shrinker must not do
            return super().scan_objects(control)

    reclaim.shrinkers.register(Things(0))
    direct(reclaim)
    assert reclaim.deepest == 1
    reclaim.shrinkers.register(Enters(1))
    direct(reclaim, scope=int(Scope.NOFS))
    assert seen[0].scope == Scope.NOFS | Scope.NORECLAIM
    assert reclaim.deepest == 2, "and so it is seen"


def test_depth_is_put_back_when_a_run_is_thrown_out() -> None:
    reclaim = Reclaim(THREADS)

    class Interrupted(Things):
        def scan_objects(self, control: ScanControl) -> int:
            raise KeyboardInterrupt

    one = reclaim.shrinkers.register(Interrupted(1))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            direct(reclaim)
    assert reclaim.deepest == 1
    one.unregister()


def test_progress_gives_hope_to_the_background() -> None:
    told: list[str] = []

    class Background:
        hopeless = True

        def progress(self) -> None:
            told.append("hope")

    reclaim = Reclaim(THREADS)
    background: Any = Background()
    reclaim.background = background
    direct(reclaim)
    assert told == []
    reclaim.shrinkers.register(Things(1))
    direct(reclaim)
    assert told == ["hope"]


def test_t3_3_sixteen_fruitless_rounds_and_any_progress_starts_again() -> None:
    patience = Patience()
    assert all(patience.bears(0) for _ in range(MAX_RECLAIM_RETRIES))
    assert not patience.bears(0)
    assert patience.bears(1)
    assert [patience.bears(0) for _ in range(17)] == [True] * 16 + [False]


def test_what_is_only_called_progress_is_not_borne_for_ever() -> None:
    patience = Patience()
    assert [patience.bears(1) for _ in range(MAX_ROUNDS + 1)] == [True] * MAX_ROUNDS + [False]
