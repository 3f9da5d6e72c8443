"""What a connection still has to send, and the frames that are pinned till it is sent.

It decides nothing about requests: whoever owns it does not take new ones while something is queued,
which is what bounds the queue. Sending never waits; what the socket does not take is kept, with the
frame it lies in, and goes out when the socket can take more. `give_back(frame, spare)` is called as
soon as a frame's last byte is sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeAlias, final

GiveBack: TypeAlias = Callable[[memoryview, bool], None]


class Sender(Protocol):
    """What is asked of a socket here. Raises: BlockingIOError if it would have to wait."""

    def send(self, data: memoryview | bytes, /) -> int: ...
    def sendmsg(self, parts: tuple[bytes, memoryview], /) -> int: ...


_Frame: TypeAlias = "tuple[memoryview, bool] | None"


@final
class Outgoing:
    """The sending side of one socket."""

    __slots__ = ("_give_back", "_queue", "_sock", "sent_bytes")

    def __init__(self, sock: Sender, give_back: GiveBack) -> None:
        self._sock = sock
        self._give_back = give_back
        self._queue: deque[tuple[memoryview | bytes, _Frame]] = deque()
        self.sent_bytes = 0

    def go_on_with(self, sock: Sender) -> None:
        """Send what comes from now on in another way; nothing may be queued."""
        assert not self._queue
        self._sock = sock

    def __bool__(self) -> bool:
        return bool(self._queue)

    def send(self, view: memoryview) -> int:
        """Send what the socket takes now; how much that was. Nothing may be queued."""
        assert not self._queue
        try:
            count = self._sock.send(view)
        except BlockingIOError:
            return 0
        self.sent_bytes += count
        return count

    def send_pair(self, head: bytes, view: memoryview) -> int:
        """Send a head and what follows it in one call; how much was sent of both together."""
        assert not self._queue
        try:
            count = self._sock.sendmsg((head, view))
        except BlockingIOError:
            return 0
        self.sent_bytes += count
        return count

    def keep(
        self, data: memoryview | bytes, frame: memoryview | None = None, spare: bool = False
    ) -> None:
        """Queue what could not be sent; `frame` is given back when it is."""
        self._queue.append((data, None if frame is None else (frame, spare)))

    def say(self, data: bytes) -> None:
        """Send a short message, or queue what is left of it."""
        if not self._queue:
            count = self.send(memoryview(data))
            if count == len(data):
                return
            data = data[count:]
        self.keep(data)

    def drain(self) -> bool:
        """Send what can be sent; True if all is."""
        while self._queue:
            data, frame = self._queue[0]
            try:
                count = self._sock.send(data)
            except BlockingIOError:
                return False
            self.sent_bytes += count
            if count < len(data):
                self._queue[0] = (memoryview(data)[count:], frame)
                continue
            self._queue.popleft()
            if frame is not None:
                self._give_back(*frame)
        return True

    def drop(self) -> None:
        """Forget all of it: nobody is there to take it."""
        while self._queue:
            frame = self._queue.popleft()[1]
            if frame is not None:
                self._give_back(*frame)
