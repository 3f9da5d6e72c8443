"""Which piece of a copy comes next, in which order pieces are hashed, and who gives a frame back.

It moves no bytes and starts no threads: `headway.edge.passing` does, and calls every method here under
its own lock. Two rules keep a copy moving with any number of frames, down to one:

* *Frame first, piece second.* A mover takes its frame, then asks for a piece. The lowest piece not
  yet hashed therefore always has a frame, so the hasher's turn always comes. The other way round
  two movers could fill the pool with later pieces while the earliest waits for a frame, for ever.
* *Last one out frees.* A frame is shared by a writer and a hasher; each takes a turn when done, and
  who takes the last gives it back. Nobody waits for a second frame while holding one.

Pieces out in order 2, 0, 1 leave the line as 0, 1, 2; at most the frames in flight wait in it.

Source: own; the shape (read and write in one thread, hash in another) was measured, not guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, final

from headway.core.block.device import Extent
from headway.core.mm.refused import register, unregister
from headway.core.units import format_size
from headway.errors import UsageError

PAGE = 4096  # the smallest request: what O_DIRECT accepts on every disk, and a page of the arena
REQUEST = 1 << 20  # a disk loses a third with 256 KiB
MOST_IN_FLIGHT = 8  # measured: 4 frames suffice, 8 are comfortable, more only hold memory
# Nothing waits for a disk: all frames together stay in the processor's cache.
REQUEST_IN_MEMORY, MOST_IN_MEMORY = 512 << 10, 4
RESERVE = 2  # one frame being filled and written, one being hashed
_HOLES_IN_A_ROW = 64

T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True)
class Piece:
    """One request: `length` bytes at `offset`; a hole has no frame and may be of any length."""

    number: int
    offset: int
    length: int
    hole: bool


@final
class Sequence:
    """Cuts a source into pieces, in ascending order, each given out once."""

    __slots__ = ("_extent", "_keep_holes", "_number", "_offset", "_request_size", "_run", "_size")

    def __init__(
        self, size: int, request_size: int, extent: Callable[[int], Extent], *, keep_holes: bool
    ) -> None:
        assert size >= 0 and request_size > 0
        self._size = size
        self._request_size = request_size
        self._extent = extent
        self._keep_holes = keep_holes  # False: holes are read like data
        self._offset = 0
        self._number = 0
        self._run = Extent(0, False)  # the extent the offset lies in

    def take(self) -> Piece | None:
        """The next piece, or None if all are out."""
        start = self._offset
        if start >= self._size:
            return None
        if self._keep_holes and start >= self._run.end:
            self._run = self._extent(start)
            assert self._run.end > start
        run = self._run if self._keep_holes else Extent(self._size, False)
        end = min(run.end, self._size)
        if run.hole:
            end = self._hole_from(end)
        else:
            end = min(end, start + self._request_size)
        piece = Piece(self._number, start, end - start, run.hole)
        self._offset = end
        self._number += 1
        return piece

    def _hole_from(self, end: int) -> int:
        """Where a hole ends for sure: several in a row are one piece, but so many that whoever waits for us
        may be told to stop."""
        for _ in range(_HOLES_IN_A_ROW):
            if end >= self._size:
                break
            self._run = self._extent(end)
            if not self._run.hole:
                break
            end = min(self._run.end, self._size)
        return end


@final
class Line(Generic[T]):
    """Lets what arrives in any order leave in the order of its numbers."""

    __slots__ = ("_early", "_next")

    def __init__(self) -> None:
        self._early: dict[int, T] = {}
        self._next = 0

    def enter(self, number: int, item: T) -> list[T]:
        """What may leave now that `item` is here, in order."""
        assert number >= self._next and number not in self._early
        self._early[number] = item
        ready = []
        while self._next in self._early:
            ready.append(self._early.pop(self._next))
            self._next += 1
        return ready

    def drain(self) -> list[T]:
        """Whatever still waits for an earlier one that will never come (the copy has failed)."""
        rest = list(self._early.values())
        self._early.clear()
        return rest


@final
class Shares:
    """Who is done with a frame; lock-free, since a list's pop is one step for all threads."""

    __slots__ = ("_left",)

    def __init__(self, count: int) -> None:
        self._left = list(range(count))  # 0 goes to the last to leave

    def leave(self) -> bool:
        """True for the last one, who gives the frame back."""
        return self._left.pop() == 0


