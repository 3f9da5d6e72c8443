"""Keys that both sides of a TLS connection have: a file of lines `USER:HEX`, and a context that uses one.

It decides who has which key, and no more: who has a user's key is that user, and no certificate is looked at.
Python can do so from 3.13 on, and with TLS 1.2 only; each connection agrees on a key of its own where the
other side can (ECDHE, DHE), so that what was recorded stays secret when the file does not.

Source: ssl; psktool(1) for the file, which is that of nbdkit and of libnbd as well.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import TYPE_CHECKING, Final

from headway.errors import BlockError, UsageError

if TYPE_CHECKING:
    from ssl import SSLContext

# What has a key for each connection comes first; a name that matches nothing is passed over in silence. GnuTLS
# without ChaCha20 has ECDHE with CBC and HMAC-SHA1 alone, which is better than none.
_CIPHERS: Final = "ECDHE-PSK-CHACHA20-POLY1305:kECDHEPSK+AES:kDHEPSK+AESGCM:kPSK+AESGCM"
_MOST: Final = 256  # bytes of a key that OpenSSL takes


def psk_of(path: str, user: str | None) -> tuple[str, bytes]:
    """The key of `user`, or of the first one. Raises: UsageError, BlockError."""
    for name, text in _lines(path):
        if user in (None, name):
            return name, _key(path, name, text)
    whom = "a line USER:HEX" if user is None else f"a line of {user!r}"
    raise UsageError(f"{path} has not {whom}: psktool makes one")


def keys_of(path: str) -> dict[str, bytes]:
    """Every user's key. Raises: UsageError if there is none, or one is none; BlockError."""
    found: dict[str, bytes] = {}
    for name, text in _lines(path):
        found.setdefault(name, _key(path, name, text))
    if not found:
        raise UsageError(f"{path} has not a line USER:HEX: psktool makes one")
    return found


def exposed(path: str) -> str | None:
    """The file, if others than its owner can read it."""
    return path if stat.S_IMODE(os.stat(path).st_mode) & 0o077 else None


def psk_context(asked: str, *, server: bool) -> SSLContext:
    """A context for keys alone, without its callback. Raises: UsageError before Python 3.13; `asked` is by what."""
    import ssl

    if not hasattr(ssl.SSLContext, "set_psk_client_callback"):
        here = ".".join(map(str, sys.version_info[:2]))
        raise UsageError(
            f"{asked} needs Python 3.13 or newer, and this is {here}: use {'--' * server}tls-certificates"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # who has the key is who he should be
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    return context


def _lines(path: str) -> list[tuple[str, str]]:
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise BlockError(
            getattr(error, "errno", None) or errno.EINVAL, f"cannot read {path}: {error}"
        ) from error
    parted = [line.partition(":") for line in lines if not line.startswith("#")]
    return [(name, text) for name, colon, text in parted if colon]


def _key(path: str, name: str, text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        raise UsageError(f"{path}: the key of {name!r} is not hexadecimal") from None
    if not 0 < len(key) <= _MOST:
        raise UsageError(f"{path}: the key of {name!r} has {len(key)} bytes; it is 1 to {_MOST}")
    return key
