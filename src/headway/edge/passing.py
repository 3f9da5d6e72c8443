"""One pass over a device through leased frames; reading, hashing and writing overlap.

It decides neither order nor ownership (`headway.core.block.copier` does), nor what is done to a
frame (`headway.edge.copy`). Movers (threads) take a frame, then a piece, fill it, queue it for the
hasher, drain it; one hasher takes the pieces in order. Who is done with a frame last frees it. The
calling thread only waits, and reports progress; so a signal's exception finds it there, at rest.

Told to help, the hasher moves a piece itself when it has nothing to hash, with a frame if one is
there: so two processors are busy however moving and hashing compare. It never waits for a frame: the
one it waited for might wait to be hashed.

The first failure stops all: movers end before their next piece, the hasher gives back what it is
given, and `run` raises when every frame is home. One frame in all is enough to go on. Nobody waits
then for what a server still has to answer (`abort`); a file's request that takes longer than
`_PATIENCE_S` to end is waited for, and that is logged.

Source: own.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol, TypeAlias, final

from headway.core.block.copier import Line, Piece, Sequence, Shares
from headway.core.block.device import Device

Progress: TypeAlias = Callable[
    [int, int], None
]  # (bytes done, bytes in all), from the calling thread
_Queued: TypeAlias = "tuple[Piece, memoryview, Shares] | tuple[Piece, None, None]"

log = logging.getLogger("headway")
_ZEROS = bytes(1 << 16)
_PROGRESS_S = 0.1
_PATIENCE_S = 1.0
_ENDING_S = 0.02  # between looks, only after an exception: it bounds how late the end is seen


class Frames(Protocol):
    """A pool of equal buffers; `alloc` waits for one and never fails."""

    def alloc(self) -> memoryview: ...
    def try_alloc(self) -> memoryview | None: ...
    def free(self, element: memoryview) -> None: ...


@final
@dataclass(frozen=True, slots=True)
class Moved:
    """`digest` is SHA-256 in hexadecimal, or None; `peak` the most bytes of frames out at once."""

    digest: str | None
    peak: int


@final
class Pass:
    """One pass over a device."""

    def __init__(
        self,
        devices: tuple[Device, ...],
        size: int,
        frames: Frames,
        *,
        fill: Callable[[memoryview, Piece], None],
        drain: Callable[[memoryview, Piece], None] | None,
        keep_holes: bool,
        request_size: int,
        frame_size: int,
        movers: int,
        hashing: bool,
        helping: bool = False,
        progress: Progress | None,
    ) -> None:
        self._devices = devices
        self._frames = frames
        self._fill = fill
        self._drain = drain
        self._size = size
        self._frame_size = frame_size
        self._movers = movers
        self._sha = hashlib.sha256() if hashing else None
        self._helping = helping  # the hasher's own from then on
        self._progress = progress
        self._stopping = False  # only ever set
        self._lock = threading.Lock()
        # Under the lock:
        self._sequence = Sequence(size, request_size, devices[0].extent, keep_holes=keep_holes)
        self._line: Line[_Queued] = Line()
        self._out = 0  # frames leased
        self._peak = 0
        self._failure: BaseException | None = None
        self._done = 0  # bytes
        self._running = 0  # workers that signed in and not out
        self._closed = False  # no worker may sign in any more
        # Queues have their own locks:
        self._hash_queue: SimpleQueue[_Queued | None] = SimpleQueue()
        self._ended: SimpleQueue[None] = SimpleQueue()

    def run(self) -> Moved:
        workers = [
            threading.Thread(target=self._work, args=(self._move,), name=f"headway-mover-{n}")
            for n in range(self._movers)
        ]
        if self._sha is not None:
            hasher = threading.Thread(target=self._work, args=(self._hash,), name="headway-hasher")
            workers.append(hasher)
        try:
            for thread in workers:
                thread.start()
            for _ in range(self._movers):
                self._wait_for_one()
                if self._stopping:
                    break
            if self._sha is not None and not self._stopping:
                self._hash_queue.put(None)
                self._wait_for_one()
        except BaseException:
            self._stopping = True
            raise
        finally:
            if self._stopping:
                self._abort()
            self._end()
        if self._failure is not None:
            raise self._failure
        if self._progress is not None:
            self._progress(self._size, self._size)
        digest = None if self._sha is None else self._sha.hexdigest()
        return Moved(digest, self._peak * self._frame_size)

    def _wait_for_one(self) -> None:
        if self._progress is None:
            self._ended.get()
            return
        while True:
            try:
                return self._ended.get(timeout=_PROGRESS_S)
            except Empty:
                self._progress(self._done, self._size)

    def _abort(self) -> None:
        """Let requests that wait for a server fail; those of files end by themselves."""
        for device in self._devices:
            abort = getattr(device, "abort", None)
            if abort is not None:
                abort()

    def _end(self) -> None:
        """Return when no worker runs or ever will, with all frames home; at once after a good run.

        An exception may have come while a thread was being started: then nobody knows whether it
        runs, and `join` cannot tell. So workers sign in, and one that comes too late goes away.
        Frames that wait for a hasher that is not there are taken from the line here, since a mover
        may be waiting for one.
        """
        self._stopping = True
        said_by_s = time.monotonic() + _PATIENCE_S
        while True:
            with self._lock:
                self._closed = True
                running = self._running
                left = self._line.drain()
            self._bring_home(left)
            if not running:
                return
            if time.monotonic() > said_by_s:
                said_by_s = math.inf
                names = " and ".join(device.name for device in self._devices)
                log.warning("ending: %d of its threads still wait for %s", running, names)
            self._hash_queue.put(None)
            with suppress(Empty):
                self._ended.get(timeout=_ENDING_S)

    def _work(self, loop: Callable[[], None]) -> None:
        with self._lock:
            if self._closed:
                return
            self._running += 1
        try:
            loop()
        except BaseException as error:
            _let_go(error)
            with self._lock:
                if self._failure is None:
                    self._failure = error
            self._stopping = True
        finally:
            with self._lock:
                self._running -= 1
            self._ended.put(None)

    def _move(self) -> None:
        while not self._stopping and self._move_one(self._frames.alloc()):
            pass

    def _move_one(self, frame: memoryview) -> bool:
        """Move the next piece with a frame just leased; False if there is none."""
        try:
            piece = self._take_piece()
        except BaseException:  # the device cannot tell its holes
            self._frames.free(frame)
            raise
        if piece is None:
            self._frames.free(frame)
            return False
        shares = Shares(1 if self._sha is None else 2)
        entered = self._sha is None
        try:
            self._fill(frame, piece)
            if not entered:
                self._enter_line((piece, frame, shares))
                entered = True
            if self._drain is not None:
                self._drain(frame, piece)
        finally:
            if not entered:
                shares.leave()  # the hasher will never see it
            self._leave(frame, shares, piece.length)
        return True

    def _take_piece(self) -> Piece | None:
        """The next piece with data, for the frame just leased; holes go straight to the hasher."""
        while not self._stopping:
            with self._lock:
                piece = self._sequence.take()
                if piece is None:
                    return None
                if not piece.hole:
                    self._out += 1
                    self._peak = max(self._peak, self._out)
                    return piece
                self._done += piece.length
                if self._sha is not None:
                    self._enter_locked((piece, None, None))
        return None

    def _enter_line(self, item: _Queued) -> None:
        with self._lock:
            self._enter_locked(item)

    def _enter_locked(self, item: _Queued) -> None:
        for ready in self._line.enter(item[0].number, item):
            self._hash_queue.put(ready)

    def _leave(self, frame: memoryview, shares: Shares, length: int) -> None:
        if not shares.leave():
            return
        with self._lock:
            self._out -= 1
            self._done += length
        self._frames.free(frame)

    def _hash(self) -> None:
        while (item := self._next_to_hash()) is not None:
            self._hash_one(item)
        # What it moved itself last stands behind the end that the movers' end has put there.
        with suppress(Empty):
            while True:
                late = self._hash_queue.get_nowait()
                if late is not None:
                    self._hash_one(late)

    def _next_to_hash(self) -> _Queued | None:
        """What comes next, or None at the end; moves pieces till something has come."""
        queue = self._hash_queue
        while self._helping and queue.empty() and not self._stopping:
            frame = self._frames.try_alloc()
            if frame is None:
                break
            self._helping = self._move_one(frame)
        return queue.get()

    def _hash_one(self, item: _Queued) -> None:
        assert self._sha is not None
        piece, frame, shares = item
        try:
            if frame is None:
                self._hash_zeros(piece.length)
            elif not self._stopping:
                with frame[: piece.length] as view:
                    self._sha.update(view)
        finally:
            if frame is not None and shares is not None:
                self._leave(frame, shares, piece.length)

    def _hash_zeros(self, length: int) -> None:
        assert self._sha is not None
        while length > 0 and not self._stopping:  # a hole may be a terabyte: look in between
            part = min(length, len(_ZEROS))
            self._sha.update(_ZEROS if part == len(_ZEROS) else _ZEROS[:part])
            length -= part

    def _bring_home(self, left: list[_Queued]) -> None:
        """Give back what nobody will hash any more."""
        while True:
            try:
                item = self._hash_queue.get_nowait()
            except Empty:
                break
            if item is not None:
                left.append(item)
        for piece, frame, shares in left:
            if frame is not None and shares is not None:
                self._leave(frame, shares, piece.length)


def _let_go(error: BaseException) -> None:
    """Forget what the frames of its traceback saw: slices of buffers, which would keep the zone open."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__
