"""A small NBD client for tests: its own numbers, so that it does not share the server's mistakes."""

from __future__ import annotations

import socket
import struct

READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZERO, STATUS = range(8)
EPERM, EIO, EINVAL, ENOSPC = 1, 5, 22, 28


class Client:
    def __init__(self, sock, *, structured=True, export="", flags=3, handshake=True):
        self.sock = sock
        sock.settimeout(20)
        self.structured = structured
        self.cookie = 0
        if handshake:
            self.greet(flags)
            if structured:
                assert self.option(8) == [(1, b"")]
                self.option(10, counted(export) + struct.pack(">I", 1) + counted("base:allocation"))
            self.replies = self.option(7, counted(export) + struct.pack(">H", 0))
            assert self.replies[-1][0] == 1, self.replies
            self.size, self.flags = struct.unpack(">QH", self.replies[0][1][2:])

    def greet(self, flags=3):
        assert self.exactly(18) == b"NBDMAGICIHAVEOPT\0\3"
        self.sock.sendall(struct.pack(">I", flags))

    def exactly(self, count):
        data = b""
        while len(data) < count:
            part = self.sock.recv(count - len(data))
            if not part:
                raise EOFError(f"{count} bytes awaited, {len(data)} came")
            data += part
        return data

    def option(self, number, data=b""):
        """The replies to one option, till the last."""
        self.sock.sendall(b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data)
        replies = []
        while not replies or replies[-1][0] in (2, 3, 4):
            magic, option, kind, length = struct.unpack(">QIII", self.exactly(20))
            assert (magic, option) == (0x3E889045565A9, number)
            replies.append((kind, self.exactly(length)))
        return replies

    def send(self, command, offset=0, length=0, payload=b"", flags=0):
        self.cookie += 1
        head = struct.pack(
            ">IHHQQI", 0x25609513, flags, command, self.cookie, offset, length or len(payload)
        )
        self.sock.sendall(head + payload)
        return self.cookie

    def reply(self, reading=0):
        """(cookie, error, answer): data of a read as pieces joined, or the extents of a status."""
        (magic,) = struct.unpack(">I", self.exactly(4))
        if magic == 0x67446698:
            error, cookie = struct.unpack(">IQ", self.exactly(12))
            return cookie, error, self.exactly(reading) if reading and not error else b""
        data, start = bytearray(), None
        while True:
            assert magic == 0x668E33EF
            flags, kind, cookie, length = struct.unpack(">HHQI", self.exactly(16))
            body = self.exactly(length)
            if kind == 1:
                (offset,) = struct.unpack(">Q", body[:8])
                start = offset if start is None else start
                assert offset == start + len(data)
                data += body[8:]
            elif kind == 5:
                return cookie, 0, list(struct.iter_unpack(">II", body[4:]))
            elif kind & 0x8000:
                assert flags & 1
                return cookie, struct.unpack(">I", body[:4])[0], b""
            if flags & 1:
                return cookie, 0, bytes(data)
            (magic,) = struct.unpack(">I", self.exactly(4))

    def ask(self, command, offset=0, length=0, payload=b"", flags=0):
        cookie = self.send(command, offset, length, payload, flags)
        found, error, answer = self.reply(length if command == READ else 0)
        assert found == cookie
        return error or answer

    def read(self, offset, length):
        return self.ask(READ, offset, length)

    def write(self, offset, payload, flags=0):
        return self.ask(WRITE, offset, payload=payload, flags=flags)

    def close(self):
        self.sock.close()


def counted(text):
    return struct.pack(">I", len(text.encode())) + text.encode()


def connect(uri_or_path, **options):
    path = str(uri_or_path).rpartition("socket=")[2]
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(path)
    return Client(sock, **options)
