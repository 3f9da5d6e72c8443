"""What must hold of reservations at any time: the floor is what was promised, what is out is what was drawn."""

from __future__ import annotations

from typing import Any

from headway.core.mm.reservation import Reservations, Reserve


def check_sum(of: Reservations[Any], roots: list[Reserve[Any]]) -> None:
    """The floor is the sum of all trees, and what is drawn is what the zone has out for them."""

    def drawn(node: Reserve[Any]) -> int:
        return node.drawn + sum(drawn(child) for child in node.children)

    for root in roots:
        root.check_invariants()
    assert of.share.floor_count == sum(root.total for root in roots)
    assert of.share.held_count == sum(drawn(root) for root in roots) == len(of._views)
