"""AES-XTS over sectors, by the libcrypto that is there.

It invents no cipher: every block goes through libcrypto's AES. Three ways, the first that works:

* `ctypes` on the libcrypto that Python's own ``hashlib`` is linked with: one context for each thread
  at work, given a new tweak for each sector; 1.2 us for 4 KiB, half of it AES;
* the same, for many sectors of 512 bytes, in bulk: see `headway.edge.xts`;
* the `cryptography` package, one cipher object for each sector: half as fast, a tenth for 512 bytes.

Contexts: one is made at the start and kept for the time when no other can be had; then it is shared
under a lock. So no request fails, or waits for memory, once the cipher is there.

Source: EVP_EncryptInit(3); IEEE 1619-2007; Linux ``Documentation/admin-guide/device-mapper/dm-crypt.rst``
(plain64).
"""

from __future__ import annotations

import ctypes
import threading
from contextlib import suppress
from ctypes.util import find_library
from typing import Any, final

from headway.core.block.crypto import Secret, Sectors
from headway.errors import MissingExtra, NoMemory, UsageError

_BULK_FROM = 112  # sectors; the bulk way costs 85 us and 90 ns a sector, one call for each sector 720 ns
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


_library: list[Any] = []


def libcrypto() -> Any:
    """The library through `ctypes`, or None. It holds the GIL while it works on one sector: giving
    it up 64 times for 256 KiB costs more than it yields."""
    if not _library:
        _library.append(_found())
    return _library[0]


def _found() -> Any:
    names: list[str | None] = [find_library("crypto")]
    with suppress(ImportError):
        import _hashlib

        names.insert(0, getattr(_hashlib, "__file__", None))
    for name in names:
        if name is None:
            continue
        try:
            library = ctypes.PyDLL(name)
            pointer, number = ctypes.c_void_p, ctypes.c_int
            for function, result, arguments in (
                ("EVP_CIPHER_CTX_new", pointer, []),
                ("EVP_CIPHER_CTX_free", None, [pointer]),
                ("EVP_CIPHER_CTX_set_padding", number, [pointer, number]),
                ("EVP_CipherInit_ex", number, [pointer] * 5 + [number]),
                ("EVP_CipherUpdate", number, [pointer] * 4 + [number]),
                *((f"EVP_aes_{bits}_{mode}", pointer, []) for bits in (128, 256) for mode in ("xts", "ecb")),
            ):  # fmt: skip
                found = getattr(library, function)
                found.restype, found.argtypes = result, arguments
        except (OSError, AttributeError):
            continue
        return library
    return None


@final
class Context:
    """One libcrypto context with a key and a direction. Used by one thread at a time."""

    __slots__ = ("_free", "handle")

    def __init__(self, library: Any, kind: Any, key: Any, encrypting: bool) -> None:
        self._free = library.EVP_CIPHER_CTX_free
        self.handle = library.EVP_CIPHER_CTX_new()
        address = ctypes.addressof(ctypes.c_char.from_buffer(key))
        if not self.handle or not library.EVP_CipherInit_ex(
            self.handle, kind, None, address, None, int(encrypting)
        ):
            raise NoMemory(
                "libcrypto gave no AES context: there is no memory, or it refuses the key"
            )
        library.EVP_CIPHER_CTX_set_padding(self.handle, 0)

    def __del__(self) -> None:
        handle, self.handle = self.handle, None
        if handle:
            self._free(handle)


@final
class _Way:
    """One direction, for one thread at a time: the contexts, the tweak's bytes, what bulk work needs.

    A sector costs two calls, and converting their arguments as much as half of its AES. So what stays
    the same is converted here, once, and these functions know no types: they take it as it is.
    """

    __slots__ = (
        "bulk", "context", "count", "init", "init_arguments", "source", "target", "tweak",
        "tweak_bytes", "update", "update_arguments",
    )  # fmt: skip

    def __init__(self, library: Any, key: Secret, encrypting: bool, bulk: Any) -> None:
        bits = len(key) * 4
        with key.reveal() as plain:
            kind = getattr(library, f"EVP_aes_{bits}_xts")()
            self.context = Context(library, kind, plain, encrypting)
            self.bulk = None if bulk is None else bulk(library, plain, encrypting, Context)
        which = "Encrypt" if encrypting else "Decrypt"
        self.init, self.update = library[f"EVP_{which}Init_ex"], library[f"EVP_{which}Update"]
        self.init.restype = None  # a tweak is 16 bytes copied: nothing that could fail
        pointer, at = ctypes.c_void_p, ctypes.addressof
        self.tweak_bytes = (ctypes.c_uint64 * 2)()
        self.tweak = ctypes.c_uint64.from_buffer(self.tweak_bytes)  # the half that changes
        self.count = ctypes.c_int()
        self.source, self.target = pointer(), pointer()
        handle, none = pointer(self.context.handle), pointer()
        self.init_arguments = (handle, none, none, none, pointer(at(self.tweak_bytes)))
        self.update_arguments = (handle, self.target, pointer(at(self.count)), self.source)


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
        self._spare = (self._way(False), self._way(True))

    def _way(self, encrypting: bool) -> _Way:
        return _Way(self._library, self._key, encrypting, self._bulk)

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
            try:
                way = self._way(encrypting)
            except MemoryError:
                with self._lock:
                    self._carry_out(self._spare[encrypting], source, target, first)
                return
        self._carry_out(way, source, target, first)
        ways.append(way)

    def _carry_out(self, way: _Way, source: memoryview, target: memoryview, first: int) -> None:
        size, length = self.sector_size, len(source)
        if way.bulk is not None and length >= _BULK_FROM * size:
            way.bulk.run(source, target, first)
            return
        if source.readonly:  # then it has no address for ctypes: done in place
            target[:] = source
            source = target
        here = ctypes.addressof(ctypes.c_char.from_buffer(source))
        there = ctypes.addressof(ctypes.c_char.from_buffer(target))
        init, update, tweak = way.init, way.update, way.tweak
        handle, engine, kind, key, tweak_at = way.init_arguments
        _, at_target, count, at_source = way.update_arguments
        whole = ctypes.c_int(size)
        done = 1
        for tweak.value, at_source.value, at_target.value in zip(
            range(first, first + length // _SMALL, size // _SMALL),
            range(here, here + length, size),
            range(there, there + length, size),
            strict=True,
        ):
            init(handle, engine, kind, key, tweak_at)
            done &= update(handle, at_target, count, at_source, whole)
        assert done == 1, "libcrypto refused a sector"

    def close(self) -> None:
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
