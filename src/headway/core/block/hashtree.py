"""The hash tree of a device, as veritysetup writes it: where each digest is, and what it is of.

It does no I/O: `treewalk` reads a tree, `treemaking` writes one. Level 0 has the digests of data blocks, each level
above those of the blocks of the one below, until one block is left; its digest is the root, which is
kept apart and vouches for all. Levels lie in the hash device behind the superblock, the highest first::

    superblock | level 1: 1 block | level 0: 3 blocks       for 300 data blocks, 128 digests a block

Source: Linux ``Documentation/admin-guide/device-mapper/verity.rst`` (6.12), format version 1.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final, final

from headway.errors import UsageError

MAGIC: Final = b"verity\0\0"
ALGORITHMS: Final = ("sha256", "sha512", "sha1")
SIZES: Final = tuple(512 << shift for shift in range(8))
_SUPERBLOCK: Final = struct.Struct("<8sII16s32sIIQH6s256s168s")


@final
@dataclass(frozen=True, slots=True)
class Tree:
    """Sizes in bytes, `start` and counts in blocks; `salt` goes before every block that is hashed."""

    algorithm: str
    salt: bytes
    data_size: int
    hash_size: int
    data_blocks: int
    start: int  # of the tree, in hash blocks
    uuid: bytes = bytes(16)

    def digest(self, block: memoryview | bytes | bytearray) -> bytes:
        state = hashlib.new(self.algorithm, self.salt)
        state.update(block)
        return state.digest()

    @property
    def width(self) -> int:
        """Bytes of one digest, without what fills it up."""
        return int(hashlib.new(self.algorithm).digest_size)

    @property
    def step(self) -> int:
        """From one digest in a block to the next: a power of two."""
        return 1 << (self.width - 1).bit_length()

    @property
    def per_block(self) -> int:
        return self.hash_size // self.step

    def levels(self) -> list[tuple[int, int]]:
        """First block and number of blocks of each level, the lowest first."""
        counts, count = [], self.data_blocks
        while count > 1:
            count = -(-count // self.per_block)
            counts.append(count)
        places, at = [], self.start
        for count in reversed(counts):
            places.append((at, count))
            at += count
        return places[::-1]

    def end(self) -> int:
        """Bytes that the hash device must have."""
        return (self.start + sum(count for _, count in self.levels())) * self.hash_size

    def superblock(self) -> bytes:
        name = self.algorithm.encode()
        return _SUPERBLOCK.pack(
            MAGIC, 1, 1, self.uuid, name, self.data_size, self.hash_size, self.data_blocks,
            len(self.salt), b"", self.salt, b"",
        )  # fmt: skip


def parse(raw: bytes, offset: int, name: str) -> Tree:
    """The tree of a superblock at `offset` of a hash device. Raises: UsageError if it is none for us."""
    if len(raw) < _SUPERBLOCK.size or not raw.startswith(MAGIC):
        raise UsageError(
            f"{name} has no verity superblock at {offset}: veritysetup format makes one"
        )
    fields = _SUPERBLOCK.unpack_from(raw)
    _, version, kind, uuid, algorithm, data, size, blocks, salt_size, _, salt, _ = fields
    algorithm = algorithm.split(b"\0")[0].decode("ascii", "replace")
    if (version, kind) != (1, 1) or algorithm not in ALGORITHMS:
        raise UsageError(
            f"{name} has a tree of version {version}, type {kind}, with {algorithm}: headway reads version "
            f"1, type 1, with {', '.join(ALGORITHMS)}"
        )
    if data not in SIZES or size not in SIZES or salt_size > 256 or not 0 < blocks < 1 << 50:
        raise UsageError(f"{name} has a damaged verity superblock")
    return Tree(algorithm, salt[:salt_size], data, size, blocks, first_block(offset, size), uuid)


def first_block(offset: int, hash_size: int) -> int:
    """Where the tree begins if the superblock is at `offset`."""
    return -(-(offset + _SUPERBLOCK.size) // hash_size)


def first_wrong(tree: Tree, view: memoryview, wanted: list[bytes]) -> int | None:
    """The first block of `view` that has not the digest wanted, if there is one."""
    size, digest = tree.data_size, tree.digest
    for number, one in enumerate(wanted):
        if digest(view[number * size : (number + 1) * size]) != one:
            return number
    return None
