"""NBD servers with 15 clients that have stopped reading: how much of its solo speed a 16th keeps.

Each of the 15 asks for 64 reads of 256 KiB and reads no answer; then fio reads or writes 4 KiB at depth 16
beside them. A ratio is the speed beside them over the speed alone, in the same round and on the same
server. `slow` is a device that takes a millisecond for each request, so that every request is a
worker's and needs a frame meanwhile. The goal is 0.5.

It does not show memory: `nbd_memory` does.
"""

from __future__ import annotations

import shutil
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bench.measure import Row, compared
from bench.nbd import fio, serving

SIZE = 512 << 20
_STALLED = 15
_REQUESTS = 64
_LENGTH = 256 << 10


def run(quick: bool) -> list[Row]:
    """Rows for us, and for the servers that are there; none where fio is missing."""
    if shutil.which("fio") is None:
        return []
    rows = []
    parent = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=parent, prefix="headway-bench-") as place:
        image = Path(place, "image")
        with open(image, "wb") as file:
            for _ in range(SIZE >> 20):
                file.write(b"\xa5" * (1 << 20))
        for name, command in _commands(image).items():
            for title, kind in (("4K read", "randread"), ("4K write", "randwrite")):
                solo, beside = [], []
                for _ in range(1 if quick else 7):
                    with serving(Path(place, "socket"), command) as path:
                        measure = fio(path, kind, "4k", 16, "iops")
                        solo.append(measure())
                        with _stalled(path):
                            beside.append(measure())
                goal = 0.5 if name.startswith("ours") else None
                case = f"{name}: {title} beside {_STALLED} that do not read"
                rows.append(
                    compared(case, beside, "iops", "alone", solo, goal=goal, better="higher")
                )
    return rows


def _commands(image: Path) -> dict[str, list[str]]:
    ours = [sys.executable, "-m", "headway", "serve", str(image), "--listen", "unix:SOCKET"]
    commands = {
        "ours, 3 layers": [*ours, "--layer=linear", "--layer=bounce", "--layer=linear"],
        "ours, slow": [*ours, "--layer=delay,seconds=0.001"],
    }
    if shutil.which("nbdkit") is not None:
        slow = ["--filter=delay", "file", str(image), "rdelay=1ms", "wdelay=1ms"]
        commands["nbdkit file, slow"] = ["nbdkit", "-f", "-U", "SOCKET", *slow]
    return commands


@contextmanager
def _stalled(path: Path) -> Iterator[None]:
    """Clients that ask for more than any socket takes, and read none of it."""
    with ExitStack() as stack:
        for _ in range(_STALLED):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.settimeout(1)
            sock.connect(str(path))
            _exactly(sock, 18)
            sock.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 1, 0))
            _exactly(sock, 10)
            with suppress(TimeoutError):  # a server may stop taking requests
                for cookie in range(_REQUESTS):
                    offset = cookie * _LENGTH
                    sock.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, cookie, offset, _LENGTH))
        time.sleep(0.5)  # till all of them have stalled
        yield


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise ConnectionError
        data += part
    return data
