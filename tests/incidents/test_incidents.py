"""Each incident ends as documented: broken, and with each of its fixes."""

from __future__ import annotations

from itertools import product

import pytest

from headway.core.mm.gfp import Gfp
from headway.errors import UsageError
from headway.incidents import INCIDENTS, e_002, find, listing
from headway.incidents.e_002 import Case, Page, Rule, case_of
from headway.incidents.stage import CLEAN_ERROR, DEADLOCK, DONE, LIVELOCK, Stage

RUNS = [
    (incident.id, fix)
    for incident in INCIDENTS
    for fix in (None, *(its.name for its in incident.fixes))
]


@pytest.mark.parametrize(("name", "fix"), RUNS)
def test_an_incident_ends_as_documented(name: str, fix: str | None) -> None:
    incident = find(name, fix)
    events, ended = incident.run(fix)
    assert ended == incident.documented(fix)
    assert events
    if fix is None:
        assert ended not in (DONE, CLEAN_ERROR)
        assert any(its.ends in (DONE, CLEAN_ERROR) for its in incident.fixes)


@pytest.mark.parametrize(("name", "fix"), RUNS)
def test_a_replay_is_the_same_each_time(name: str, fix: str | None) -> None:
    assert find(name).run(fix) == find(name).run(fix)


def lines(name: str, fix: str | None = None) -> list[str]:
    return [str(event) for event in find(name).run(fix)[0]]


def test_d0_the_allocator_is_never_entered_twice_once_io_is_stripped() -> None:
    assert any("with IO, depth 6" in line for line in lines("E-D0"))
    assert not any("depth 2" in line for line in lines("E-D0", "strip-io"))


def test_d1_the_reserve_goes_from_four_to_three() -> None:
    assert "IRQ: drops its completion work -> 4 elements lie idle" in lines("E-D1")
    assert "IRQ: alloc (ATOMIC) from P -> an element, 3 left" in lines(
        "E-D1", "reserve-before-null"
    )


def test_d2_the_waiter_sleeps_beside_an_element() -> None:
    assert lines("E-D2")[-1].startswith("P: has elements in its reserve")


def test_t42_000_livelocks_step_by_step_beside_an_idle_spare() -> None:
    story = lines("E-000")
    taken = [line for line in story if "from the slab" in line]
    assert taken[1:4] == [f"T2: bio #{n} -> from the slab" for n in (1, 2, 3)], "beside the sense"
    assert [line for line in story if "no sense buffer" in line] == [
        f"K: at {at} s: no sense buffer -> {waiting} writes wait, none is in flight, "
        "a spare command lies idle"
        for at, waiting in ((0, 6), (5, 7), (10, 7))
    ]


def test_t42_000_with_the_spare_or_the_watermark_nobody_takes_what_the_driver_needs() -> None:
    assert "K: takes the host's spare command" in lines("E-000", "spare")
    robust = lines("E-000", "watermark")
    start = robust.index("K: starts a write -> 1 in flight")
    done = robust.index("D: completes a write -> 1 of 10")
    assert not any("from the slab" in line for line in robust[start:done])


def test_t42_000b_tells_which_cache_must_not_be_merged() -> None:
    ends = {fix: find("E-000b").run(fix)[1] for fix in ("no-merge-bio", "no-merge-sense")}
    assert ends == {"no-merge-bio": LIVELOCK, "no-merge-sense": DONE}


def test_003_the_single_task_holds_what_it_waits_for() -> None:
    assert lines("E-003").count("T1: bounce #1 from P -> an element, 1 left") == 2
    assert "T1: waits -> for ever" in lines("E-003")
    assert "T2: waits -> for ever" in lines("E-003")


def test_vllm_a_larger_pool_hangs_where_a_smaller_one_is_safe() -> None:
    assert find("M-VLLM").run("one-less")[1] == find("M-VLLM").run("one-more")[1] == DONE
    assert "A: asks for 1 of blocks -> 0 left: it waits" in lines("M-VLLM")


def test_spill_the_room_is_in_the_neighbours_hands() -> None:
    freed = lines("M-SPILL").index("sorter: gives the room back, to spill into it to memory")
    assert lines("M-SPILL")[freed + 1].startswith("neighbour: takes page #1")


def test_release_the_reserve_serves_the_first_who_gives_back() -> None:
    story = lines("M-RELEASE", "reserve")
    assert (
        "request 1: takes a thread to clean up from the thread for clean-up -> an element, 0 left"
        in story
    )


def test_t36_all_dirty_the_circuit_writes_every_page() -> None:
    for fix in ("mempool", "admission"):
        assert any(
            line.startswith("write-out: writes a page -> 0 dirty")
            for line in lines("all-dirty", fix)
        )


def test_t54_rescue_the_pieces_start_while_the_driver_waits_only_with_a_rescuer() -> None:
    wait = "T1: asks B for piece #3 -> the reserve is empty: it waits"
    assert wait in lines("E-RESCUE") and not any("starts" in line for line in lines("E-RESCUE"))
    rescued = lines("E-RESCUE", "rescuer")
    starts = [line for line in rescued[rescued.index(wait) :] if "starts" in line]
    assert starts[0].startswith("R") and starts[1].startswith("R")
    assert starts[2] == "T1: starts piece #3"


