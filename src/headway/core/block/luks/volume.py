"""What LUKS1 and LUKS2 have in common: the volume that is found, key slots' material, digests.

It does not know where in a header things are: `luks1` and `luks2` do.

*Anti-forensic splitting*: key material is blown up `stripes` times so that one lost sector loses the
key. ``s[i]`` random, ``d[i] = diffuse(d[i-1] ^ s[i])``, last stripe ``= d ^ key``: all are needed.

Source: LUKS1 On-Disk Format Specification 1.2.3 (Fruhwirth, Broz), section 2.4; LUKS2 On-Disk Format
Specification 1.1.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final, Protocol, final

from headway.core.block.crypto import Crypto, Secret
from headway.errors import UsageError

MAGIC: Final = b"LUKS\xba\xbe"
STRIPES: Final = 4000  # what every implementation uses
SECTOR: Final = 512  # of key material, and the unit of a sector's number
_HASHES: Final = ("sha1", "sha224", "sha256", "sha384", "sha512")
_KEYS: Final = (32, 64)
_MOST_ROUNDS: Final = (1 << 32) - 1
LEAST_ROUNDS: Final = 1000


class Place(Protocol):
    """Where a header is."""

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes, fewer where the place ends."""


@final
@dataclass(frozen=True, slots=True)
class Volume:
    """What a header describes. Bytes; `size` None: to the end. `first` is the number of the first sector."""

    kind: str
    key: Secret
    offset: int
    size: int | None
    sector_size: int
    first: int = 0


@final
@dataclass(frozen=True, slots=True)
class Created:
    """A new volume, and its header: bytes by offset, to be written in this order, each made durable."""

    volume: Volume
    writes: list[tuple[int, bytes]]


@final
@dataclass(frozen=True, slots=True)
class Wish:
    """What a new header is to be: `kdf` is ``pbkdf2`` or ``argon2id``, `rounds` its iterations or passes.
    `header` names the device it is on, if that is not the data's."""

    kind: str
    header: str
    kdf: str
    rounds: int
    memory_kib: int
    sector_size: int
    key_size: int
    offset: int


def known_hash(name: str) -> str:
    """Raises: UsageError if it is none of the SHA family."""
    if name not in _HASHES:
        raise UsageError(f"LUKS header with hash {name!r}: headway opens {', '.join(_HASHES)}")
    return name


def known_key_size(size: object) -> int:
    if not isinstance(size, int) or size not in _KEYS:
        raise UsageError(f"LUKS header with a key of {size} bytes: AES-XTS takes 32 or 64")
    return size


def known_cipher(name: str) -> None:
    if name != "aes-xts-plain64":
        raise UsageError(f"LUKS header with cipher {name!r}: headway opens aes-xts-plain64 alone")


def bounded(what: str, value: object, least: int, most: int) -> int:
    """A number of a header. Raises: UsageError if it is none, or out of range."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UsageError(f"LUKS header is damaged: {what} is not between {least} and {most}")
    return value


def pbkdf2(algorithm: str, secret: Secret, salt: bytes, rounds: int, length: int) -> Secret:
    bounded("iterations", rounds, 1, _MOST_ROUNDS)
    with secret.reveal() as plain:
        return Secret(hashlib.pbkdf2_hmac(algorithm, plain, salt, rounds, length))


def is_key(algorithm: str, key: Secret, salt: bytes, rounds: int, digest: bytes) -> bool:
    """Whether `key` is the volume key that `digest` was made of."""
    with pbkdf2(algorithm, key, salt, rounds, len(digest)).reveal() as found:
        return hmac.compare_digest(found, digest)


# -- key material ----------------------------------------------------------------------------------


def material_size(key_size: int, stripes: int) -> int:
    """Bytes, in whole sectors."""
    return -(-key_size * stripes // SECTOR) * SECTOR


def seal(crypto: Crypto, slot_key: Secret, key: Secret, algorithm: str) -> bytes:
    """The material of a key slot that gives `key` to whoever has `slot_key`."""
    size = material_size(len(key), STRIPES)
    plain = bytearray(size)
    plain[: len(key) * STRIPES] = split(key, STRIPES, algorithm, crypto)
    cipher = crypto.aes_xts(slot_key, SECTOR, brief=True)
    cipher.encrypt(memoryview(plain), memoryview(plain), 0)
    cipher.close()
    return bytes(plain)


def unseal(
    crypto: Crypto, slot_key: Secret, material: bytes, size: int, stripes: int, algorithm: str
) -> Secret:
    """The volume key of a slot, or rubbish if `slot_key` is wrong: look at the digest."""
    plain = bytearray(material)
    cipher = crypto.aes_xts(slot_key, SECTOR, brief=True)
    cipher.decrypt(memoryview(plain), memoryview(plain), 0)
    cipher.close()
    key = merge(plain, size, stripes, algorithm)
    plain[:] = bytes(len(plain))
    return key


def split(key: Secret, stripes: int, algorithm: str, crypto: Crypto) -> bytes:
    size = len(key)
    chance = crypto.random(size * (stripes - 1))
    with key.reveal() as plain:
        last = int.from_bytes(_folded(chance, size, algorithm)) ^ int.from_bytes(plain)
    return chance + last.to_bytes(size)


def merge(material: bytes | bytearray, size: int, stripes: int, algorithm: str) -> Secret:
    folded = _folded(material[: size * (stripes - 1)], size, algorithm)
    last = material[size * (stripes - 1) : size * stripes]
    return Secret((int.from_bytes(folded) ^ int.from_bytes(last)).to_bytes(size))


def _folded(stripes: bytes | bytearray, size: int, algorithm: str) -> bytes:
    """Each stripe xored to what came before, and that diffused: hashed piece by piece."""
    make = getattr(hashlib, algorithm)  # twice as quick as `hashlib.new`, and there are thousands
    step = make().digest_size
    pieces = [
        (number.to_bytes(4), slice(at, at + step)) for number, at in enumerate(range(0, size, step))
    ]
    read = int.from_bytes
    state = bytes(size)
    for start in range(0, len(stripes), size):
        mixed = (read(state) ^ read(stripes[start : start + size])).to_bytes(size)
        state = b"".join([make(prefix + mixed[piece]).digest() for prefix, piece in pieces])[:size]
    return state
