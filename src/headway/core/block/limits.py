"""Which requests a layer takes as they are, how limits combine through a stack, and where to cut.

It does not cut: `line` does, before a bio enters a layer. A limit is on one bio; a request is never
refused for its length. What is not aligned to whole blocks cannot be cut right, and is refused.

Combining is what makes one number at the top true for all below: alignments by least common multiple,
lengths by the smaller, boundaries by greatest common divisor.

Source: Linux ``block/blk-settings.c`` (``blk_stack_limits``) and ``blk-merge.c`` (6.12).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, lcm
from typing import Final, final

from headway.errors import UsageError


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes throughout. 0 means: no such limit.

    `alignment`: offsets and lengths are multiples of it. `max_length`: most bytes of one bio.
    `boundary`: one bio does not cross a multiple of it. Length and boundary are multiples of the alignment.
    """

    alignment: int = 1
    max_length: int = 0
    boundary: int = 0

    def __post_init__(self) -> None:
        if self.alignment < 1:
            raise UsageError(f"alignment is {self.alignment}: the least is 1")
        for what, value in (("max_length", self.max_length), ("boundary", self.boundary)):
            if value < 0 or value % self.alignment:
                raise UsageError(
                    f"{what} is {value}; it must be 0 or a multiple of the alignment {self.alignment}"
                )

    @property
    def free(self) -> bool:
        """True if every request is taken as it is."""
        return self.alignment == 1 and not self.max_length and not self.boundary

    def over(self, below: Limits) -> Limits:
        """What a layer with these limits of its own takes above one with limits `below`.

        Raises: UsageError if no request can satisfy both.
        """
        alignment = lcm(self.alignment, below.alignment)
        longest = [limit for limit in (self.max_length, below.max_length) if limit]
        max_length = min(longest) // alignment * alignment if longest else 0
        boundary = gcd(self.boundary, below.boundary)
        if (longest and not max_length) or boundary % alignment:
            raise UsageError(
                f"limits do not combine: blocks of {alignment} bytes, at most {min(longest, default=0)} "
                f"in a request, none across a multiple of {boundary}; choose larger requests or a "
                "larger boundary"
            )
        return Limits(alignment, max_length, boundary)

    def aligned(self, offset: int, length: int) -> bool:
        return not (offset % self.alignment or length % self.alignment)

    def front(self, offset: int, length: int) -> int:
        """How much of a request one bio may ask for; `length` itself if all of it."""
        if self.max_length and length > self.max_length:
            length = self.max_length
        if self.boundary:
            length = min(length, self.boundary - offset % self.boundary)
        return length

    def fits(self, offset: int, length: int) -> bool:
        """True if one bio may ask for it; always for one without a range (a flush)."""
        return not length or (self.aligned(offset, length) and self.front(offset, length) == length)


NO_LIMITS: Final = Limits()
