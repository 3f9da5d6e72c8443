"""T7.8: the order of the clock, and what a hit is worth."""

from __future__ import annotations

from headway.core.block.lru import EVICT, KEEP, STOP, Clock, Verdict, last_used


class Entry:
    def __init__(self, name: str) -> None:
        self.name = name
        self.touched: float | None = None
        self.aged = 0.0


def ring(names: str) -> tuple[Clock[Entry], dict[str, Entry]]:
    clock: Clock[Entry] = Clock()
    entries = {name: Entry(name) for name in names}
    for entry in entries.values():
        clock.add(entry)
    return clock, entries


def take(clock: Clock[Entry]) -> str:
    found = clock.evict(lambda entry: EVICT)
    return "" if found is None else found.name


def test_t78_in_order_of_entrance() -> None:
    clock, _ = ring("abc")
    assert [take(clock) for _ in range(4)] == ["a", "b", "c", ""]


def test_t78_a_hit_protects_for_one_lap() -> None:
    clock, entries = ring("abc")
    entries["a"].touched = 5.0
    assert take(clock) == "b"
    assert entries["a"].touched is None and last_used(entries["a"]) == 5.0
    assert [take(clock), take(clock)] == ["c", "a"]


def test_t78_a_new_entry_goes_in_behind_the_hand() -> None:
    clock, _ = ring("abc")
    assert take(clock) == "a"
    clock.add(Entry("n"))
    assert [take(clock) for _ in range(3)] == ["b", "c", "n"]


def test_t78_all_touched_costs_two_laps_at_most() -> None:
    clock, entries = ring("abc")
    for entry in entries.values():
        entry.touched = 1.0
    asked: list[str] = []

    def judge(entry: Entry) -> Verdict:
        asked.append(entry.name)
        entry.touched = 2.0  # hits come as fast as the hand goes
        return KEEP

    assert clock.evict(judge) is None
    assert asked == ["a", "b", "c"]


def test_stop_ends_the_walk_and_removal_keeps_the_hand() -> None:
    clock, entries = ring("abcd")
    asked: list[str] = []

    def judge(entry: Entry) -> Verdict:
        asked.append(entry.name)
        return STOP if entry.name == "b" else KEEP

    assert clock.evict(judge) is None and asked == ["a", "b"]
    clock.remove(entries["b"])
    assert take(clock) == "c" and len(clock) == 2
    assert entries["a"] in clock and [entry.name for entry in clock] == ["d", "a"]
