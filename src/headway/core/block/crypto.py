"""What layers that encrypt are given: key files, ciphers, a key derivation and chance, as callables.

It decides what a secret may be asked, and encrypts nothing: `headway.edge.crypto` does. Hashes, and
PBKDF2 which is made of them, are the standard library's, and need no callable.

A secret is never in a repr, a log or JSON, and cannot be pickled. CPython may still have copies of it
in freed memory: whoever can read the process's memory can read its keys.

Source: own.
"""

from __future__ import annotations

from typing import Any, NoReturn, Protocol, final


@final
class Secret:
    """Bytes that are shown to nobody by accident. `wipe` overwrites them."""

    __slots__ = ("_bytes",)

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._bytes = bytearray(data)

    def reveal(self) -> memoryview:
        """The bytes themselves. Whoever asks lets go of them before `wipe`."""
        return memoryview(self._bytes)

    def wipe(self) -> None:
        """Overwrite it with zeros; it is of no use afterwards."""
        self._bytes[:] = bytes(len(self._bytes))

    def __len__(self) -> int:
        return len(self._bytes)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")

    def __repr__(self) -> str:
        return f"<Secret of {len(self._bytes)} bytes>"


class Sectors(Protocol):
    """A cipher over whole sectors, each for itself. `first` is the number of the first one's place on
    the device, in units of 512 bytes whatever the size of a sector. Several threads may use it."""

    @property
    def sector_size(self) -> int:
        """Bytes."""

    def encrypt(self, source: memoryview, target: memoryview, first: int) -> None:
        """Encrypt `source` into `target`, of the same length; they may be the same memory.

        Waits: never. Shape: whole sectors, contiguous bytes.
        """

    def decrypt(self, source: memoryview, target: memoryview, first: int) -> None:
        """The reverse."""

    def close(self) -> None:
        """Forget the key."""


class Crypto(Protocol):
    """What the core cannot do itself."""

    def key_file(self, path: str) -> Secret:
        """The whole file, byte for byte. Raises: UsageError. Warns if others may read it."""

    def aes_xts(self, key: Secret, sector_size: int, *, brief: bool = False) -> Sectors:
        """AES-XTS with plain64 numbers, and a key of 32 or 64 bytes. Raises: MissingExtra.

        `brief`: for a few sectors, once; a cipher that is at hand soon is better than a quick one.
        """

    def argon2id(
        self, secret: Secret, salt: bytes, *, passes: int, memory_kib: int, lanes: int, length: int
    ) -> Secret:
        """A key from a passphrase. Raises: MissingExtra; NoMemory if `memory_kib` is not to be had."""

    def random(self, count: int) -> bytes:
        """Bytes nobody can foresee."""
