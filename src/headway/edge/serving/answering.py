"""The answering half of a connection: replies, jobs for workers, and whose frame is whose.

It takes no input: `headway.edge.serving.connection` does, and says there what may hold a frame. It
runs in the loop's thread; nothing here waits. A frame leaves by one of three doors: it is sent (and
given back by `Outgoing`), its job ends, or the connection is closed.
"""

from __future__ import annotations

from collections.abc import Mapping
from socket import socket
from typing import Final, Protocol

from headway.core.nbd import wire
from headway.core.nbd.handshake import Offer, Tls
from headway.core.nbd.transmission import Transmission, Verb
from headway.core.nbd.window import Window
from headway.edge.serving.export import Export
from headway.edge.serving.intake import Filling
from headway.edge.serving.outgoing import Outgoing
from headway.edge.serving.secure import SecureSocket
from headway.edge.serving.workers import Job, Workers

_JOBS: Final = 64  # most of one connection with the workers


class Gone(Exception):
    """The client has left, or said what cannot be understood."""


class Service(Protocol):
    """What a connection takes from the loop it is served by."""

    @property
    def offers(self) -> Mapping[str, Offer]: ...

    exports: Mapping[str, Export]
    tls: Tls
    window: Window
    workers: Workers
    rx: memoryview  # the frame that everybody receives into
    tx: memoryview  # the frame that everybody packs replies in
    tx_room: int  # how full that may be with room for one more small reply
    small: int  # the longest read that is packed

    def secured(self, sock: socket) -> SecureSocket: ...
    def replace_rx(self) -> None: ...
    def replace_tx(self) -> None: ...
    def take_frame(self) -> memoryview: ...
    def give_frame(self, frame: memoryview) -> None: ...
    def watch(self, fd: int, *, receiving: bool, sending: bool) -> None: ...
    def unwatch(self, fd: int) -> None: ...
    def forget(self, connection: Answering) -> None: ...


