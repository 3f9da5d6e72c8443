"""How many frames there are, how many connections they carry, and who may have one more.

It hands out numbers, not memory: whoever serves takes the frames from a mempool, and tells the
kernel how much it may keep for a socket. Three quarters of the memory are frames, with one line per
holder:

    3                   the loop's: one to receive into, one to pack replies in, and one for the
                        moment in which a connection changes one frame for another
    OWN x connections   each connection's own: unfinished input, and an unsent reply
    the rest            spare, for requests that wait for a device

So a connection always gets its own two and never waits for another's; one that stops reading holds
what it has and costs the others nothing. Of the spare a connection may hold half of what is free at
that moment (a dynamic threshold): one that works alone gets a third of all, and each that takes all
it can leaves two thirds of what it found. With none left, whoever serves takes back those that hold
replies for clients that do not read; then a connection goes on with its own two.

One quarter is for what the kernel keeps of replies that were sent and not read: it counts against a
process's memory group as frames do. Half of it is shared out evenly, and of the other half each
newcomer gets a sixteenth of what is free, as large buffers are quicker.

Source: Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches".
"""

from __future__ import annotations

from typing import Final, final

from headway.core.units import format_size
from headway.errors import UsageError

OWN: Final = 2
_LOOP: Final = 3
_FRAMES: Final = 128  # at least so many, if the smallest frame allows
_LARGEST: Final = 256 << 10
_SMALLEST: Final = 16 << 10
_LEAST: Final = _LOOP + OWN + 1
_KERNEL_MOST: Final = 1 << 20


@final
class Window:
    """The frames of one server. Changed by one thread only."""

    __slots__ = (
        "connection_limit",
        "frame_count",
        "frame_size",
        "kernel_floor",
        "kernel_free",
        "memory",
        "spare",
        "spare_free",
    )

    def __init__(self, memory: int) -> None:
        """Raises: UsageError if `memory` (bytes) is too little for one connection."""
        self.memory = memory
        framed = memory * 3 // 4
        size = _LARGEST
        while size > _SMALLEST and framed // size < _FRAMES:
            size //= 2
        count = framed // size
        if count < _LEAST:
            least = format_size(_LEAST * _SMALLEST * 4 // 3)
            raise UsageError(
                f"memory is {format_size(memory)}; serving one connection needs {least} or more"
            )
        self.frame_size = size
        self.frame_count = count
        # three quarters of what can be given away go to connections, at least one frame is spare
        self.connection_limit = max(1, (count - _LOOP) * 3 // 4 // OWN)
        self.spare = count - _LOOP - OWN * self.connection_limit
        self.spare_free = self.spare
        self.kernel_floor = memory // 8 // self.connection_limit
        self.kernel_free = memory // 4 - self.kernel_floor * self.connection_limit

    def take_spare(self, held: int) -> bool:
        """Whether a connection that holds `held` spare frames may have another; it then has it."""
        if held and held >= self.spare_free // 2:
            return False
        if not self.spare_free:
            return False
        self.spare_free -= 1
        return True

    def give_spare(self) -> None:
        self.spare_free += 1
        assert self.spare_free <= self.spare

    def take_kernel(self) -> int:
        """How many bytes the kernel may keep for a new connection, to be given back at its end."""
        extra = max(0, min(self.kernel_free // 16, _KERNEL_MOST - self.kernel_floor))
        self.kernel_free -= extra
        return self.kernel_floor + extra

    def give_kernel(self, granted: int) -> None:
        self.kernel_free += granted - self.kernel_floor

    def __repr__(self) -> str:
        return (
            f"<Window {self.frame_count} frames of {format_size(self.frame_size)}, "
            f"{self.connection_limit} connections, {self.spare_free} of {self.spare} spare free>"
        )
