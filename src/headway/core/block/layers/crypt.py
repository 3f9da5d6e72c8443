"""Encrypts every sector by itself, AES-XTS with plain64 numbers: LUKS2, LUKS1, or a bare key.

A write is encrypted into a buffer of the layer's own, since the caller's memory is not its to change; a
read is decrypted in place, when it has come. So a write takes one buffer, of which the first is enough
to get on (R3), and is split to fit it; a read takes nothing. Zeros are written as encrypted zeros. The
work is done by whoever submits a write, and by whoever completes a read.

A sector's number counts 512 bytes, whatever its size, as dm-crypt does without ``iv_large_sectors``.
Reserves: `reserve` buffers (2) of `buffer` bytes (512KiB), and 2 bios to split with.

Source: Linux ``drivers/md/dm-crypt.c`` (6.12). Departure: there a write takes pages one by one, and so
needs a lock to take many; here it has one buffer or waits with none.
"""

from __future__ import annotations

from functools import partial

from headway.core.block.bio import DISCARD, FLUSH, READ, WRITE, ZERO, Bio
from headway.core.block.bioset import BioSet
from headway.core.block.crypto import Sectors
from headway.core.block.layer import Layer
from headway.core.block.limits import Limits
from headway.core.block.line import Line
from headway.core.block.luks.asked import volume_of, wish_of, write_header
from headway.core.block.luks.volume import Created, Volume
from headway.core.block.spec import Options, Site
from headway.core.mm.mempool import Mempool
from headway.core.plan import Plan
from headway.errors import UsageError


class Crypt(Layer):
    """`volume` says where the data is on `below`; `buffers` are `size` bytes each, whole sectors."""

    def __init__(
        self, below: Layer, volume: Volume, cipher: Sectors, buffers: Mempool[memoryview], size: int,
        splits: BioSet, *, discards: bool = False,
    ) -> None:  # fmt: skip
        sector = volume.sector_size
        room = below.size - volume.offset
        self.size = (room if volume.size is None else volume.size) // sector * sector
        if self.size < 0 or self.size > room:
            raise UsageError(
                f"layer crypt: the data begins at {volume.offset} of {below.name} and has {self.size} bytes, "
                f"but that has {below.size}: it was cut off, or is not the right device"
            )
        self.name = f"crypt on {below.name}"
        self.kind = volume.kind
        self.copies_writes = True
        self.below = (below,)
        self.limits = Limits(alignment=sector, max_length=size)
        self.splits = splits
        self._start, self._first, self._sector = volume.offset, volume.first, sector
        self._cipher, self._discards, self._buffers = cipher, discards, buffers
        self._zeros = memoryview(bytes(size))
        self._below_now = below.submit_now
        self.header: tuple[Layer, Created, bool] | None = None  # to be written by `start`

    def submit_now(self, bio: Bio) -> bool:
        op, offset, user = bio.op, bio.offset, bio.view
        if op is FLUSH or not bio.length:
            return self._below_now(bio)
        if (offset | bio.length) & (self._sector - 1):
            return False
        if op is READ or op is DISCARD:  # of any length: it needs no buffer
            if op is DISCARD and not self._discards:
                return True
            bio.offset += self._start
            done = self._below_now(bio)
            bio.offset = offset
            if done:
                self._read(bio)
            return done
        if bio.length > self.limits.max_length or (buffer := self._buffers.take_now()) is None:
            return False
        try:
            self._load(bio, buffer)
            return self._below_now(bio)
        finally:  # also if a signal's exception comes while bytes are being moved
            bio.op, bio.offset, bio.view = op, offset, user
            self._buffers.free(buffer)

    def submit(self, bio: Bio, line: Line) -> Plan[None] | None:
        if (bio.op is WRITE or bio.op is ZERO) and bio.length:
            return self._write(bio, line)
        if bio.op is DISCARD and not self._discards:
            bio.complete()
            return None
        if bio.op is READ:
            bio.push(self._read)
        if bio.op is not FLUSH:
            bio.offset += self._start
        line.send(bio, self.below[0])
        return None

    def _write(self, bio: Bio, line: Line) -> Plan[None]:
        [buffer] = yield from line.take(self._buffers)
        bio.push(partial(self._written, bio.op, buffer))
        self._load(bio, buffer)
        self._buffers.hand_over(buffer)
        line.send(bio, self.below[0])

    def _load(self, bio: Bio, buffer: memoryview) -> None:
        """Make `bio` a write of what its bytes are encrypted."""
        part = buffer if bio.length == len(buffer) else buffer[: bio.length]
        plain = self._zeros[: bio.length] if bio.view is None else bio.view
        self._cipher.encrypt(plain, part, self._first + (bio.offset >> 9))
        bio.op, bio.view = WRITE, part
        bio.offset += self._start

    def _written(self, op: object, buffer: memoryview, bio: Bio) -> None:
        bio.op = op  # type: ignore[assignment]  # what it was
        self._buffers.free(buffer)

    def _read(self, bio: Bio) -> None:
        if bio.error is None and bio.view is not None:
            self._cipher.decrypt(bio.view, bio.view, self._first + (bio.offset >> 9))

    def start(self) -> Plan[None] | None:
        """Write the header of a new volume."""
        return None if self.header is None else write_header(*self.header)

    def close(self) -> None:
        self._cipher.close()

    def stats(self) -> dict[str, object]:
        return {"format": self.kind, "sector": self._sector, "cipher": "aes-xts-plain64"}


def make(below: Layer, options: Options, site: Site) -> Layer:
    size = options.size("buffer", 512 << 10)
    reserve, discards = options.number("reserve", 2, least=1), options.flag("discards", False)
    volume, header = volume_of(below, options, site)
    if size < volume.sector_size:
        raise UsageError(
            f"layer crypt: buffer={size} holds no sector of {volume.sector_size} bytes"
        )
    cipher = site.crypto.aes_xts(volume.key, volume.sector_size)
    volume.key.wipe()
    pool = site.pool("buffers", site.buffers(size), reserve)
    layer = Crypt(below, volume, cipher, pool, size, site.bios("splits"), discards=discards)
    layer.header = header
    return layer


def room(size: int, options: Options) -> int:
    """With the header, and the last sector whole."""
    wish = wish_of(options)
    return wish.offset + -(-size // wish.sector_size) * wish.sector_size