@final
class Capped:
    """A frame allocator that fails beyond `count` frames, so that a large limit is not all used.

    To a pool that is an allocator under pressure: it turns to its reserve, then waits.
    """

    __slots__ = ("_backend", "_tokens", "light")

    def __init__(self, backend: Any, count: int) -> None:
        assert count > 0
        self._backend = backend
        self._tokens = list(range(count))
        light = getattr(backend, "light", None)
        self.light = None if light is None else lambda gfp: self._within(light, gfp)

    def alloc(self, gfp: Any) -> Any:
        return self._within(self._backend.alloc, gfp)

    def on_room(self, call: Callable[[], object]) -> None:
        """As the backend's; what the cap refuses comes back through the one pool that is over it."""
        register(self._backend, call)

    def off_room(self, call: Callable[[], object]) -> None:
        """Undo `on_room`."""
        unregister(self._backend, call)

    def _within(self, alloc: Callable[[Any], Any], gfp: Any) -> Any:
        try:
            token = self._tokens.pop()
        except IndexError:
            return None
        frame = None
        try:
            frame = alloc(gfp)
        finally:
            if frame is None:
                self._tokens.append(token)
        return frame

    def free(self, frame: Any) -> None:
        self._backend.free(frame)
        self._tokens.append(0)


@final
@dataclass(frozen=True, slots=True)
class Sizing:
    """At most `in_flight` frames of `frame_size` bytes, `reserve` of them for this copy alone."""

    in_flight: int
    reserve: int
    frame_size: int
    request_size: int  # at most `frame_size`


def size_frames(
    memory: int, request_size: int | None, in_flight: int | None, *, in_memory: bool = False
) -> Sizing:
    """How many frames fit, or why none does. Units: bytes; `memory` is the hard limit.

    None chooses what is quickest: less than the limit where more would not help, and least where both
    sides are `in_memory`. A zone lends runs of a power of two, so a request of 3 MiB takes 4 MiB.

    Raises: UsageError if the request size is impossible or the limit is below one frame.
    """
    asked = REQUEST if request_size is None else request_size
    if asked < PAGE or asked % PAGE:
        up = max(PAGE, -(-asked // PAGE) * PAGE)
        raise UsageError(
            f"request size {asked} is not a multiple of {PAGE} bytes: use {up} instead"
        )
    frame_size = 1 << (asked - 1).bit_length()
    if memory < frame_size:
        raise UsageError(
            f"a memory limit of {format_size(memory)} holds no request of {format_size(asked)}: the least "
            f"that works is {format_size(frame_size)}, or {_smaller(memory)}"
        )
    if in_flight is not None and in_flight < 1:
        raise UsageError(f"in-flight is {in_flight}: at least 1 request must be allowed")
    if request_size is None and in_memory:
        asked = frame_size = REQUEST_IN_MEMORY
    most = MOST_IN_MEMORY if in_memory else MOST_IN_FLIGHT
    count = min(memory // frame_size, most if in_flight is None else in_flight)
    return Sizing(count, min(RESERVE, count), frame_size, asked)


def _smaller(memory: int) -> str:
    if memory < PAGE:
        return f"{format_size(PAGE)} with a request size of {format_size(PAGE)}"
    return f"a request size of at most {format_size(1 << (memory.bit_length() - 1))}"


def mover_count(*, hashing: bool, direct: bool, in_flight: int) -> int:
    """How many threads read and write.

    Two keep a disk busy and use both processors where nothing is hashed. In memory one that reads
    and writes beside one that hashes, and helps when it has nothing to hash, keeps both busy; a
    second would only contend.
    """
    return min(in_flight, 1 if hashing and not direct else 2)
