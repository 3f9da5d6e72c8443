"""LUKS2 headers: two copies of a binary part with a checksum and a JSON part; 4096-byte sectors.

It does not encrypt data. Of two good copies the later one counts; with one damaged the other does.
What a header says it needs and headway does not have (reencryption, integrity, another cipher) is
refused by name. Numbers are big-endian; offsets in JSON are bytes, as decimal text.

Source: LUKS2 On-Disk Format Specification 1.1 (Broz).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import struct
from typing import Any, Final

from headway.core.block.crypto import Crypto, Secret
from headway.core.block.luks.luks1 import uuid_text
from headway.core.block.luks.volume import (
    MAGIC,
    STRIPES,
    Created,
    Place,
    Volume,
    Wish,
    bounded,
    is_key,
    known_cipher,
    known_hash,
    known_key_size,
    material_size,
    pbkdf2,
    seal,
    unseal,
)  # fmt: skip
from headway.errors import UsageError

OFFSET: Final = 16 << 20  # of the data, as cryptsetup has it: room for key slots, and to reencrypt
LEAST_OFFSET: Final = 1 << 20
_SECOND_MAGIC: Final = b"SKUL\xba\xbe"
_BINARY: Final = struct.Struct(">6sHQQ48s32s64s40s48sQ184s64s")
_BINARY_SIZE: Final = 4096
_SIZES: Final = tuple(1 << shift for shift in range(14, 23))  # 16 KiB to 4 MiB, each copy
_SIZE: Final = _SIZES[0]
_DIGEST_ROUNDS: Final = 1000  # the least others write; nobody can guess the volume key itself
_MOST_BYTES: Final = 1 << 62
_AREA_STEP: Final = 4096


def open_volume(place: Place, crypto: Crypto, secret: Secret) -> Volume:
    """Raises: UsageError if the header is damaged or not for us, or no key slot opens."""
    meta = _metadata(place)
    try:
        return _opened(meta, place, crypto, secret)
    except (KeyError, TypeError, AttributeError, IndexError, binascii.Error) as error:
        raise UsageError(
            f"LUKS2 header is damaged: its JSON part lacks something ({error!r})"
        ) from None


def _opened(meta: dict[str, Any], place: Place, crypto: Crypto, secret: Secret) -> Volume:
    needs = meta["config"].get("requirements", {}).get("mandatory", [])
    if needs:
        raise UsageError(
            f"LUKS2 header needs {', '.join(map(str, needs))}, which headway does not have"
        )
    segments = meta["segments"]
    if len(segments) != 1:
        raise UsageError(f"LUKS2 header has {len(segments)} segments; headway opens those with one")
    [(number, segment)] = segments.items()
    if segment["type"] != "crypt" or "integrity" in segment:
        raise UsageError("LUKS2 segment is not a plainly encrypted one; headway opens no other")
    known_cipher(segment["encryption"])
    sector_size = segment["sector_size"]
    if sector_size not in (512, 1024, 2048, 4096):
        raise UsageError(f"LUKS2 header is damaged: sectors of {sector_size} bytes")
    for digest in meta["digests"].values():
        if number in digest["segments"]:
            key = _key(meta["keyslots"], digest, place, crypto, secret)
            offset = bounded("segment offset", segment["offset"], 0, _MOST_BYTES)
            size = None
            if segment["size"] != "dynamic":
                size = bounded("segment size", segment["size"], sector_size, _MOST_BYTES)
            first = bounded("iv_tweak", segment["iv_tweak"], 0, _MOST_BYTES)
            return Volume("luks2", key, offset, size, sector_size, first)
    raise UsageError("LUKS2 header is damaged: no digest for its segment")


def _key(
    slots: dict[str, Any], digest: dict[str, Any], place: Place, crypto: Crypto, secret: Secret
) -> Secret:
    if digest["type"] != "pbkdf2":
        raise UsageError(f"LUKS2 digest of type {digest['type']!r}; headway knows pbkdf2")
    rounds = bounded("digest iterations", digest["iterations"], 1, (1 << 32) - 1)
    algorithm, salt = known_hash(digest["hash"]), base64.b64decode(digest["salt"])
    wanted = base64.b64decode(digest["digest"])
    for name in sorted(digest["keyslots"]):
        slot = slots[name]
        if slot["type"] != "luks2" or slot.get("priority") == 0:
            continue
        size, area, af = known_key_size(slot["key_size"]), slot["area"], slot["af"]
        known_cipher(area["encryption"])
        stripes = bounded("stripes", af["stripes"], 1, STRIPES)
        slot_key = _slot_key(slot["kdf"], known_key_size(area["key_size"]), crypto, secret)
        length = material_size(size, stripes)
        material = place.read(bounded("area", area["offset"], 0, _MOST_BYTES), length)
        if len(material) < length:
            raise UsageError(f"LUKS2 header is damaged: slot {name} is outside the device")
        key = unseal(crypto, slot_key, material, size, stripes, known_hash(af["hash"]))
        slot_key.wipe()
        if is_key(algorithm, key, salt, rounds, wanted):
            return key
    raise UsageError("no key slot opens with this key file")


def _slot_key(kdf: dict[str, Any], size: int, crypto: Crypto, secret: Secret) -> Secret:
    salt = base64.b64decode(kdf["salt"])
    if kdf["type"] == "pbkdf2":
        rounds = bounded("iterations", kdf["iterations"], 1, (1 << 32) - 1)
        return pbkdf2(known_hash(kdf["hash"]), secret, salt, rounds, size)
    if kdf["type"] != "argon2id":
        raise UsageError(
            f"LUKS2 key slot with {kdf['type']!r}: headway opens argon2id and pbkdf2 "
            "(cryptsetup luksConvertKey makes one of the other)"
        )
    return crypto.argon2id(
        secret,
        salt,
        passes=bounded("argon2 time", kdf["time"], 1, (1 << 32) - 1),
        memory_kib=bounded("argon2 memory", kdf["memory"], 8, 4 << 20),
        lanes=bounded("argon2 cpus", kdf["cpus"], 1, 4),
        length=size,
    )


def _metadata(place: Place) -> dict[str, Any]:
    """The JSON part of the newer good copy. Raises: UsageError if both are damaged."""
    best: tuple[int, bytes] | None = _copy(place, 0, MAGIC)
    for offset in _SIZES:
        second = _copy(place, offset, _SECOND_MAGIC)
        if second is not None and (best is None or second[0] > best[0]):
            best = second
    if best is None:
        raise UsageError("LUKS2 header is damaged: neither copy has the checksum it should have")
    try:
        found = json.loads(best[1].split(b"\0")[0])
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UsageError("LUKS2 header is damaged: its JSON part is none")
    return found


def _copy(place: Place, offset: int, magic: bytes) -> tuple[int, bytes] | None:
    """Sequence number and JSON area of the copy at `offset`, if it is one and whole."""
    binary = place.read(offset, _BINARY_SIZE)
    if len(binary) < _BINARY_SIZE or not binary.startswith(magic):
        return None
    fields = _BINARY.unpack_from(binary)
    version, size, number, checksum_name = fields[1], fields[2], fields[3], fields[5]
    name = checksum_name.split(b"\0")[0].decode("ascii", "replace")
    if version != 2 or size not in _SIZES or fields[9] != offset:
        return None
    area = place.read(offset + _BINARY_SIZE, size - _BINARY_SIZE)
    digest = _checksum(binary, area, known_hash(name))
    return (number, area) if fields[11][: len(digest)] == digest else None


def _checksum(binary: bytes | bytearray, area: bytes, algorithm: str) -> bytes:
    blank = bytearray(binary)
    blank[_BINARY.size - 64 : _BINARY.size] = bytes(64)
    return hashlib.new(algorithm, bytes(blank) + area).digest()


def create_volume(crypto: Crypto, secret: Secret, wish: Wish) -> Created:
    """A new header with a new volume key in slot 0."""
    key = Secret(crypto.random(wish.key_size))
    salt = crypto.random(32)
    kdf: dict[str, Any]
    if wish.kdf == "pbkdf2":
        kdf = {"type": "pbkdf2", "hash": "sha256", "iterations": wish.rounds}
    else:
        kdf = {"type": "argon2id", "time": wish.rounds, "memory": wish.memory_kib, "cpus": 1}
    kdf["salt"] = base64.b64encode(salt).decode()
    material = seal(crypto, _slot_key(kdf, wish.key_size, crypto, secret), key, "sha256")
    meta = _described(wish, kdf, key, len(material), crypto.random(32))
    area = json.dumps(meta, separators=(",", ":")).encode().ljust(_SIZE - _BINARY_SIZE, b"\0")
    uuid = uuid_text(crypto.random(16)).encode()
    writes = [(2 * _SIZE, material)]
    for offset, magic in ((_SIZE, _SECOND_MAGIC), (0, MAGIC)):  # the first copy last
        fields = (magic, 2, _SIZE, 1, b"", b"sha256", crypto.random(64), uuid, b"", offset, b"")
        binary = bytearray(_BINARY.pack(*fields, b"").ljust(_BINARY_SIZE, b"\0"))
        digest = _checksum(binary, area, "sha256")
        binary[_BINARY.size - 64 : _BINARY.size - 64 + len(digest)] = digest
        writes.append((offset, bytes(binary) + area))
    return Created(Volume("luks2", key, wish.offset, None, wish.sector_size), writes)


def _described(
    wish: Wish, kdf: dict[str, Any], key: Secret, length: int, salt: bytes
) -> dict[str, Any]:
    with pbkdf2("sha256", key, salt, _DIGEST_ROUNDS, 32).reveal() as found:
        digest = base64.b64encode(found).decode()
    cipher, step = "aes-xts-plain64", -(-length // _AREA_STEP) * _AREA_STEP
    slots_size = (OFFSET if wish.header else wish.offset) - 2 * _SIZE
    area = {
        "type": "raw", "offset": str(2 * _SIZE), "size": str(step), "encryption": cipher,
        "key_size": wish.key_size,
    }  # fmt: skip
    slot = {
        "type": "luks2", "key_size": wish.key_size, "kdf": kdf, "area": area,
        "af": {"type": "luks1", "stripes": STRIPES, "hash": "sha256"},
    }  # fmt: skip
    segment = {
        "type": "crypt", "offset": str(wish.offset), "size": "dynamic", "iv_tweak": "0",
        "encryption": cipher, "sector_size": wish.sector_size,
    }  # fmt: skip
    proof = {
        "type": "pbkdf2", "keyslots": ["0"], "segments": ["0"], "hash": "sha256",
        "iterations": _DIGEST_ROUNDS, "salt": base64.b64encode(salt).decode(), "digest": digest,
    }  # fmt: skip
    return {
        "keyslots": {"0": slot}, "tokens": {}, "segments": {"0": segment}, "digests": {"0": proof},
        "config": {"json_size": str(_SIZE - _BINARY_SIZE), "keyslots_size": str(slots_size)},
    }  # fmt: skip
