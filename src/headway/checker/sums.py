"""The unsafe sizes of a pool all at once, by adding up what tasks can hold; for the plain case that is most common.

Plain is: one pool, and no task gives anything back between two of its requests. Then whatever tasks hold
together fits into any size that is no smaller, so each can first take what it holds, one after the other,
and no search is needed: a size R is unsafe if and only if some tasks hold H in all, leave f = R - H free, and
are stuck at f. Any-fit: each wants more than f. FIFO: one does, asks first, and the others are behind it.

Sets of sums are the bits of one integer. Bound: for each class of f with the same requests too large,
tasks times local states additions of sets, each a shift.

Source: T2 of the theory of reserves, as sets instead of their greatest element; so holes come out too.
"""

from __future__ import annotations

from headway.checker.locals import Local, Locals
from headway.checker.model import FIFO


def is_plain(locals_: Locals) -> bool:
    """Whether the sums tell the whole truth about a model."""
    if len(locals_.model.pools) != 1:
        return False
    for local in locals_.all:
        for target, _ in local.after:
            if target is not None and target.held[0] != local.held[0] + _wants(local):
                return False
    return True


def unsafe_sizes(locals_: Locals, most: int | None = None) -> int:
    """A set of bits: bit R is set if a pool of R units can deadlock, of a plain model.

    With `most` the bits up to there are told, and no larger sum is followed.
    """
    kept = -1 if most is None else (1 << most + 1) - 1
    actors = locals_.model.actors
    present = [local for local in locals_.all if actors[local.actor].count]
    edges = sorted({_wants(local) for local in present} - {0})
    found = 0
    least = 0
    for most in edges:  # free units from `least` to `most - 1`: the same requests are too large
        held = _held_by_stuck(locals_, present, least, kept)
        found |= _smeared(held, most - least) << least
        least = most
    return found & ~1  # a pool has one unit at least


def _held_by_stuck(locals_: Locals, present: list[Local], free: int, kept: int) -> int:
    """What sets of tasks can hold in all that are stuck while `free` units are left, as bits."""
    fifo = locals_.model.wake == FIFO
    some, none = 0, 1  # the sums with a request that does not fit among them, and without
    for index, actor in enumerate(locals_.model.actors):
        mine = [local for local in present if local.actor == index]
        blocked = {local.held[0] for local in mine if _wants(local) > free}
        others = {local.held[0] for local in mine if local.wants is None or fifo}
        for _ in range(actor.count):
            before = some, none
            for held in blocked:
                some |= (before[0] | before[1]) << held
            for held in others:
                some |= before[0] << held
                none |= before[1] << held
            some, none = some & kept, none & kept
            if (some, none) == before:
                break
    return some


def _smeared(bits: int, width: int) -> int:
    """Every bit and the `width - 1` bits above it."""
    done = 1
    while done < width:
        step = min(done, width - done)
        bits |= bits << step
        done += step
    return bits


def _wants(local: Local) -> int:
    return local.wants[0] if local.wants is not None else 0
