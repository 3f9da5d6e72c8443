"""From a specification to a volume: which header is wanted, opened where there is one, written when new.

It knows neither format: `luks1` and `luks2` do. A new header is written when the stack starts, after
everything that was asked for has been found possible; what is there is read when the layer is made,
since it says how large that is.

Source: own.
"""

from __future__ import annotations

from typing import Final

from headway.core.block.at_rest import AtRest
from headway.core.block.bio import FLUSH, READ, WRITE, Bio
from headway.core.block.crypto import Crypto, Secret
from headway.core.block.layer import Layer, combined
from headway.core.block.line import carry_out
from headway.core.block.luks import luks1, luks2
from headway.core.block.luks.volume import LEAST_ROUNDS, MAGIC, Created, Volume, Wish
from headway.core.block.spec import Options, Site
from headway.core.plan import Plan
from headway.errors import UsageError

_KINDS: Final = ("luks", "luks1", "luks2", "plain")
_SECTORS: Final = ("512", "1024", "2048", "4096")
_ROUNDS: Final = {"pbkdf2": 600_000, "argon2id": 4}


def volume_of(
    below: Layer, options: Options, site: Site
) -> tuple[Volume, tuple[Layer, Created, bool] | None]:
    """The volume, with its key, and what `write_header` is to be given if it is new.

    Reads the rest of `options`. Raises: UsageError, before anything is written; MissingExtra; BlockError.
    """
    path, create = options.text("key-file", ""), options.flag("create", site.create)
    if not path:
        raise UsageError("layer crypt: no key: write key-file=PATH (a key itself is no option)")
    wish = wish_of(options)
    options.finish()
    crypto = site.crypto
    secret = crypto.key_file(path)
    if wish.kind == "plain":
        return Volume("plain", secret, wish.offset, None, wish.sector_size), None
    place = site.open(wish.header) if wish.header else below
    if not create:
        return _opened(AtRest(place, "layer crypt"), crypto, secret, wish.kind), None
    make = luks1.create_volume if wish.kind == "luks1" else luks2.create_volume
    created = make(crypto, secret, wish)
    return created.volume, (place, created, site.create)


def wish_of(options: Options) -> Wish:
    """What a new header is to be; read in any case, so that the options are known."""
    kind, header = options.choice("format", "luks", _KINDS), options.text("header", "")
    sector = int(options.choice("sector", "512" if kind == "luks1" else "4096", _SECTORS))
    if kind == "luks1" and sector != 512:
        raise UsageError(f"layer crypt: LUKS1 has sectors of 512 bytes, not {sector}: use luks2")
    kdf = options.choice("kdf", "pbkdf2", ("pbkdf2", "argon2id"))
    if kind == "luks1" and kdf != "pbkdf2":
        raise UsageError("layer crypt: LUKS1 knows pbkdf2 alone: use luks2")
    least = LEAST_ROUNDS if kdf == "pbkdf2" else 1
    rounds = options.number("iterations", _ROUNDS[kdf], least=least)
    memory = options.size("kdf-memory", 64 << 20) >> 10
    if not 8 <= memory <= 4 << 20:
        raise UsageError(f"layer crypt: kdf-memory of {memory} KiB: between 8 KiB and 4 GiB")
    key_size = int(options.choice("key-bits", "512", ("256", "512"))) // 8
    offset = options.size("offset", _offset(kind, header))
    least_offset = {"luks1": luks1.OFFSET, "plain": 0}.get(kind, luks2.LEAST_OFFSET)
    if offset % sector or (offset < least_offset and not header):
        raise UsageError(
            f"layer crypt: offset={offset}: a multiple of {sector} from {least_offset} is wanted"
        )
    return Wish(kind, header, kdf, rounds, memory, sector, key_size, offset)


def _offset(kind: str, header: str) -> int:
    if header or kind == "plain":
        return 0
    return luks1.OFFSET if kind == "luks1" else luks2.OFFSET


def _opened(place: AtRest, crypto: Crypto, secret: Secret, kind: str) -> Volume:
    """Raises: UsageError if there is no such header, it is damaged, or the key does not open it."""
    start = place.read(0, 8)
    if start[:6] != MAGIC or start[6:] not in (b"\0\1", b"\0\2"):
        raise UsageError(
            f"layer crypt: {place.name} has no LUKS header: create=yes makes one, format=plain needs none"
        )
    found = f"luks{start[7]}"
    if kind not in ("luks", found):
        raise UsageError(f"layer crypt: {place.name} has a header of {found}, not {kind}")
    try:
        if found == "luks1":
            return luks1.open_volume(place, crypto, secret)
        return luks2.open_volume(place, crypto, secret)
    except UsageError as error:
        raise UsageError(f"layer crypt on {place.name}: {error}") from None


def write_header(place: Layer, created: Created, anew: bool) -> Plan[None]:
    """Write a new header; over an old one only if `anew`. Raises: UsageError; BlockError."""
    if not anew:
        found = Bio(READ, 0, memoryview(bytearray(4096)))
        yield from carry_out(place, found)
        if found.error is None and bytes(found.view or b"")[:6] == MAGIC:
            raise UsageError(
                f"layer crypt: {place.name} has a LUKS header already, and whoever overwrites it "
                "loses all: leave create=yes out to open it, or wipe it first"
            )
    block = combined(place).alignment
    for offset, data in created.writes:
        whole = data.ljust(len(data) + -len(data) % block, b"\0")  # what is after it is its own
        for bio in (Bio(WRITE, offset, memoryview(whole)), Bio(FLUSH)):
            yield from carry_out(place, bio)
            if bio.error is not None:
                raise bio.error
