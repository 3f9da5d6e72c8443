"""Clients that do anything at any moment, beside a bytearray; then every frame is home.

The server has the least memory that works, or a little more, and a device whose calls are held up.
"""

from __future__ import annotations

import socket
import struct

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.edge.serving.served import DATA, SIZE, Served, Waiting, make
from tests.nbd_client import FLUSH, READ, STATUS, WRITE, ZERO

CLIENTS = 5
LENGTHS = st.sampled_from([1, 4096, 16384, 16385, 100_000, 700_000])


class Mistreated(RuleBasedStateMachine):
    """Client 0 behaves, and is believed; the others do not, and read what they like."""

    @initialize(
        memory=st.sampled_from(["300KiB", "1MiB", "4MiB"]),
        quick=st.booleans(),
        structured=st.booleans(),
    )
    def start(self, memory: str, quick: bool, structured: bool) -> None:
        device = make(Waiting)
        if quick:
            device.kind = type(device).__mro__[1].kind
        self.served = Served(device, memory)
        count = min(CLIENTS, self.served.server._window.connection_limit)
        for number in range(count):
            self.served.connect(structured=structured or number == 0)
        self.clients = dict(enumerate(self.served.start()))
        for number, client in self.clients.items():
            if number:
                client.sock.setblocking(False)
        self.model = bytearray(DATA)

    @rule(offset=st.integers(0, SIZE // 4), length=LENGTHS)
    def read(self, offset: int, length: int) -> None:
        self.served.device.gate.set()
        assert self.clients[0].read(offset, length) == self.model[offset : offset + length]

    @rule(offset=st.integers(0, SIZE // 4), length=LENGTHS, fill=st.integers(0, 255))
    def write(self, offset: int, length: int, fill: int) -> None:
        self.served.device.gate.set()
        payload = bytes([fill]) * length
        assert self.clients[0].write(offset, payload, flags=fill & 1) == b""
        self.model[offset : offset + length] = payload

    def _send(self, number: int, data: bytes) -> None:
        client = self.clients.get(number)
        if client is not None and number:
            try:
                client.sock.send(data)
            except OSError:
                pass

    @rule(
        number=st.integers(1, CLIENTS),
        kind=st.sampled_from([READ, READ, READ, STATUS, FLUSH, 99]),
        count=st.sampled_from([1, 10, 200]),
        length=LENGTHS,
        cut=st.integers(0, 28),
    )
    def ask(self, number: int, kind: int, count: int, length: int, cut: int) -> None:
        length = 0 if kind == FLUSH else length
        head = struct.pack(">IHHQQI", 0x25609513, 0, kind, 1, 0, length)
        self._send(number, head * count + head[:cut])

    @rule(number=st.integers(1, CLIENTS), length=LENGTHS, share=st.floats(0, 1))
    def write_elsewhere(self, number: int, length: int, share: float) -> None:
        """A whole write, or the beginning of one, where client 0 does not look."""
        kind = WRITE if share else ZERO
        head = struct.pack(">IHHQQI", 0x25609513, 0, kind, 1, SIZE // 2 + SIZE // 8, length)
        self._send(number, head + (bytes(int(length * share)) if share else b""))

    @rule(number=st.integers(1, CLIENTS), count=st.integers(1, 1 << 20))
    def hear(self, number: int, count: int) -> None:
        if number in self.clients:
            try:
                self.clients[number].sock.recv(count)
            except OSError:
                pass

    @rule(number=st.integers(1, CLIENTS), how=st.sampled_from(["close", "deaf", "mute", "garbage"]))
    def leave(self, number: int, how: str) -> None:
        client = self.clients.get(number)
        if client is None:
            return
        if how == "garbage":
            self._send(number, b"\xaa" * 100)
            return
        try:
            if how == "close":
                client.sock.close()
                del self.clients[number]
            else:
                client.sock.shutdown(socket.SHUT_RD if how == "deaf" else socket.SHUT_WR)
        except OSError:
            pass

    @rule()
    def hold(self) -> None:
        self.served.device.gate.clear()

    @rule(bad=st.booleans())
    def go_on(self, bad: bool) -> None:
        half = SIZE // 2
        self.served.device.bad = range(half, SIZE) if bad else range(0)
        self.served.device.gate.set()

    def teardown(self) -> None:
        if hasattr(self, "served"):
            self.served.device.gate.set()
            self.read(0, 700_000)
            self.served.end()


TestMistreated = Mistreated.TestCase
