"""LUKS1 headers: 512-byte sectors, PBKDF2, eight key slots; what cryptsetup, qemu and nbdkit open.

It does not encrypt data. All numbers are big-endian; offsets in the header are in sectors.

Source: LUKS1 On-Disk Format Specification 1.2.3 (Fruhwirth, Broz).
"""

from __future__ import annotations

import struct
from typing import Final

from headway.core.block.crypto import Crypto, Secret
from headway.core.block.luks.volume import (
    MAGIC,
    SECTOR,
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

OFFSET: Final = 2 << 20  # of the data, as cryptsetup has it: room for eight slots
_HEADER: Final = struct.Struct(">6sH32s32s32sII20s32sI40s")
_SLOT: Final = struct.Struct(">II32sII")
_SLOTS: Final = 8
_ACTIVE: Final = 0x00AC71F3
_EMPTY: Final = 0x0000DEAD
_SLOTS_AT: Final = 4096  # of the key material, aligned for disks
_DIGEST_ROUNDS: Final = 1000  # the least others write; nobody can guess the volume key itself
_SIZE: Final = _HEADER.size + _SLOTS * _SLOT.size


def open_volume(place: Place, crypto: Crypto, secret: Secret) -> Volume:
    """Raises: UsageError if the header is damaged or not for us, or no key slot opens."""
    raw = place.read(0, _SIZE)
    if len(raw) < _SIZE:
        raise UsageError(f"LUKS1 header has {len(raw)} bytes, {_SIZE} are needed")
    fields = _HEADER.unpack_from(raw)
    name, mode, hash_name = (_text(field) for field in fields[2:5])
    payload, key_size, digest, salt, rounds = fields[5:10]
    known_cipher(f"{name}-{mode}")
    algorithm = known_hash(hash_name)
    key_size = known_key_size(key_size)
    for number in range(_SLOTS):
        state, slot_rounds, slot_salt, at, stripes = _SLOT.unpack_from(
            raw, _HEADER.size + number * _SLOT.size
        )
        if state != _ACTIVE:
            continue
        bounded(f"stripes of slot {number}", stripes, 1, STRIPES)
        slot_key = pbkdf2(algorithm, secret, slot_salt, slot_rounds, key_size)
        length = material_size(key_size, stripes)
        material = place.read(at * SECTOR, length)
        if len(material) < length:
            raise UsageError(f"LUKS1 header is damaged: slot {number} is outside the device")
        key = unseal(crypto, slot_key, material, key_size, stripes, algorithm)
        slot_key.wipe()
        if is_key(algorithm, key, salt, rounds, digest):
            return Volume("luks1", key, payload * SECTOR, None, SECTOR)
    raise UsageError("no key slot opens with this key file")


def create_volume(crypto: Crypto, secret: Secret, wish: Wish) -> Created:
    """A new header with a new volume key in slot 0."""
    key = Secret(crypto.random(wish.key_size))
    salt, slot_salt = crypto.random(32), crypto.random(32)
    length = material_size(wish.key_size, STRIPES)
    step = -(-length // 4096) * 4096
    with pbkdf2("sha256", key, salt, _DIGEST_ROUNDS, 20).reveal() as found:
        digest = bytes(found)
    raw = bytearray(
        _HEADER.pack(
            MAGIC, 1, b"aes", b"xts-plain64", b"sha256", wish.offset // SECTOR, wish.key_size,
            digest, salt, _DIGEST_ROUNDS, uuid_text(crypto.random(16)).encode(),
        )
    )  # fmt: skip
    for number in range(_SLOTS):
        at = (_SLOTS_AT + number * step) // SECTOR
        used = (_ACTIVE, wish.rounds, slot_salt) if number == 0 else (_EMPTY, 0, bytes(32))
        raw += _SLOT.pack(*used, at, STRIPES)
    slot_key = pbkdf2("sha256", secret, slot_salt, wish.rounds, wish.key_size)
    material = seal(crypto, slot_key, key, "sha256")
    slot_key.wipe()
    header = bytes(raw).ljust(_SLOTS_AT, b"\0")
    return Created(
        Volume("luks1", key, wish.offset, None, SECTOR),
        [(_SLOTS_AT, material), (0, header)],  # the header last: what it names is there
    )


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("ascii", "replace")


def uuid_text(chance: bytes) -> str:
    """A random UUID (version 4)."""
    number = int.from_bytes(chance) & ~(0xF << 76) & ~(0x3 << 62) | 4 << 76 | 2 << 62
    text = f"{number:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
