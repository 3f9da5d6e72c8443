"""One client: what it sends is taken as far as frames allow, and answered as far as it reads.

It decides no protocol (`headway.core.nbd`) and no sizes (`headway.core.nbd.window`). All of it runs
in the loop's thread, and nothing waits: a step that cannot go on leaves its state in a field.

Small requests are taken in a batch from the loop's receiving frame; what can be answered at once is
packed into the loop's sending frame and sent in one call. Only what is left over pins a frame:

    input that was received and not taken      `_left`       a frame of its own
    a write whose payload is not all there     `_filling`    the same one: they exclude each other
    replies the client does not read           `out`         another; while there are any,
                                                             no request is taken
    and those that have not begun              `_held`       spare frames, till others need them
    requests that wait for a device            jobs          spare frames; without one, a single
                                                             job takes the sending side's own

So a connection holds at most `window.OWN` frames that are not spare, whatever the client does.
"""

from __future__ import annotations

from socket import socket
from typing import Final, final

from headway.core.nbd import wire
from headway.core.nbd.handshake import Enter, Handshake, Leave, Say
from headway.core.nbd.transmission import Transmission, Verb
from headway.edge.serving.answering import Gone, Service
from headway.edge.serving.secure import SecureSocket
from headway.edge.serving.streaming import FEW, Streaming
from headway.edge.serving.workers import Job

READ: Final = Verb.READ
WRITE: Final = Verb.WRITE
_HEAD: Final = wire.REQUEST.size
_SIMPLE: Final = wire.SIMPLE.size
_TURNS: Final = 8  # steps before others have theirs
_PACKS: Final = 16  # sendings of one batch before others have their turn


