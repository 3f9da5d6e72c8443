"""A qcow2 image written by hand, cluster by cluster: `here`, `packed`, `zeros` or `nowhere`."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

KINDS = ("here", "packed", "zeros", "nowhere")


def packed(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-12)
    return compressor.compress(data) + compressor.flush()


def image(
    clusters: Sequence[tuple[str, bytes]],
    *,
    bits: int = 9,
    size: int = 0,
    backing: str = "",
    form: str = "",
) -> bytearray:
    """Version 3. The header, L1, a table for each run of clusters that is not nowhere as a whole, the data."""
    cluster, per_table = 1 << bits, 1 << bits - 3
    runs = [clusters[at : at + per_table] for at in range(0, len(clusters), per_table)]
    tables = -(-len(runs) * 8 // cluster) + 1  # in clusters
    file = bytearray(cluster * tables)
    for number, run in enumerate(runs):
        if all(kind == "nowhere" for kind, _ in run):
            continue
        table = len(file)
        struct.pack_into(">Q", file, cluster + 8 * number, table | 1 << 63)
        file += bytes(cluster)
        for at, (kind, data) in enumerate(run):
            entry = {"zeros": 1, "nowhere": 0}.get(kind)
            if kind == "here":
                entry = len(file) | 1 << 63
                file += data.ljust(cluster, b"\0")
            elif kind == "packed":
                short = packed(data.ljust(cluster, b"\0"))
                offset = len(file) + 7  # at no sector's beginning
                sectors = (offset % 512 + len(short) - 1) // 512
                entry = offset | sectors << 62 - (bits - 8) | 1 << 62
                file += bytes(7) + short
                file += bytes(-len(file) % cluster)
            struct.pack_into(">Q", file, table + 8 * at, entry)
    names = form.encode()
    extension = struct.pack(">II", 0xE2792ACA, len(names)) + names.ljust(
        -(-len(names) // 8) * 8, b"\0"
    )
    named_at = 104 + len(extension) if backing else 0
    fixed = struct.pack(
        ">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, named_at, len(backing), bits, size or len(clusters) * cluster, 0,
        len(runs), cluster, 0, 0, 0, 0, 0, 0, 0, 4, 104,
    )  # fmt: skip
    file[: len(fixed)] = fixed
    if backing:
        head = extension + backing.encode()
        file[104 : 104 + len(head)] = head
    return file


def bytes_of(clusters: Sequence[tuple[str, bytes]], cluster: int, below: bytes = b"") -> bytes:
    """What a disk with these clusters reads as, on `below`."""
    parts = []
    for number, (kind, data) in enumerate(clusters):
        found = below[number * cluster : (number + 1) * cluster] if kind == "nowhere" else data
        parts.append((b"" if kind == "zeros" else found).ljust(cluster, b"\0"))
    return b"".join(parts)
