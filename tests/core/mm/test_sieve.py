"""Which object goes next: SIEVE by its definition, and beside least-recently-used order."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.mm.sieve import Entry, Sieve


def sieved(uses: Sequence[int], room: int) -> tuple[int, Sieve[int, None]]:
    sieve: Sieve[int, None] = Sieve()
    entries: dict[int, Entry[int, None]] = {}
    hits = 0
    for key in uses:
        if key in entries:
            hits += 1
            entries[key].used = True
            continue
        while len(entries) >= room:
            entry = sieve.look()
            assert entry is not None
            if entry.used:
                entry.used = False
            else:
                sieve.remove(entry)
                del entries[entry.key]
        entries[key] = Entry(key, None, 1)
        sieve.add(entries[key])
    return hits, sieve


def modelled(uses: Sequence[int], room: int) -> int:
    """SIEVE in ten lines, on a plain list: oldest first, and a hand."""
    queue: list[list[int]] = []
    hand = hits = 0
    for key in uses:
        found = [item for item in queue if item[0] == key]
        if found:
            hits += 1
            found[0][1] = 1
            continue
        while len(queue) >= room:
            if queue[hand][1]:
                queue[hand][1] = 0
                hand += 1
            else:
                del queue[hand]
            hand = hand if hand < len(queue) else 0  # from the youngest back to the oldest
        queue.append([key, 0])
    return hits


@given(uses=st.lists(st.integers(0, 12), max_size=200), room=st.integers(1, 8))
def test_sieve_against_its_definition(uses: list[int], room: int) -> None:
    hits, sieve = sieved(uses, room)
    sieve.check_invariants()
    assert hits == modelled(uses, room)


@pytest.mark.parametrize("skew", [0.7, 0.9, 1.1])
def test_sieve_hits_more_often_than_least_recently_used_under_zipf(skew: float) -> None:
    chance = random.Random(1)
    weights = [1 / rank**skew for rank in range(1, 3001)]
    uses = chance.choices(range(3000), weights, k=30_000)
    hits, lru = 0, OrderedDict[int, None]()
    for key in uses:
        hits += key in lru
        lru[key] = None
        lru.move_to_end(key)
        if len(lru) > 1000:
            lru.popitem(last=False)
    assert sieved(uses, 1000)[0] > hits