@final
class Connection(Streaming):
    """The serving side of one socket, which is not blocking."""

    def __init__(self, loop: Service, sock: socket) -> None:
        super().__init__(loop, sock)
        self.handshake: Handshake | None = Handshake(loop.offers, loop.tls)
        self._left: memoryview | bytes = b""  # received, not taken
        self._left_frame: memoryview | None = None
        self._watched = (False, False)  # what the loop has told the kernel

    # -- what the loop calls -------------------------------------------------------------------------

    def start(self) -> None:
        """Greet."""
        assert self.handshake is not None
        try:
            self.out.say(self.handshake.greeting())
        except OSError:
            self.close()
        self._settle()

    def turn(self) -> None:
        """Go on with whatever comes next, as far as it goes without waiting."""
        try:
            self._go_on()
        except (OSError, Gone):
            self.close()
        self._settle()

    def finished(self, job: Job) -> None:
        """A worker has done a job of this connection."""
        self.jobs -= 1
        self._waiting = False
        if job.error and not job.last:
            self._reading = None  # what is left of it will not be sent
        if self.closed:
            self._give_job_frame(job)
        else:
            try:
                if job.write is None:
                    self._answer(job)
                else:
                    self._wrote(job, job.write)
                self._go_on()
            except (OSError, Gone):
                self.close()
        self._settle()

    @property
    def receiving(self) -> bool:
        """Whether the loop waits for this client to say something."""
        return self._watched[0]

    def drop(self) -> None:
        """Close it now, from the loop."""
        self.close()
        self._settle()

    def leave(self) -> None:
        """Take no more requests; close when those that were taken are answered."""
        self._leaving = True
        self._settle()

    def close(self) -> None:
        """Drop the client now; frames that workers use come home with their jobs."""
        if self.closed:
            return
        self.closed = True
        self._loop.unwatch(self.fd)
        self._sock.close()
        self.out.drop()
        self._forget_held()
        frame, self._left_frame, self._left = self._left_frame, None, b""
        if frame is not None:
            self._loop.give_frame(frame)
        filling = self._filling
        if filling is not None and filling.frame is not None and not self._serial:
            self._loop.give_frame(filling.frame)  # else a worker has it

    def _settle(self) -> None:
        """Tell the loop what to wait for, or that it is over."""
        if not self.closed and self._leaving and self._quiet():
            self.close()
        if self.closed:
            if not self.jobs:
                self._loop.forget(self)
            return
        receiving = sending = False
        if self.out or (self._held and not self._torn):
            sending = True
        elif self._serial or self._waiting:
            pass
        elif self._again:
            sending = True  # to have another turn
        elif self._filling is not None:
            receiving = True
        elif self._reading is not None or (len(self._left) >= _HEAD and not self._leaving):
            sending = True  # to have another turn
        else:
            receiving = not self._leaving
            if isinstance(self._sock, SecureSocket) and self._sock.pending():
                sending = True  # to have another turn: the kernel does not know of it
        if self._watched != (receiving, sending):
            self._watched = (receiving, sending)
            self._loop.watch(self.fd, receiving=receiving, sending=sending)

    def _quiet(self) -> bool:
        replies = self.jobs or self.out or self._held or self._again
        return not (replies or self._reading or self._filling)

    # -- steps ---------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        for _ in range(_TURNS):
            if not self._flush() or self._serial or self._waiting:
                return
            if self._reading is not None:
                more = self._read_on(self._reading)
            elif self._again:
                more = self._ask_again(self._again[0])
            elif self._filling is not None:
                more = self._fill_on(self._filling)
            elif self._leaving:
                return
            elif self._skip:
                more = self._skip_on()
            elif len(self._left) >= _HEAD and self.handshake is None:
                more = self._take_left()
            else:
                more = self._receive()
            if not more:
                return

    def _receive(self) -> bool:
        """Receive what there is and take it; False if that was all."""
        rx, have = self._loop.rx, len(self._left)
        want = min(self._appetite, len(rx) - have)
        if have:  # the beginning of a request
            rx[:have] = self._left
            self._left = b""
        try:
            count = self._sock.recv_into(rx[have:] if have else rx, want)
        except BlockingIOError:
            self._left = bytes(rx[:have])
            return False
        if not count:
            raise Gone
        end = have + count
        if self.handshake is not None:
            self._negotiate(self.handshake, bytes(rx[:end]))
            return True
        at = self._take(rx, 0, end)
        if at < end:
            if end - at <= FEW:
                self._left = bytes(rx[at:end])
            else:
                self._left, self._left_frame = rx[at:end], rx
                self._loop.replace_rx()
        return count == want or self._filling is not None or self._reading is not None

    def _negotiate(self, handshake: Handshake, data: bytes) -> None:
        for action in handshake.feed(data):
            if isinstance(action, Say):
                self.out.say(action.data)
            elif isinstance(action, Enter):
                self.handshake = None
                self.requests = Transmission(action)
                self.export = self._loop.exports[action.offer.name]
                self._left = action.rest
            elif isinstance(action, Leave):
                self._leaving = True
            else:
                self._secure()

    def _secure(self) -> None:
        """Go on over TLS; what has been said so far must be on its way."""
        if self.out or isinstance(self._sock, SecureSocket):
            raise Gone
        self._sock = self._loop.secured(self._sock)
        self.out.go_on_with(self._sock)

    def _take_left(self) -> bool:
        """Take what was left over before."""
        left, frame = memoryview(self._left), self._left_frame
        at = self._take(left, 0, len(left))
        if frame is not None and len(left) - at > FEW:
            self._left = left[at:]
        else:
            self._left, self._left_frame = bytes(left[at:]), None
            if frame is not None:
                self._loop.give_frame(frame)
        return not self.out

    def _take(self, buffer: memoryview, at: int, end: int) -> int:
        """Take requests from `buffer[at:end]`, till one has to wait; where that one begins."""
        requests, export, loop = self.requests, self.export, self._loop
        assert requests is not None and export is not None
        judge, read_now, write_now = requests.take, export.read_now, export.write_now
        head, small = requests.head_size, loop.small
        tx, room, fill, packs = loop.tx, loop.tx_room, 0, _PACKS
        while end - at >= _HEAD:
            if fill > room:
                packs -= 1
                if not self._send_packed(fill) or not packs:
                    return at
                tx, fill = loop.tx, 0
            verb = judge(buffer, at)
            length = requests.length
            if verb is READ:
                body = fill + head
                if length <= small and read_now(tx[body : body + length], requests.offset):
                    requests.pack_data_head(tx, fill)
                    fill = body + length
                    at += _HEAD
                    continue
            elif verb is WRITE and not requests.flags:
                body = at + _HEAD
                if body + length <= end and write_now(
                    buffer[body : body + length], requests.offset
                ):
                    requests.pack_success(tx, fill)
                    fill += _SIMPLE
                    at = body + length
                    continue
            if fill and not self._send_packed(fill):
                return at
            before, fill = at, 0
            at = self._take_slowly(verb, buffer, at, end)
            if at == before or self._stopped():
                return at
            tx = loop.tx
        if fill:
            self._send_packed(fill)
        return at

    def _stopped(self) -> bool:
        """Whether no more requests may be taken just now."""
        return bool(
            self.out
            or self._serial
            or self._leaving
            or self._skip
            or self._filling is not None
            or self._reading is not None
        )
