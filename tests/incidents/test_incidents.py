"""Each incident ends as documented: broken, and with each of its fixes."""

from __future__ import annotations

import pytest

from headway.errors import UsageError
from headway.incidents import INCIDENTS, e_002, e_kmap, find, listing
from headway.incidents.stage import (
    CLEAN_ERROR,
    DEADLOCK,
    DONE,
    EARLY_KILL,
    LIVELOCK,
    Stage,
)

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


@pytest.mark.parametrize("tasks", [2, 3, 8])
def test_kmap_any_number_of_tasks_hangs_up_to_as_many_slots(tasks: int) -> None:
    for slots in range(2, tasks + 1):
        assert e_kmap.play(Stage(), None, tasks=tasks, slots=slots) == DEADLOCK
    assert e_kmap.play(Stage(), "capacity", tasks=tasks) == DONE
    assert e_kmap.play(Stage(), "together", tasks=tasks, slots=2) == DONE


def test_t42_000d_no_flag_against_merging_helps_where_one_cache_serves_both() -> None:
    flags = ("constructor", "no-merge-bio", "no-merge-sense", "no-merge-both")
    assert {find("E-000d").run(fix)[1] for fix in flags} == {LIVELOCK}
    assert "K: takes the host's spare command" in lines("E-000d", "spare")


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


def test_all_dirty_the_circuit_writes_every_page() -> None:
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


def test_t710_blocking_scan_trylock_and_queued_work() -> None:
    assert "loop: scans and wants L -> it waits" in lines("E-001c")
    assert "loop: scans -> L is taken: STOP" in lines("E-001c", "trylock")
    queued = lines("E-001c", "queued")
    assert queued.index("P: has reclaimed") < queued.index("loop: writes block 0")


@pytest.mark.parametrize(("workers", "pages"), [(1, 2), (1, 4), (2, 3), (3, 7)])
def test_t81_with_more_pages_than_workers_every_worker_waits(workers: int, pages: int) -> None:
    stage = Stage()
    assert e_002.play(stage, None, workers=workers, page_count=pages) == DEADLOCK
    story = [str(event) for event in stage.events]
    assert sum(line.endswith("is under writeback -> waits for it") for line in story) == workers
    assert [line for line in story if line.endswith("for ever")] == [
        "flusher: waits -> for ever",
        *(f"W {number}: waits -> for ever" for number in range(1, workers + 1)),
    ]
    for fix in ("noio", "may-enter-fs", "after-batch", "timed", "dirty-throttling"):
        assert e_002.play(Stage(), fix, workers=workers, page_count=pages) == DONE
    assert e_002.play(Stage(), "fs-scope", workers=workers, page_count=pages) == DEADLOCK


def test_t81_with_as_many_workers_as_pages_it_is_only_slow() -> None:
    assert e_002.play(Stage(), None, workers=3, page_count=3) == DONE


def test_t82_without_the_wait_a_writer_is_killed_while_the_device_writes() -> None:
    killed = lines("E-002b").index(
        "writer: finds nothing to reclaim -> out of memory: it is killed"
    )
    assert any("the data of p1 is written" in line for line in lines("E-002b")[killed:])
    assert find("E-002b").run("may-enter-fs")[1] == EARLY_KILL
    assert "reclaims: p1 is under writeback -> waits for it" in "".join(lines("E-002b", "wait"))


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