def test_t71_reclaim_waits_for_the_lock_as_long_as_the_allocation_is_throttled() -> None:
    assert "R1: has waited 2.0 s" in lines("E-001") and "R2: has waited 2.0 s" in lines("E-001")
    assert "R1: has waited 4.0 s" in lines("E-001", "may-fail")
    for fix in ("drop-lock", "noio-once", "no-lock-count", "trylock"):
        assert not any("has waited" in line for line in lines("E-001", fix))
    assert "R1: counts, without L -> 2 buffers" in lines("E-001", "no-lock-count")


@pytest.mark.parametrize(("workers", "pages"), [(1, 2), (2, 3), (3, 8), (2, 2), (4, 3)])
def test_t81_002_every_worker_waits_where_there_are_more_items(workers: int, pages: int) -> None:
    """With as many workers as items it is slow; with fewer nobody is left."""
    ends = {}
    for fix in (None, *(its.name for its in e_002.INCIDENT.fixes)):
        stage = Stage()
        ends[fix] = e_002.play(stage, fix, pages=pages, workers=workers, writer=False)
        waits = [event.actor for event in stage.events if event.action == "waits"]
        if ends[fix] == DEADLOCK:
            assert sorted(waits) == [f"W{number + 1}" for number in range(workers)]
    hangs = DEADLOCK if workers < pages else DONE
    assert ends.pop(None) == ends.pop("nofs-scope") == hangs
    assert set(ends.values()) == {DONE}, "each of the others is progress"


def test_t82_002_without_the_wait_the_group_is_killed_while_its_pages_get_clean() -> None:
    assert lines("E-002", "no-wait")[1].startswith("T: is killed: out of memory -> 4 pages would")
    for fix in ("fs-test", "after-batch", "timed", "group-dirty"):
        assert "T: has page 2 of 2" in lines("E-002", fix), "what replaces the wait"
    assert "T: was throttled -> until a write ended" in lines("E-002", "after-batch")
    assert "T: was throttled -> for 100 ms" in lines("E-002", "timed"), "bounded, and imprecise"
    assert not any("waits" in line or "throttled" in line for line in lines("E-002", "group-dirty"))


KSWAPD_CASES = [
    # kswapd, flagged, many: the first case of all, whatever the mask
    (True, True, True, Case.IMMEDIATE),
    (True, True, False, Case.LATER),
    (True, False, True, Case.LATER),
    (False, True, True, Case.LATER),
]


@pytest.mark.parametrize(("kswapd", "flagged", "many", "case"), KSWAPD_CASES)
def test_t83_the_background_counts_and_goes_on(
    kswapd: bool, flagged: bool, many: bool, case: Case
) -> None:
    page = Page("p", reclaim=flagged)
    assert case_of(page, Gfp.KERNEL, group=None, kswapd=kswapd, many=many) is case


WAITS = [  # mask, of the swap cache, through a file: may it wait under the rule of 3.6, and of 4.2
    (Gfp.KERNEL, False, False, True, True),
    (Gfp.KERNEL, True, True, True, True),
    (Gfp.NOFS, False, False, True, False),
    (Gfp.NOFS, True, False, True, True),
    (Gfp.NOFS, True, True, True, False),
    (Gfp.NOIO, False, False, False, False),
    (Gfp.NOIO, True, False, False, False),
    (Gfp.NOIO, True, True, False, False),
]


@pytest.mark.parametrize(("gfp", "swap", "by_fs", "with_io", "with_fs"), WAITS)
def test_t83_who_waits_for_a_page(
    gfp: Gfp, swap: bool, by_fs: bool, with_io: bool, with_fs: bool
) -> None:
    """Only in a group of version 1, at the second encounter, where the mapping allows it."""
    rules = {Rule.IO: with_io, Rule.FS: with_fs, Rule.NOBODY: False}
    for rule, may_wait in rules.items():
        for group, flagged, deadlocks in product((None, 1, 2), (False, True), (False, True)):
            page = Page("p", reclaim=flagged, swap=swap, swap_by_fs=by_fs, may_deadlock=deadlocks)
            waits = may_wait and group == 1 and flagged and not deadlocks
            assert case_of(page, gfp, group=group, rule=rule) is (
                Case.WAIT if waits else Case.LATER
            )


def test_t710_blocking_scan_trylock_and_queued_work() -> None:
    assert "loop: scans and wants L -> it waits" in lines("E-001c")
    assert "loop: scans -> L is taken: STOP" in lines("E-001c", "trylock")
    queued = lines("E-001c", "queued")
    assert queued.index("P: has reclaimed") < queued.index("loop: writes block 0")


def test_names_are_found_in_any_case_and_wrong_ones_are_told() -> None:
    assert find("e-d2B").id == "E-D2b"
    with pytest.raises(
        UsageError, match="not known; there are E-D0, E-D1, E-D2, E-D2b, E-000, E-000b"
    ):
        find("E-9")
    with pytest.raises(UsageError, match="no fix 'x'; it has capacity, unwind, private, submit"):
        find("E-003", "x")


def test_the_listing_has_every_incident() -> None:
    assert [row["id"] for row in listing()["incidents"]] == [i.id for i in INCIDENTS]
