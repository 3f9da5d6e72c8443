"""The answering half of a connection: replies, jobs for workers, and whose frame is whose.

It takes no input: `headway.edge.serving.connection` does, and says there what may hold a frame. It
runs in the loop's thread; nothing here waits. A frame leaves by one of four doors: it is sent (and
given back by `Outgoing`), its job ends, it is taken back, or the connection is closed.

What a worker has read for a client that does not read is held, not queued: while nothing of a reply
is sent, its frame can be taken back for a client that does (`give_up`), and the device is asked again
when this one reads. So clients that stop reading cost the others none of the spare frames for long.
A simple reply in pieces (`_torn`) holds back what comes in between: no other reply may.
"""

from __future__ import annotations

from collections import deque
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
    def take_spare(self, connection: Answering) -> bool: ...
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
        self.spare = 0  # spare frames it has
        self._held: deque[Job | bytes] = deque()  # replies; none unless `out` or `_torn`
        self._again: deque[Job] = deque()  # reads whose frame was taken back
        self._torn = False  # a simple reply has begun, and its last piece is to come
        self._sent_before = -1  # bytes sent when its held frames were last looked at
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
        """Reply to what a worker has done, now or when the client reads again."""
        requests = self.requests
        assert requests is not None
        if job.verb is Verb.READ and not job.error:
            if self.out or (self._torn and job.first):
                self._held.append(
                    job
                )  # with the sending side's own frame it has that till it is sent
            else:
                self._answer_read(job)
            return
        self._give_job_frame(job)
        if job.error:
            if not (job.first or requests.structured):
                raise Gone  # a simple reply has begun: there is no other way to say so
            offset = job.offset if job.verb is Verb.READ else None
            self._say(requests.failure(job.verb, job.cookie, job.error, job.why, offset))
        elif job.verb is Verb.STATUS:
            assert requests.allocation is not None
            self._say(wire.status_chunk(job.cookie, requests.allocation, job.extents))
        else:
            self._say(requests.success(job.cookie))

    def _answer_read(self, job: Job) -> None:
        """Send what was read; nothing may be queued. What is left of it pins the frame."""
        requests, frame, spare = self.requests, job.frame, job.spare
        assert requests is not None and frame is not None
        job.frame = None
        first, last = job.first, job.last
        head: bytes | memoryview
        head = requests.piece_head(job.cookie, job.offset, job.length, first=first, last=last)
        self._begun(last=last)
        data = frame[: job.length]
        try:
            sent = self.out.send_pair(head, data)
        except OSError:  # the client has gone, and nobody else knows of this frame
            self._release(frame, spare)
            raise
        if sent == len(head) + job.length:
            self._release(frame, spare)
            return
        if sent < len(head):
            self.out.keep(head[sent:])
            sent = len(head)
        if spare and not self._serial:  # the sending side's own frame is free: this one is it now
            spare = False
            self.spare -= 1
            self._loop.window.give_spare()
        elif not spare:
            self._serial = False  # it is a pinned reply now, and counts as one
        self.out.keep(data[sent - len(head) :], frame, spare)

    def _begun(self, *, last: bool) -> None:
        """A reply of pieces is on its way, as far as the `last` or not so far."""
        requests = self.requests
        assert requests is not None
        self._torn = not (last or requests.structured)

    def _say(self, data: bytes) -> None:
        """Send a short reply, or have it sent when that is possible."""
        if self._torn:
            self._held.append(data)
        else:
            self.out.say(data)

    # -- replies that wait for their client ----------------------------------------------------------

    def _flush(self) -> bool:
        """Send what is queued and what is held; True if no reply waits for the client."""
        while True:
            if self.out and not self.out.drain():
                return False
            if self._torn or not self._held:
                return True
            reply = self._held.popleft()
            if isinstance(reply, Job):
                self._answer_read(reply)
            else:
                self.out.say(reply)

    def give_up(self) -> bool:
        """Give back a spare frame with a reply that has not begun, if the client does not read.

        It is asked twice: the first time it looks whether the client reads.
        """
        sent, self._sent_before = self._sent_before, self.out.sent_bytes
        if sent != self._sent_before:
            return False
        for reply in reversed(self._held):
            if isinstance(reply, Job) and reply.spare:
                self._held.remove(reply)
                self._give_job_frame(reply)
                self._again.append(reply)
                return True
        return False

    def _ask_again(self, job: Job) -> bool:
        """Let a worker read what was given up; False: wait for a job to end."""
        if not self._framed(job):
            return False
        self._again.popleft()
        self._submit(job)
        return True

    def _forget_held(self) -> None:
        for reply in self._held:
            if isinstance(reply, Job):
                self._give_job_frame(reply)
        self._held.clear()
        self._again.clear()

    def finished(self, job: Job) -> None:
        """A worker has done a job of this connection."""
        raise NotImplementedError

    def _conclude(self, cookie: int, flags: int, error: int, why: str) -> None:
        """Answer a write of which every piece is done."""
        requests = self.requests
        assert requests is not None
        if error:
            self._say(requests.failure(Verb.WRITE, cookie, error, why))
        elif flags & wire.FLAG_FUA:
            self._submit(Job(self, Verb.FLUSH, cookie, 0, 0, 0))
        else:
            self._say(requests.success(cookie))

    # -- jobs ----------------------------------------------------------------------------------------

    def _start(self, verb: Verb, *, framed: bool) -> Job | None:
        """A job for the request just judged, given to nobody yet; None: wait for one to end."""
        requests = self.requests
        assert requests is not None
        if self._full():
            return None
        cookie, offset, length = requests.cookie, requests.offset, requests.length
        job = Job(self, verb, cookie, offset, length, requests.flags)
        return job if not framed or self._framed(job) else None

    def _framed(self, job: Job) -> bool:
        """Give the job a frame; False: wait for one to end."""
        job.spare = self._loop.take_spare(self)
        if job.spare:
            self.spare += 1
        elif self.jobs or self.out:
            self._waiting = bool(self.jobs)
            return False
        else:
            self._serial = True
        job.frame = self._loop.take_frame()
        return True

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
            self.spare -= 1
            self._loop.window.give_spare()
