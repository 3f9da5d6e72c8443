"""Key files, key derivation and chance, for layers that encrypt; ciphers are `headway.edge.cipher`'s.

It keeps no secret. A key file is read whole, byte for byte, a newline at its end included, as
cryptsetup's ``--key-file`` does; a pipe (``<(pass show disk)``) will do.

Source: cryptsetup(8) on key files; RFC 9106 (Argon2).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from headway.core.block.crypto import Secret, Sectors
from headway.edge.cipher import aes_xts
from headway.errors import MissingExtra, NoMemory, UsageError

_MOST_BYTES = 8 << 20  # as cryptsetup has it


class Crypto:
    """What `headway.core.block.crypto.Crypto` asks for. `report` is told of key files others may read."""

    __slots__ = ("_report",)

    def __init__(self, report: Callable[[str], object]) -> None:
        self._report = report

    def key_file(self, path: str) -> Secret:
        try:
            with open(path, "rb", buffering=0) as file:
                mode = os.fstat(file.fileno()).st_mode
                data = bytearray()
                while len(data) <= _MOST_BYTES and (part := file.read(_MOST_BYTES + 1)):
                    data += part
        except OSError as error:
            raise UsageError(f"key file {path} cannot be read: {error.strerror}") from None
        if not data:
            raise UsageError(f"key file {path} is empty: put the key or passphrase into it")
        if len(data) > _MOST_BYTES:
            raise UsageError(
                f"key file {path} has more than {_MOST_BYTES} bytes: is it the right one?"
            )
        if stat.S_ISREG(mode) and mode & 0o077:
            self._report(
                f"key file {path} can be read by others (mode {stat.S_IMODE(mode):04o}): "
                f"chmod 600 {path}"
            )
        secret = Secret(data)
        data[:] = bytes(len(data))
        return secret

    def aes_xts(self, key: Secret, sector_size: int, *, brief: bool = False) -> Sectors:
        return aes_xts(key, sector_size, brief=brief)

    def argon2id(
        self, secret: Secret, salt: bytes, *, passes: int, memory_kib: int, lanes: int, length: int
    ) -> Secret:
        try:
            from cryptography.exceptions import UnsupportedAlgorithm
            from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
        except ImportError:
            raise MissingExtra("a key slot with argon2id", "crypt") from None
        try:
            kdf = Argon2id(
                salt=salt, length=length, iterations=passes, lanes=lanes, memory_cost=memory_kib
            )
            with secret.reveal() as plain:
                return Secret(kdf.derive(bytes(plain)))
        except UnsupportedAlgorithm:
            raise MissingExtra("a key slot with argon2id", "crypt") from None
        except MemoryError as error:
            raise NoMemory(
                f"argon2id with {memory_kib} KiB: {error}; free some, or use pbkdf2"
            ) from None
        except ValueError as error:
            raise UsageError(f"argon2id cannot be computed: {error}") from None

    def random(self, count: int) -> bytes:
        return os.urandom(count)
