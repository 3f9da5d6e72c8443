"""Encryption served: fio's nbd engine over a Unix socket, beside nbdkit's luks filter and qemu-nbd.

All decrypt AES-256-XTS. The peers have LUKS1 alone, with sectors of 512 bytes; ours serves that (one image
for all three), and LUKS2 with sectors of 4096. All files lie in memory (tmpfs); the servers take turns in
every round.

It does not show networks, disks, or machines with more processors than it has: the client, fio, takes one of
two here, and the server the other.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench.measure import Row, compared, in_turn
from bench.nbd import SIZE, fio, serving
from headway.copying import copy

NOTE = "client and server share two processors; the peers' sectors have 512 bytes"
CASES = [
    ("4K read", "randread", "4k", 16, "iops"),
    ("256K read", "read", "256k", 8, "MB/s"),
    ("256K write", "write", "256k", 8, "MB/s"),
]
# ours: goal beside nbdkit's luks filter, and beside qemu-nbd
GOALS = {"sectors of 4096": (1.3, 2.0), "sectors of 512": (1.0, 1.5)}


def run(quick: bool) -> list[Row]:
    """Rows beside the peers that are there; none without fio and qemu-img."""
    if shutil.which("fio") is None or shutil.which("qemu-img") is None:
        return []
    rows = []
    with ExitStack() as stack:
        memory = Path("/dev/shm")
        directory = tempfile.TemporaryDirectory(
            dir=memory if memory.is_dir() else None, prefix="headway-bench-"
        )
        sockets = _servers(stack, Path(stack.enter_context(directory)))
        for name, kind, block, depth, unit in CASES:
            ways = {who: fio(path, kind, block, depth, unit) for who, path in sockets.items()}
            taken = in_turn(ways, rounds=1 if quick else 7)
            for ours, goals in GOALS.items():
                for peer, goal in zip(("nbdkit luks", "qemu-nbd luks"), goals, strict=True):
                    if peer in taken and ours in taken:
                        rows.append(
                            compared(
                                f"{name}, crypt, {ours}", taken[ours], unit, peer, taken[peer],
                                goal=goal, better="higher", note=NOTE,
                            )
                        )  # fmt: skip
    return rows


def _servers(stack: ExitStack, place: Path) -> dict[str, Path]:
    """Start every server; the socket of each."""
    key, old, new = place / "key", place / "luks1", place / "luks2"
    key.write_text("bench", "ascii")
    key.chmod(0o600)
    options = f",key-file={key},iterations=1000"
    copy(f"zero:{SIZE}", old, layers=[f"crypt,format=luks1{options}"], hash=False)
    copy(f"zero:{SIZE}", new, layers=[f"crypt{options}"], hash=False)
    layer = ["--layer", f"crypt,key-file={key}", "--listen", "unix:SOCKET"]
    serve = [sys.executable, "-m", "headway", "serve"]
    commands = {
        "sectors of 4096": [*serve, str(new), *layer],
        "sectors of 512": [*serve, str(old), *layer],
        "nbdkit luks": [
            "nbdkit", "-f", "-U", "SOCKET", "file", str(old), "--filter=luks", f"passphrase=+{key}",
        ],
        "qemu-nbd luks": [
            "qemu-nbd", "-k", "SOCKET", "-t", "--object", f"secret,id=s,file={key}",
            "--image-opts", f"driver=luks,key-secret=s,file.filename={old}",
        ],
    }  # fmt: skip
    return {
        name: stack.enter_context(serving(place / f"{name.replace(' ', '-')}.sock", command))
        for name, command in commands.items()
        if shutil.which(command[0]) is not None
    }
