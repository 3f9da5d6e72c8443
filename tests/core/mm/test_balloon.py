"""The balloon: what it may take from a zone, what it leaves, and how fast it goes and comes back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.mm.balloon import PRESSURE, Balloon, Pace, run_order
from headway.core.mm.gfp import Gfp
from headway.core.mm.pages import PageRun
from headway.core.mm.shrinker import STOP, ScanControl
from headway.core.mm.watermarks import Watermarks
from headway.core.mm.zone import Zone
from headway.runtimes.threads import THREADS


class System:
    """Where the bytes go: it takes and gives as told."""

    def __init__(self) -> None:
        self.has: set[PageRun] = set()
        self.takes = self.gives = True

    def release(self, run: PageRun) -> bool:
        if self.takes:
            self.has.add(run)
        return self.takes

    def restore(self, run: PageRun) -> bool:
        if self.gives:
            self.has.remove(run)
        return self.gives


def make(marks: Watermarks | None = None) -> tuple[Zone, Balloon, System]:
    zone = Zone(256, marks or Watermarks(0, 0, 0), runtime=THREADS)
    system = System()
    return zone, Balloon(zone, THREADS, system.release, system.restore), system


@pytest.mark.parametrize(
    ("pages", "order"), [(1, 0), (15, 0), (16, 0), (32, 1), (256, 4), (8192, 9), (1 << 20, 9)]
)
def test_small_zones_have_small_runs(pages: int, order: int) -> None:
    assert run_order(pages) == order


def test_floors_and_the_mark_high_stay() -> None:
    zone, balloon, system = make(Watermarks(10, 20, 30))
    share = zone.share(4, floor_count=3)
    assert balloon.inflate(1000) == balloon.out_pages == 11 * 16, "256 - 48 - 30, in whole runs"
    assert sum(run.page_count for run in system.has) == balloon.out_pages
    held = [share.alloc(Gfp.KERNEL) for _ in range(3)]
    assert None not in held, "the floor is there"
    zone.check_invariants()
    assert balloon.deflate(17) == 32 and balloon.out_pages == 9 * 16
    assert balloon.deflate(1000) == 144 and not system.has
    assert zone.stats().share_count == 1, "an empty balloon stands in nobody's way"


def test_what_the_system_refuses_is_not_out() -> None:
    zone, balloon, system = make()
    system.takes = False
    assert balloon.inflate(50) == 0 and zone.stats().share_count == 0
    system.takes = True
    assert balloon.inflate(50) == 64
    system.gives = False
    assert balloon.deflate(1) == 0 and balloon.out_pages == 64
    balloon.end()
    assert zone.stats().held_pages == 0


def test_floors_that_leave_no_run_leave_no_balloon() -> None:
    zone, balloon, _ = make()
    zone.share(0, floor_count=250)
    assert balloon.spare_pages() == 0 and balloon.inflate(1) == 0


def test_the_zone_s_own_requests_come_first_but_not_who_inflates() -> None:
    _, balloon, system = make()
    balloon.inflate(256)
    assert balloon.count_objects(ScanControl(Gfp.KERNEL, 0, PRESSURE)) == 0
    asked = ScanControl(Gfp.KERNEL, 0, "somebody", scan_count=2)
    assert balloon.count_objects(asked) == 16
    assert balloon.scan_objects(asked) == 2 and balloon.out_pages == 14 * 16
    system.gives = False
    assert balloon.scan_objects(asked) == STOP


def test_pressed_it_goes_fast_and_calm_it_comes_back_slowly() -> None:
    pace = Pace(margin=100, calm_s=10)
    assert pace.move(pressed=True, headroom=None, spare=1000, out=0, now_s=0) == 250
    assert pace.move(pressed=True, headroom=50, spare=100, out=0, now_s=0) == 50
    assert pace.move(pressed=False, headroom=40, spare=1000, out=0, now_s=1) == 60
    assert pace.move(pressed=False, headroom=5000, spare=0, out=800, now_s=10.9) == 0
    assert pace.move(pressed=False, headroom=5000, spare=0, out=800, now_s=11) == -100
    assert pace.move(pressed=False, headroom=230, spare=0, out=800, now_s=11) == -30
    assert pace.move(pressed=False, headroom=200, spare=0, out=800, now_s=11) == 0
    assert pace.move(pressed=False, headroom=None, spare=0, out=3, now_s=11) == -1
    assert pace.move(pressed=False, headroom=None, spare=9, out=0, now_s=99) == 0


@settings(max_examples=100, derandomize=True)
@given(
    margin=st.integers(0, 50),
    start=st.integers(0, 300),
    spare=st.integers(0, 300),
    out=st.integers(0, 300),
)
def test_undisturbed_it_settles_and_does_not_swing(
    margin: int, start: int, spare: int, out: int
) -> None:
    """Moves of one's own never call for a move the other way: room outside is what is given."""
    pace = Pace(margin, calm_s=0)
    headroom, moves = start, []
    while not moves or moves[-1]:
        move = pace.move(pressed=False, headroom=headroom, spare=spare, out=out, now_s=len(moves))
        moves.append(min(move, spare))
        headroom, spare, out = headroom + moves[-1], spare - moves[-1], out + moves[-1]
        assert len(moves) < 400, "it never settled"
    assert min(moves) == 0 or max(moves) == 0, "both ways"
    assert headroom >= margin or spare == 0
