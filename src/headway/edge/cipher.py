"""AES-XTS over sectors, by the libcrypto that is there.

It invents no cipher: every block goes through libcrypto's AES. Three ways, the first that works:

* `ctypes` on the libcrypto that Python's own ``hashlib`` is linked with, a call for each sector: see
  `headway.edge.libcrypto`;
* the same, for many sectors of 512 bytes, in bulk: see `headway.edge.xts`;
* the `cryptography` package, one cipher object for each sector: half as fast, a tenth for 512 bytes.

Contexts: one is made at the start and kept for the time when no other can be had; then it is shared
under a lock. So no request fails, or waits for memory, once the cipher is there.

Source: EVP_EncryptInit(3); IEEE 1619-2007; Linux ``Documentation/admin-guide/device-mapper/dm-crypt.rst``
(plain64).
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any, TypeAlias, final

from headway.core.block.crypto import Secret, Sectors
from headway.edge.libcrypto import Context, Sectorwise, libcrypto
from headway.errors import MissingExtra, UsageError

# One direction, for one thread at a time: sector by sector, and in bulk if that is worth it.
_Way: TypeAlias = "tuple[Sectorwise, Any]"

# Sectors: the bulk way costs 14 us and 160 ns for each, a call for each 280 ns.
_BULK_FROM = 112
_SMALL = 512


def aes_xts(key: Secret, sector_size: int, *, brief: bool = False) -> Sectors:
    """A cipher for whole sectors; `brief`: for a few of them, once, so not worth loading numpy for.

    Raises: UsageError if the key is none; MissingExtra if there is no libcrypto at all; NoMemory.
    """
    if len(key) not in (32, 64):
        raise UsageError(f"a key of {len(key)} bytes: AES-XTS takes 32 or 64 (two keys in one)")
    half = len(key) // 2
    with key.reveal() as plain:
        if plain[:half] == plain[half:]:
            raise UsageError(
                "the two halves of an AES-XTS key must differ; make it of random bytes"
            )
    library = libcrypto()
    if library is None:
        return Packaged(key, sector_size)
    if sector_size == _SMALL and not brief:
        with suppress(ImportError):
            from headway.edge.xts import Bulk

            return Direct(library, key, sector_size, Bulk)
    return Direct(library, key, sector_size, None)


@final
class Direct:
    """Through `ctypes`. `bulk` makes what carries out many sectors of 512 bytes at once."""

    __slots__ = (
        "_bulk",
        "_key",
        "_library",
        "_lock",
        "_spare",
        "_ways",
        "sector_size",
    )

    def __init__(self, library: Any, key: Secret, sector_size: int, bulk: Any) -> None:
        self.sector_size = sector_size
        self._library = library
        with key.reveal() as plain:
            self._key = Secret(plain)
        self._bulk = bulk
        self._lock = threading.Lock()
        # By direction (decrypting, encrypting): what is at hand, and the one that is always there.
        self._ways: tuple[list[_Way], list[_Way]] = ([], [])
        self._spare: tuple[_Way, _Way] | None = (self._way(False), self._way(True))

    def _way(self, encrypting: bool) -> _Way:
        sectors = Sectorwise(self._library, self._key, self.sector_size, encrypting)
        bulk = self._bulk
        if bulk is not None:
            with self._key.reveal() as plain:
                bulk = bulk(self._library, plain, encrypting, Context)
        return sectors, bulk

    def encrypt(self, source: memoryview, target: memoryview, first: int) -> None:
        self._run(True, source, target, first)

    def decrypt(self, source: memoryview, target: memoryview, first: int) -> None:
        self._run(False, source, target, first)

    def _run(self, encrypting: bool, source: memoryview, target: memoryview, first: int) -> None:
        if len(source) != len(target) or len(source) % self.sector_size:
            raise UsageError(
                f"{len(source)} bytes into {len(target)}: whole sectors of {self.sector_size} are wanted"
            )
        if not source:
            return
        ways = self._ways[encrypting]
        try:
            way = ways.pop()
        except IndexError:
            another = self._another(encrypting)
            if another is None:
                with self._lock:
                    self._carry_out(self._spared()[encrypting], source, target, first)
                return
            way = another
        self._carry_out(way, source, target, first)
        ways.append(way)
        if self._spare is None:  # closed meanwhile
            ways.clear()

    def _another(self, encrypting: bool) -> _Way | None:
        """None: there is no memory for it now."""
        self._spared()
        try:
            way = self._way(encrypting)
        except MemoryError:
            return None
        self._spared()  # else its key may have been wiped before it was made
        return way

    def _spared(self) -> tuple[_Way, _Way]:
        if self._spare is None:
            raise UsageError(f"{self!r} is closed, and has no key any more")
        return self._spare

    def _carry_out(self, way: _Way, source: memoryview, target: memoryview, first: int) -> None:
        sectors, bulk = way
        if bulk is not None and len(source) >= _BULK_FROM * self.sector_size:
            bulk.run(source, target, first)
            return
        if source.readonly:  # then it has no address for ctypes: done in place
            target[:] = source
            source = target
        sectors.run(source, target, first)

    def close(self) -> None:
        """Forget the key, and the contexts that know it; whoever encrypts later is refused."""
        self._spare = None
        self._key.wipe()
        for ways in self._ways:
            ways.clear()

    def __repr__(self) -> str:
        return f"<AES-XTS, sectors of {self.sector_size} bytes>"


@final
class Packaged:
    """Through the `cryptography` package, where `ctypes` finds no libcrypto."""

    __slots__ = ("_algorithm", "_cipher", "_mode", "sector_size")

    def __init__(self, key: Secret, sector_size: int) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
        except ImportError:
            raise MissingExtra("layer crypt", "crypt") from None
        self.sector_size = sector_size
        self._cipher, self._mode = Cipher, modes.XTS
        with key.reveal() as plain:
            self._algorithm: Any = algorithms.AES(bytes(plain))

    def encrypt(self, source: memoryview, target: memoryview, first: int) -> None:
        self._run("encryptor", source, target, first)

    def decrypt(self, source: memoryview, target: memoryview, first: int) -> None:
        self._run("decryptor", source, target, first)

    def _run(self, way: str, source: memoryview, target: memoryview, first: int) -> None:
        size = self.sector_size
        for at in range(0, len(source), size):
            mode = self._mode((first + at // 512).to_bytes(16, "little"))
            context = getattr(self._cipher(self._algorithm, mode), way)()
            target[at : at + size] = context.update(source[at : at + size])

    def close(self) -> None:
        self._algorithm = None
