"""NBD servers in a memory group: requests that failed, or a server that was killed, in five patterns.

Connections x requests x size, all asked for at once; readers do not read for half a second. The image
is on a disk, the client outside of the group. A value is the number of requests without an answer;
the goal is 0. Needs root, and memory groups (version 1 or 2); there are no rows without.

It does not show speed.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.measure import Row
from bench.nbd import PLUGIN, serving

MIB = 1 << 20
SIZE = 512 * MIB
READ, WRITE = 0, 1
PATTERNS = [
    ("1 x 64 x 1 MiB read", 1, 64, MIB, READ),
    ("16 x 4 x 1 MiB read", 16, 4, MIB, READ),
    ("16 x 4 x 1 MiB write", 16, 4, MIB, WRITE),
    ("4 x 4 x 32 MiB read", 4, 4, 32 * MIB, READ),
    ("4 x 4 x 32 MiB write", 4, 4, 32 * MIB, WRITE),
    ("64 x 4 x 1 MiB read", 64, 4, MIB, READ),
]
_SILENT_S = 0.5
_LIMITS = ("memory.limit_in_bytes", "memory.max")  # version 1, version 2


def run(quick: bool) -> list[Row]:
    """Rows for us in 64 and 48 MiB, plain and through layers, and for nbdkit and qemu-nbd in 64 MiB."""
    root = groups()
    if root is None:
        return []
    python = [sys.executable, "-m", "headway", "serve"]
    rows = []
    with tempfile.TemporaryDirectory(prefix="headway-bench-") as place:
        image, leg = Path(place, "image"), Path(place, "leg")
        for path in (image, leg):
            with open(path, "wb") as file:
                for _ in range(SIZE // MIB):
                    file.write(b"\xa5" * MIB)
        layers = [
            "--layer",
            "linear",
            "--layer",
            f"mirror,leg={leg}",
            "--layer",
            "bounce,reserve=4",
        ]
        ways = {
            ("ours", 64): [*python, str(image), "--listen", "unix:SOCKET", "--memory", "32MiB"],
            ("ours", 48): [*python, str(image), "--listen", "unix:SOCKET", "--memory", "16MiB"],
        }
        ways["ours through 3 layers", 48] = [*ways["ours", 48], *layers]
        if shutil.which("nbdkit") is not None:
            nbdkit = ["nbdkit", "-f", "-U", "SOCKET"]
            plugin = Path(place, "plugin.py")
            plugin.write_text(PLUGIN)
            ways["nbdkit file", 64] = [*nbdkit, "file", str(image)]
            ways["nbdkit python", 64] = [*nbdkit, "python", str(plugin), f"file={image}"]
        if shutil.which("qemu-nbd") is not None:
            words = ["-f", "raw", "-x", "", "-t", "-e", "64", "-k", "SOCKET", str(image)]
            ways["qemu-nbd raw", 64] = ["qemu-nbd", *words]
        for (name, limit), command in ways.items():
            for title, *pattern in PATTERNS[:2] if quick else PATTERNS:
                with served(root, Path(place), command, limit * MIB) as sock:
                    lost = lost_of(sock, *pattern)
                case = f"{name} in {limit} MiB, {title}"
                goal = 0 if name.startswith("ours") else None
                rows.append(Row(case, lost, "requests lost", goal=goal))
    return rows


def groups() -> Path | None:
    """Where memory groups can be made, if they can."""
    for root in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        probe = root / f"headway-probe-{os.getpid()}"
        try:
            probe.mkdir()
        except OSError:
            continue  # not there, or not ours to make
        found = any((probe / name).exists() for name in _LIMITS)
        probe.rmdir()
        if found:
            return root
    return None


@contextmanager
def served(root: Path, place: Path, command: list[str], limit: int) -> Iterator[str]:
    """A server in a group of its own; its socket."""
    group = root / f"headway-bench-{os.getpid()}"
    group.mkdir()
    next(group / name for name in _LIMITS if (group / name).exists()).write_text(str(limit))
    enter = ["sh", "-c", 'echo $$ > "$0/cgroup.procs"; exec "$@"', str(group), *command]
    try:
        with serving(place / "socket", enter) as path:
            yield str(path)
    finally:
        group.rmdir()


def lost_of(
    path: str, connections: int, requests: int, size: int, kind: int, *, total: int = SIZE
) -> int:
    """Run one pattern; how many requests were not answered with success."""
    answered = [0] * connections

    def talk(number: int) -> None:
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(120)
                sock.connect(path)
                _negotiate(sock)
                offsets = [(number * requests + n) * size % (total - size) for n in range(requests)]
                sender = threading.Thread(target=_ask, args=(sock, kind, size, offsets))
                sender.start()
                if kind == READ:
                    time.sleep(_SILENT_S)
                for _ in range(requests):
                    _, error, _ = struct.unpack(">IIQ", _exactly(sock, 16))
                    if kind == READ and not error:
                        for _ in range(size // MIB):
                            _exactly(sock, MIB)
                    answered[number] += not error
                sender.join()
        except OSError:
            pass

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return connections * requests - sum(answered)


def _ask(sock: socket.socket, kind: int, size: int, offsets: list[int]) -> None:
    payload = bytes(MIB) if kind == WRITE else b""
    try:
        for cookie, offset in enumerate(offsets):
            sock.sendall(struct.pack(">IHHQQI", 0x25609513, 0, kind, cookie, offset, size))
            for _ in range(size // MIB if kind == WRITE else 0):
                sock.sendall(payload)
    except OSError:
        pass  # the answers will be missing


def _negotiate(sock: socket.socket) -> None:
    """Newstyle, by export name, simple replies: what every server knows."""
    _exactly(sock, 18)
    sock.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 1, 0))
    _exactly(sock, 10)


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise ConnectionError
        data += part
    return bytes(data)
