"""A running server without listeners, and devices for it: one that is quick, one that may wait."""

import errno
import random
import socket
import threading

from headway.core.block.device import Kind
from headway.edge.memory_devices import MemoryDevice
from headway.errors import BlockError
from headway.server import Server
from tests.nbd_client import Client

SIZE = 3 << 20
DATA = random.Random(5).randbytes(SIZE)
SMALLEST = "128KiB"  # as few frames as one connection needs


class Waiting(MemoryDevice):
    """Memory that is not known to be quick: every call is a worker's. It can be made to fail."""

    kind = Kind.FILE

    def __init__(self, size):
        super().__init__(size)
        self.bad = range(0)
        self.flushes = 0
        self.gate = threading.Event()
        self.gate.set()

    def _check(self, view, offset):
        self.gate.wait()
        if self.bad.start < offset + len(view) and offset < self.bad.stop:
            raise BlockError(errno.EIO, "a bad sector", offset=offset)

    def pread_into(self, view, offset):
        self._check(view, offset)
        super().pread_into(view, offset)

    def pwrite(self, view, offset):
        self._check(view, offset)
        super().pwrite(view, offset)

    def flush(self):
        self.flushes += 1


class Counted(Waiting):
    """Says how many calls have come as far as the gate."""

    def __init__(self, size):
        super().__init__(size)
        self.entered = threading.Semaphore(0)

    def _check(self, view, offset):
        self.entered.release()
        super()._check(view, offset)


def make(kind):
    device = kind(SIZE)
    MemoryDevice.pwrite(device, memoryview(DATA), 0)
    return device


class Served:
    """A running server without listeners, to which sockets are given."""

    def __init__(self, device, memory="1MiB", **options):
        self.device = device
        self.server = Server({"": device}, memory=memory, **options)
        self.ours = []

    def connect(self, **options):
        ours, theirs = socket.socketpair()
        self.server.add_connection(theirs)
        self.ours.append((ours, options))
        return ours

    def start(self):
        self.server.start()
        return [Client(sock, **options) for sock, options in self.ours]

    def end(self):
        """Stop; every frame must be home: closing the pool would raise otherwise."""
        for sock, _ in self.ours:
            sock.close()
        report = self.server.stop()
        if self.server._failure is not None:
            raise self.server._failure
        assert self.server._loop.frames_out == 0
        assert self.server._window.spare_free == self.server._window.spare
        assert report.memory_peak <= report.memory_limit
        assert not report.abandoned
        return report


def serve_one(device, memory="1MiB", structured=True, **options):
    served = Served(device, memory, **options)
    served.connect(structured=structured)
    (client,) = served.start()
    return served, client
