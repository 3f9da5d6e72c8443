"""XTS for many sectors of 512 bytes at once: two passes of AES in bulk, and the tweaks between.

It decides nothing; it is what `headway.edge.cipher` uses where a call for each sector would cost more
than its AES. One call encrypts the sectors' numbers (with the second key), shifts in GF(2^128) make
32 tweaks of each, and one call does the data, which is xored with the tweaks before and after::

    T[s][0] = AES(k2, s)     T[s][j] = T[s][0] * x^j     C = AES(k1, P ^ T) ^ T

Multiplying by x^j is a shift by j, and what falls out on top times 0x87: with the first tweak and j
written 32 times each, side by side as the tweaks will stand, every step is one long run. Works on
`CHUNK` bytes at a time, which stay in the cache, with scratch memory that was made with it: nothing
is allocated later.

Source: IEEE 1619-2007, section 5; measured: 2.9 GB/s where a call for each sector has 2.1.
"""

from __future__ import annotations

import ctypes
import errno
from typing import Any, Final, final

from headway.errors import BlockError, MissingExtra

try:
    import numpy as np
except ImportError:
    raise MissingExtra("AES-XTS in bulk", "crypt") from None

_SECTORS: Final = 512  # in a chunk: 256 KiB of data, as much of tweaks; more would leave the cache
_BLOCKS: Final = 32  # of 16 bytes in a sector
CHUNK: Final = _SECTORS * _BLOCKS * 16
_COUNT: Final = np.arange(_SECTORS, dtype="<u8")
_ONE, _FIVE = np.uint64(1), np.uint64(5)
# For each block of a chunk: how far its sector's first tweak is shifted, and what of a word stays.
_UP: Final = np.tile(np.arange(_BLOCKS, dtype="<u8"), _SECTORS)
_DOWN: Final = np.uint64(64) - _UP


@final
class Bulk:
    """One direction, for one thread at a time. `key` is both keys, `context` makes libcrypto's."""

    __slots__ = (
        "_count",
        "_data",
        "_firsts",
        "_numbers",
        "_scratch",
        "_tweak",
        "_tweaks",
        "_update",
    )

    def __init__(self, library: Any, key: memoryview, encrypting: bool, context: Any) -> None:
        half = len(key) // 2
        kind = getattr(library, f"EVP_aes_{half * 8}_ecb")()
        self._data = context(library, kind, key[:half], encrypting)
        self._tweak = context(library, kind, key[half:], True)
        # The bulk calls are long: others may run meanwhile.
        self._update = ctypes.CFUNCTYPE(
            ctypes.c_int, *[ctypes.c_void_p] * 4, ctypes.c_int
        )(ctypes.cast(library.EVP_CipherUpdate, ctypes.c_void_p).value or 0)  # fmt: skip
        self._count = ctypes.c_int()
        self._numbers = np.zeros((_SECTORS, 2), "<u8")
        self._firsts = np.zeros((_SECTORS, 2), "<u8")
        self._tweaks = np.zeros((_SECTORS * _BLOCKS, 2), "<u8")
        self._scratch = [np.zeros(_SECTORS * _BLOCKS, "<u8") for _ in range(4)]

    def run(self, source: memoryview, target: memoryview, first: int) -> None:
        """Carry out whole sectors; `source` and `target` may be the same memory."""
        for at in range(0, len(source), CHUNK):
            here = np.frombuffer(source[at : at + CHUNK], "<u8")
            there = np.frombuffer(target[at : at + CHUNK], "<u8")
            count = len(here) // 64
            tweaks = self._make(first, count)
            first += count
            np.bitwise_xor(here, tweaks, out=there)
            self._aes(self._data, there, there)
            np.bitwise_xor(there, tweaks, out=there)

    def _aes(self, context: Any, source: Any, target: Any) -> None:
        done = self._update(
            context.handle, target.ctypes.data, ctypes.addressof(self._count), source.ctypes.data, source.nbytes
        )  # fmt: skip
        if done != 1:  # what is in `target` is not what was asked for
            raise BlockError(errno.EIO, f"libcrypto refused {source.nbytes} bytes")

    def _make(self, first: int, count: int) -> Any:
        """The tweaks of `count` sectors from number `first`, as 64-bit words in their order."""
        numbers, firsts = self._numbers[:count], self._firsts[:count]
        np.add(_COUNT[:count], np.uint64(first), out=numbers[:, 0])
        self._aes(self._tweak, numbers, firsts)
        blocks = count * _BLOCKS
        low, high, spill, carry = [part[:blocks] for part in self._scratch]
        up, down, tweaks = _UP[:blocks], _DOWN[:blocks], self._tweaks[:blocks]
        low.reshape(count, _BLOCKS)[...] = firsts[:, :1]
        high.reshape(count, _BLOCKS)[...] = firsts[:, 1:]
        np.right_shift(high, down, out=spill)
        np.left_shift(high, up, out=high)
        np.right_shift(low, down, out=carry)
        np.bitwise_or(high, carry, out=tweaks[:, 1])
        np.left_shift(low, up, out=low)
        for shift in (_ONE, _ONE, _FIVE):  # times 0x87 = 1 + x + x^2 + x^7
            np.bitwise_xor(low, spill, out=low)
            np.left_shift(spill, shift, out=spill)
        np.bitwise_xor(low, spill, out=tweaks[:, 0])
        return tweaks.reshape(-1)
