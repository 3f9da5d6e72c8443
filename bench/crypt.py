"""Encryption: the cipher over 256 KiB, and copies of one file to LUKS, in memory (tmpfs).

* The cipher against one object of the `cryptography` package for each sector, its documented use.
* A copy to LUKS without a hash against `qemu-img convert` into a LUKS image that is there already: so
  qemu does not measure the processor, and both derive a key of as few iterations as they allow (some
  1,000 to 4,000; before, qemu's 200,000 flattered us by 80 ms).
* A copy with SHA-256 to LUKS2 against `openssl dgst -sha256`, which only reads the file.

Ours time the copy without Python's start, the others are timed with theirs. It does not show disks,
nor what a server makes of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench.measure import Row, alone, undisturbed
from headway.copying import copy
from headway.core.block.crypto import Secret
from headway.edge.cipher import Packaged, aes_xts

SIZE = 384 << 20
_LENGTH = 256 << 10
_NOTE = "both processors in use; on a loaded machine the copy loses more than a single thread does"
_FLOOR = (
    "no copy of this shape can be faster here: both processors busy from the first byte to the last"
)
Way = Callable[[], object]


def run(quick: bool) -> list[Row]:
    """The cipher, then copies; quick: one round of little."""
    rows = [row for size in (512, 4096) for row in _cipher(size, 3 if quick else 40)]
    memory = Path("/dev/shm")
    where = memory if memory.is_dir() else None
    with tempfile.TemporaryDirectory(dir=where, prefix="headway-bench-") as directory:
        rows += _copies(Path(directory), 16 << 20 if quick else SIZE, 1 if quick else 9)
    return rows


def _seconds(way: Way) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def _cipher(sector: int, rounds: int) -> list[Row]:
    key = Secret(os.urandom(64))
    ours, theirs = aes_xts(key, sector), Packaged(key, sector)
    plain, out = memoryview(os.urandom(_LENGTH)), memoryview(bytearray(_LENGTH))
    taken = []
    with undisturbed():
        for _ in range(rounds):
            taken.append(
                (
                    _seconds(lambda: ours.encrypt(plain, out, 7)),
                    _seconds(lambda: theirs.encrypt(plain, out, 7)),
                )
            )
    mine = median(one for one, _ in taken)
    ratios = [other / one for one, other in taken]
    return [
        Row(
            f"AES-256-XTS, sectors of {sector}, {_LENGTH / mine / 1e6:.0f} MB/s",
            mine * 1e6, "us", "cryptography, an object a sector", median(ratios),
            better="higher", low=min(ratios), high=max(ratios),
        )
    ]  # fmt: skip


def _copies(place: Path, size: int, rounds: int) -> list[Row]:
    source, target, key = place / "source", place / "target", place / "key"
    with source.open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
    key.write_text("bench", "ascii")
    key.chmod(0o600)

    def ours(options: str, hashing: bool) -> Way:
        spec = f"crypt,key-file={key},iterations=1000{options}"
        return lambda: copy(source, target, layers=[spec], hash=hashing)

    ways: dict[str, Way] = {
        "LUKS2": ours("", False),
        "LUKS1": ours(",format=luks1", False),
        "SHA-256 and LUKS2": ours("", True),
    }
    peers = {"openssl dgst, only reading": ["openssl", "dgst", "-sha256", str(source)]}
    if _made_by_qemu(place / "luks", key, size):
        peers["qemu-img convert -O luks"] = [
            "qemu-img", "convert", "--object", f"secret,id=s,file={key}", "-n", "--target-image-opts",
            str(source), f"driver=luks,key-secret=s,file.filename={place / 'luks'}",
        ]  # fmt: skip
    for name, command in peers.items():
        if shutil.which(command[0]):
            ways[name] = _command(command)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            target.unlink(missing_ok=True)
            before = time.process_time()
            taken[name].append(_seconds(way))
            spent[name].append(time.process_time() - before)
    wanted = [
        ("LUKS2", "qemu-img convert -O luks", 3.0),
        ("LUKS1", "qemu-img convert -O luks", 3.0),
        ("SHA-256 and LUKS2", "openssl dgst, only reading", 1.1),
    ]
    rows = []
    for name, peer, goal in wanted:
        if peer in taken:
            ratios = [b / a for a, b in zip(taken[name], taken[peer], strict=True)]
            rate = size / median(taken[name]) / (1 << 20)
            rows.append(
                Row(
                    f"copy, {name}, {rate:.0f} MiB/s", median(taken[name]), "s", peer, median(ratios),
                    goal, "higher", _NOTE, min(ratios), max(ratios),
                )
            )  # fmt: skip
        count = os.cpu_count() or 1
        share = f"copy, {name}: its processor time over {count} processors"
        rows.append(alone(share, [one / count for one in spent[name]], "s", note=_FLOOR))
    return rows


def _command(command: list[str]) -> Way:
    return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _made_by_qemu(path: Path, key: Path, size: int) -> bool:
    """Whether qemu-img made an image; it may give up measuring a busy processor, so ask it again."""
    if not shutil.which("qemu-img"):
        return False
    command = [
        "qemu-img", "create", "--object", f"secret,id=s,file={key}", "-f", "luks",
        "-o", "key-secret=s,iter-time=1", str(path), str(size),
    ]  # fmt: skip
    return any(subprocess.run(command, capture_output=True).returncode == 0 for _ in range(20))