class Answering:
    """State and replies of one client."""

    def __init__(self, loop: Service, sock: socket) -> None:
        self._loop = loop
        self._sock: socket | SecureSocket = sock
        self.fd = sock.fileno()
        self.out = Outgoing(sock, self._give_back)
        self.export: Export | None = None
        self.requests: Transmission | None = None
        self.closed = False
        self.granted = 0  # bytes the kernel may keep for it
        self.jobs = 0  # with the workers
        self._spare = 0  # spare frames held
        self._serial = False  # one job has the sending side's own frame
        self._waiting = False  # for a job to end, to have its frame or its place

    # -- replies -------------------------------------------------------------------------------------

    def _send_packed(self, fill: int) -> bool:
        """Send the first `fill` bytes of the sending frame; False if it had to be pinned."""
        tx = self._loop.tx
        sent = self.out.send(tx[:fill])
        if sent == fill:
            return True
        self.out.keep(tx[sent:fill], tx)
        self._loop.replace_tx()
        return False

    def _send_piece(self, head: bytes, length: int) -> None:
        """Send `length` bytes of the sending frame behind `head`."""
        tx = self._loop.tx
        sent = self.out.send_pair(head, tx[:length])
        if sent == len(head) + length:
            return
        if sent < len(head):
            self.out.keep(head[sent:])
            sent = len(head)
        self.out.keep(tx[sent - len(head) : length], tx)
        self._loop.replace_tx()

    def _answer(self, job: Job) -> None:
        """Reply to what a worker has done."""
        requests = self.requests
        assert requests is not None
        frame, job.frame = job.frame, None
        if job.error:
            self._release(frame, job.spare)
            if not (job.first or requests.structured):
                raise Gone  # a simple reply has begun: there is no other way to say so
            offset = job.offset if job.verb is Verb.READ else None
            self.out.say(requests.failure(job.verb, job.cookie, job.error, job.why, offset))
        elif job.verb is Verb.READ:
            assert frame is not None
            first, last = job.first, job.last
            head = requests.piece_head(job.cookie, job.offset, job.length, first=first, last=last)
            self._send_frame(head, frame, job.length, job.spare)
        elif job.verb is Verb.STATUS:
            self._release(frame, job.spare)
            assert requests.allocation is not None
            self.out.say(wire.status_chunk(job.cookie, requests.allocation, job.extents))
        else:
            self._release(frame, job.spare)
            self.out.say(requests.success(job.cookie))

    def _send_frame(self, head: bytes, frame: memoryview, length: int, spare: bool) -> None:
        data = frame[:length]
        if not self.out:
            try:
                sent = self.out.send_pair(head, data)
            except OSError:  # the client has gone, and nobody else knows of this frame
                self._release(frame, spare)
                raise
            if sent == len(head) + length:
                self._release(frame, spare)
                return
            if sent >= len(head):
                head, data = b"", data[sent - len(head) :]
            else:
                head = head[sent:]
        if head:
            self.out.keep(head)
        self.out.keep(data, frame, spare)
        if not spare:
            self._serial = False  # the frame is a pinned reply now, and counts as one

    def finished(self, job: Job) -> None:
        """A worker has done a job of this connection."""
        raise NotImplementedError

    def _conclude(self, cookie: int, flags: int, error: int, why: str) -> None:
        """Answer a write of which every piece is done."""
        requests = self.requests
        assert requests is not None
        if error:
            self.out.say(requests.failure(Verb.WRITE, cookie, error, why))
        elif flags & wire.FLAG_FUA:
            self._submit(Job(self, Verb.FLUSH, cookie, 0, 0, 0))
        else:
            self.out.say(requests.success(cookie))

    # -- jobs ----------------------------------------------------------------------------------------

    def _start(self, verb: Verb, *, framed: bool) -> Job | None:
        """A job for the request just judged, given to nobody yet; None: wait for one to end."""
        requests = self.requests
        assert requests is not None
        frame, spare = None, False
        if self._full():
            return None
        if framed:
            spare = self._loop.window.take_spare(self._spare)
            if spare:
                self._spare += 1
            elif self.jobs or self.out:
                self._waiting = bool(self.jobs)
                return None
            else:
                self._serial = True
            frame = self._loop.take_frame()
        cookie, offset, length = requests.cookie, requests.offset, requests.length
        job = Job(self, verb, cookie, offset, length, requests.flags)
        job.frame, job.spare = frame, spare
        return job

    def _full(self) -> bool:
        """Whether the workers have as much of this connection as they take."""
        self._waiting = self.jobs >= _JOBS
        return self._waiting

    def _submit(self, job: Job) -> None:
        self.jobs += 1
        self._loop.workers.submit(job)

    def _wrote(self, job: Job, filling: Filling) -> None:
        """A piece of a long write is done."""
        filling.pending -= 1
        if job.error:
            filling.fail(job.error, job.why)
        if job.spare or not filling.left:
            self._give_job_frame(job)
            if not job.spare:
                filling.frame = None
        else:
            self._serial = False  # the frame stays where it is filled again
        if filling.done:
            self._conclude_filling(filling)

    def _conclude_filling(self, filling: Filling) -> None:
        frame, filling.frame = filling.frame, None
        if frame is not None:
            self._loop.give_frame(frame)
        self._conclude(filling.cookie, filling.flags, filling.error, filling.why)

    # -- frames --------------------------------------------------------------------------------------

    def _release(self, frame: memoryview | None, spare: bool) -> None:
        """A job's frame is not needed any more."""
        if frame is None:
            return
        if not spare:
            self._serial = False
        self._give_back(frame, spare)

    def _give_job_frame(self, job: Job) -> None:
        frame, job.frame = job.frame, None
        self._release(frame, job.spare)

    def _give_back(self, frame: memoryview, spare: bool) -> None:
        self._loop.give_frame(frame)
        if spare:
            self._spare -= 1
            self._loop.window.give_spare()
