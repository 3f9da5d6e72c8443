"""Requests that take more than a moment: long ones, in pieces, and those that wait for a device.

Between `answering` (what is said and held) and `connection` (turns, and what is quick). A long read
is sent piece by piece, a long write received and written piece by piece, each through one frame; so
the length of a request costs time and no memory. After a failure the rest of a write's payload is
received and forgotten. Nothing here waits.
"""

from __future__ import annotations

from socket import socket
from typing import Final

from headway.core.nbd import wire
from headway.core.nbd.transmission import Transmission, Verb
from headway.edge.serving.answering import Answering, Gone, Service
from headway.edge.serving.export import Export
from headway.edge.serving.intake import Filling, Reading
from headway.edge.serving.workers import Job

READ: Final = Verb.READ
WRITE: Final = Verb.WRITE
_PART: Final = 64 << 10  # bytes: less of a long write is not written by itself
FEW: Final = 4096  # bytes: what is received at once from a client that only reads
_HEAD: Final = wire.REQUEST.size


class Streaming(Answering):
    """An answering connection that takes long requests."""

    def __init__(self, loop: Service, sock: socket) -> None:
        super().__init__(loop, sock)
        self._reading: Reading | None = None
        self._filling: Filling | None = None
        self._skip = 0  # bytes of a refused payload still to come
        self._skip_reply = b""
        self._leaving = False
        self._appetite = FEW  # bytes to receive at once

    def _take_slowly(self, verb: Verb, buffer: memoryview, at: int, end: int) -> int:
        """Take one request that needs more than a moment; where the next begins, or `at` again."""
        requests = self.requests
        assert requests is not None
        body = at + _HEAD
        if self._appetite < FEW:
            self._appetite = FEW
        if verb is READ:
            return body if self._take_read(requests) else at
        if verb is WRITE:
            return self._take_write(requests, buffer, body, end) or at
        if verb is Verb.REFUSE:
            there = min(requests.payload, end - body)
            self._skip, self._skip_reply = requests.payload - there, requests.refusal()
            if not self._skip:
                self.out.say(self._skip_reply)
            return body + there
        if verb is Verb.LEAVE:
            self._leaving = True
            return body
        if verb is Verb.GARBAGE:
            raise Gone
        job = self._start(verb, framed=False)
        if job is None:
            return at
        self._submit(job)
        return body

    def _take_read(self, requests: Transmission) -> bool:
        length, loop, export = requests.length, self._loop, self.export
        assert export is not None
        if length > len(loop.tx):
            self._reading = Reading(requests.cookie, requests.offset, length)
            return True
        if length > loop.small and export.read_now(loop.tx[:length], requests.offset):
            head = requests.piece_head(
                requests.cookie, requests.offset, length, first=True, last=True
            )
            self._send_piece(head, length)
            return True
        job = self._start(READ, framed=True)
        if job is None:
            return False
        self._submit(job)
        return True

    def _read_on(self, reading: Reading) -> bool:
        """Send the next piece of a long read."""
        requests, export, loop = self.requests, self.export, self._loop
        assert requests is not None and export is not None
        length = min(reading.left, len(loop.tx))
        last = length == reading.left
        if export.read_now(loop.tx[:length], reading.offset):
            head = requests.piece_head(
                reading.cookie, reading.offset, length, first=reading.first, last=last
            )
            self._begun(last=last)
            self._send_piece(head, length)
            self._advance(reading, length)
            return True
        job = Job(self, READ, reading.cookie, reading.offset, length, 0)
        job.first, job.last = reading.first, last
        self._serial, job.frame = True, loop.take_frame()
        self._advance(reading, length)
        self._submit(job)
        return False

    def _advance(self, reading: Reading, length: int) -> None:
        reading.advance(length)
        if not reading.left:
            self._reading = None

    def _take_write(self, requests: Transmission, buffer: memoryview, body: int, end: int) -> int:
        """Take a write that is not quick, or not all there; where the next begins, or 0 to wait."""
        length, export, loop = requests.length, self.export, self._loop
        assert export is not None
        there = min(length, end - body)
        payload = buffer[body : body + there]
        if there < length:
            filling = Filling(requests.cookie, requests.offset, length, requests.flags)
            filling.frame = loop.take_frame()
            filling.frame[:there] = payload
            filling.have = there
            self._filling = filling
            # the next header alone, if what follows it goes straight into a frame; else many at once
            self._appetite = _HEAD if length > loop.small else len(loop.rx)
            return body + there
        if requests.flags and not self._full() and export.write_now(payload, requests.offset):
            self._conclude(requests.cookie, requests.flags, 0, "")
            return body + length
        job = self._start(WRITE, framed=True)
        if job is None:
            return 0
        assert job.frame is not None
        job.frame[:length] = payload
        self._submit(job)
        return body + length

    def _fill_on(self, filling: Filling) -> bool:
        """Receive more of a long write, and write what is a whole piece."""
        frame, export = filling.frame, self.export
        assert frame is not None and export is not None
        length = filling.piece
        if filling.have < length:
            try:
                count = self._sock.recv_into(frame[filling.have : length])
            except BlockingIOError:
                return False
            if not count:
                raise Gone
            filling.have += count
            if filling.have < length:
                return self._write_part(filling, frame, export)
        if filling.error or export.write_now(frame[:length], filling.offset):
            filling.advance(length)
        else:
            self._hand_piece(filling, frame, length)
        if not filling.left:
            self._filling = None
            if filling.done:
                self._conclude_filling(filling)
        return True

    def _write_part(self, filling: Filling, frame: memoryview, export: Export) -> bool:
        """Write what has come of a piece, if that needs no wait, while the client sends the rest."""
        end = filling.offset + filling.have
        part = end - end % export.grain - filling.offset
        if part < _PART or not filling.prompt:
            return False
        filling.prompt = not filling.error and export.write_now(frame[:part], filling.offset)
        if filling.prompt:
            have = filling.have - part
            frame[:have] = frame[part : filling.have]
            filling.advance(part)
            filling.have = have
        return filling.prompt

    def _hand_piece(self, filling: Filling, frame: memoryview, length: int) -> None:
        """Let a worker write the piece in the frame, and go on with another frame if there is one."""
        job = Job(self, WRITE, filling.cookie, filling.offset, length, 0)
        job.frame, job.write = frame, filling
        filling.pending += 1
        filling.advance(length)
        job.spare = self._loop.take_spare(self)
        if job.spare:
            self.spare += 1
            filling.frame = self._loop.take_frame() if filling.left else None
        else:
            self._serial = True  # till the frame comes back
        self._submit(job)

    def _skip_on(self) -> bool:
        """Receive more of a refused payload, and forget it."""
        rx = self._loop.rx
        try:
            count = self._sock.recv_into(rx, min(self._skip, len(rx)))
        except BlockingIOError:
            return False
        if not count:
            raise Gone
        self._skip -= count
        if not self._skip:
            self.out.say(self._skip_reply)
        return True
