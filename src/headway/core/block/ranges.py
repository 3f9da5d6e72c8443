"""Which writes are under way, and which must wait for them: a part of a block excludes all that touch it.

It decides nothing about bytes; `ebs` uses it. A write of whole blocks may overlap others of whole blocks, as
on any disk. One of a part of a block is a read and a write, and nothing may change the block in between:
so it overlaps no other write that is under way. Who must wait is granted in order of arrival as far as
ranges overlap, by whoever ends: nobody asks twice, and nobody is overtaken.

Bound: what is under way; a whole write is one entry and one look while there are no partial ones.

Source: own.
"""

from __future__ import annotations

from typing import NamedTuple, final

from headway.core.block.bio import Bio
from headway.core.plan import Guard


class Claim(NamedTuple):
    """A write of `start` to `end`, in bytes of whole blocks; `whole` unless only a part of them is changed."""

    start: int
    end: int
    whole: bool

    def excludes(self, other: Claim) -> bool:
        both = self.whole and other.whole
        return not both and self.start < other.end and other.start < self.end


@final
class Ranges:
    """The claims of one layer; all under the guard."""

    __slots__ = ("_active", "_guard", "_next", "_partial", "_waiting", "waits")

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._active: dict[int, Claim] = {}
        self._waiting: list[tuple[Claim, Bio]] = []
        self._partial = 0  # claims of parts, active and waiting
        self._next = 0
        self.waits = 0

    def enter_now(self, claim: Claim) -> int | None:
        """A write begins: its number, or None if it would have to wait."""
        with self._guard:
            return self._enter(claim)

    def enter(self, claim: Claim, bio: Bio) -> int | None:
        """A write begins: its number, or None: it is kept, and `leave` tells when it may."""
        with self._guard:
            number = self._enter(claim)
            if number is None:
                self._waiting.append((claim, bio))
                self._partial += not claim.whole
                self.waits += 1
            return number

    def leave(self, number: int) -> list[tuple[int, Bio]]:
        """A write has ended; those that may begin now, with their numbers."""
        with self._guard:
            self._partial -= not self._active.pop(number).whole
            granted: list[tuple[int, Bio]] = []
            if not self._waiting:
                return granted
            before, self._waiting = self._waiting, []
            for claim, bio in before:
                self._partial -= not claim.whole
                given = self._enter(claim)
                if given is None:
                    self._waiting.append((claim, bio))
                    self._partial += not claim.whole
                else:
                    granted.append((given, bio))
            return granted

    def _enter(self, claim: Claim) -> int | None:
        if self._partial or not claim.whole:
            if any(claim.excludes(other) for other in self._active.values()):
                return None
            if any(claim.excludes(other) for other, _ in self._waiting):
                return None
        self._next += 1
        self._active[self._next] = claim
        self._partial += not claim.whole
        return self._next
