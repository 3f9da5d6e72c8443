"""What a block may hold, now and after a power cut: a list of what was written to it, and two marks in it."""

from __future__ import annotations

from typing import Final

ANY: Final = -1  # discarded: nobody knows


class Block:
    """`acked`: the last write that was answered; `durable`: the last that a flush, or FUA, covers.

    Written by one user, one write after the other. A write that failed may have happened.
    """

    __slots__ = ("acked", "durable", "written")

    def __init__(self) -> None:
        self.written = [0]
        self.acked = 0
        self.durable = 0

    def write(self, value: int) -> int:
        """A write begins; its number."""
        self.written.append(value)
        return len(self.written) - 1

    def check(self, data: bytes, number: int, *, after_cut: bool) -> None:
        """Raises: AssertionError if this cannot be what it holds."""
        allowed = self.written[self.durable if after_cut else self.acked :]
        if ANY in allowed:
            return
        found = set(data)
        assert len(found) == 1, f"block {number} is torn: {sorted(found)}"
        assert found <= set(allowed), (
            f"block {number} has {found.pop()}, and {allowed} is what it may have; written were "
            f"{self.written}, answered up to {self.acked}, durable up to {self.durable}"
        )
