"""A tree of budgets under pressure, as memory cgroups are (facts 8.5): charge, reclaim below, force, fail."""

from __future__ import annotations

from collections.abc import Callable

from headway.budgets import Budget
from headway.core.mm.gfp import Gfp


def test_a_tree_asks_below_the_level_that_has_too_little_and_spreads_the_pressure() -> None:
    """8.5: reclaim of a group is reclaim of all groups in it, its own first; no other group's."""
    asked: list[tuple[str, int]] = []
    hoard = {"a": 6, "b": 6, "c": 6}

    def reclaimer(name: str) -> Callable[[int], int]:
        def reclaim(units: int) -> int:
            asked.append((name, units))
            freed = min(units, hoard[name])
            hoard[name] -= freed
            tree[name].free(freed)
            return freed

        return reclaim

    root = Budget(20, name="root")
    inner = Budget(12, name="inner", parent=root)
    tree = {
        "a": Budget(parent=inner, name="a", reclaim=reclaimer("a")),
        "b": Budget(parent=inner, name="b", reclaim=reclaimer("b")),
        "c": Budget(parent=root, name="c", reclaim=reclaimer("c")),
    }
    for budget in tree.values():
        budget.alloc(6)
    assert inner.alloc(2) and asked == [("a", 2)]
    assert inner.alloc(2) and asked[1:] == [("b", 2)], "one more, and it is another's turn"
    assert inner.alloc(6) and asked[2:] == [("a", 6), ("b", 2)], "what the first has not, the next"
    assert hoard["c"] == 6, "its limit is not the one that was met"
    assert Budget(parent=root, name="d").alloc(4) and asked[4:] == [("a", 4), ("b", 4), ("c", 2)]
    tree["c"].free(4)
    tree["c"].close()
    asked.clear()
    assert not root.alloc(20, Gfp.KERNEL | Gfp.NORETRY)
    assert {name for name, _ in asked} == {"a", "b"}, "who is closed is asked no more"


def test_high_passes_limits_that_allow_force_where_others_fail() -> None:
    """8.5: who may neither wait nor fail is charged over the limit, at every level that allows it."""
    root = Budget(4, force=True)
    child = Budget(parent=root, force=True, name="child")
    child.alloc(4)
    assert not child.alloc(1, Gfp.NOWAIT)
    assert not child.alloc(1, Gfp.ATOMIC | Gfp.NOMEMALLOC)
    assert child.alloc(1, Gfp.ATOMIC) and (root.used, child.used) == (5, 5)
    assert root.stats().forced_count == child.stats().forced_count == 1
    strict = Budget(parent=root, name="strict")
    assert not strict.alloc(1, Gfp.ATOMIC), "its own limit allows no force"
