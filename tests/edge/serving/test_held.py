"""Replies that wait for a client which does not read: whose their frames are.

The loop is turned by hand, so that what happens between two of its turns is known.
"""

import socket
import threading

from headway.edge.memory_devices import MemoryDevice
from headway.server import Server
from tests.edge.serving.served import DATA, SIZE, Waiting
from tests.nbd_client import READ, Client


class Gated(Waiting):
    """A read waits until its offset is let through."""

    def __init__(self, size):
        super().__init__(size)
        self.gates = {}

    def let(self, offset):
        return self.gates.setdefault(offset, threading.Event())

    def pread_into(self, view, offset):
        assert self.let(offset).wait(30)
        super().pread_into(view, offset)


def test_a_held_reply_keeps_the_sending_sides_own_frame():
    """Else the spare reply before it, sent in part, takes its place and gives its spare away: a connection
    then has two frames of its own for replies, and with all of them the window's sum does not hold."""
    device = Gated(SIZE)
    MemoryDevice.pwrite(device, memoryview(DATA), 0)
    server = Server({"": device}, memory="1MiB")
    loop, window = server._loop, server._window
    frame = window.frame_size
    ours, theirs = socket.socketpair()
    server.add_connection(theirs)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the least there is
    [connection] = loop._connections.values()
    clients = []

    def meet():
        clients.append(Client(ours))
        loop.workers.wake()

    meeting = threading.Thread(target=meet)
    meeting.start()
    while not clients:
        loop._poll()
    meeting.join()
    [client] = clients

    def turn_until(reached):
        while not reached():
            loop._poll()

    def own():
        """The frames it has of its own; no input is unfinished, so one for a reply is all it may have."""
        return loop.frames_out - 2 - (window.spare - window.spare_free)

    first, second, third = 0, frame, 2 * frame
    for offset, length in ((first, frame), (second, frame), (third, 2 * frame)):
        client.send(READ, offset, length)
    turn_until(lambda: connection.jobs == 3)
    for left, offset in ((2, first), (1, second), (0, third)):
        device.let(offset).set()
        turn_until(lambda left=left: connection.jobs == left)
        assert own() <= 1
    device.let(3 * frame).set()
    ours.setblocking(False)
    data = b""
    while len(data) < 4 * frame:
        data += receive(ours)
        loop.workers.wake()  # a turn, whether something has come or not
        loop._poll()
        assert own() <= 1
    server.stop()
    assert DATA[:16] in data and not loop.frames_out
    ours.close()


def receive(sock):
    try:
        return sock.recv(512)
    except BlockingIOError:
        return b""
