"""TLS to an NBD server, as its URI wishes: certificates, or a key that both sides have.

It trusts nobody by default but whom the system trusts. With `tls-certificates=DIR` it trusts who is
signed by `ca-cert.pem` there alone, and shows `client-cert.pem` with `client-key.pem` if they are
there: the names that nbdkit, qemu and libnbd use. A certificate must have the host's name; on a
Unix socket, which has none, the chain must be right, and the name if `tls-hostname` gives one.

A pre-shared key is a line `USER:HEX` of a file; Python can use one from 3.13 on, and TLS 1.2 with it.

Source: ssl; psktool(1) for the file; the NBD protocol, "TLS support".
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from typing import TYPE_CHECKING, Final

from headway.edge.nbd_uri import TlsWish
from headway.errors import BlockError, UsageError

if TYPE_CHECKING:
    from ssl import SSLContext, SSLSocket

_AUTHORITY, _CERTIFICATE, _KEY = "ca-cert.pem", "client-cert.pem", "client-key.pem"
_CIPHERS: Final = "ECDHE-PSK-CHACHA20-POLY1305:ECDHE-PSK+AES:DHE-PSK+AESGCM:DHE-PSK+AES:PSK+AESGCM"


def with_tls(sock: socket.socket, context: SSLContext, hostname: str | None) -> SSLSocket:
    """The connected socket, for TLS; the plain one is taken over. Nothing is said yet: `agree` does."""
    return context.wrap_socket(sock, server_hostname=hostname, do_handshake_on_connect=False)


def agree(sock: SSLSocket) -> None:
    """Begin to speak TLS.

    Raises: OSError if the two cannot agree. Waits: as long as the socket's timeout allows.
    """
    import ssl

    try:
        sock.do_handshake()
    except ssl.SSLCertVerificationError as error:
        why = f"its certificate is not to be trusted: {error.verify_message}"
        raise OSError(errno.EACCES, why) from error
    except ssl.SSLError as error:
        raise OSError(errno.EPROTO, f"TLS failed: {error.reason or error}") from error


def client_context(wish: TlsWish) -> SSLContext:
    """What a client trusts and shows. Raises: UsageError, BlockError."""
    import ssl

    if wish.psk_file is not None:
        return _psk_context(wish, wish.psk_file)
    directory = wish.certificates
    try:
        if directory is None:
            context = ssl.create_default_context()
        else:
            authority = os.path.join(directory, _AUTHORITY)
            if not os.path.isfile(authority):
                raise UsageError(
                    f"tls-certificates={directory} has no {_AUTHORITY}, which says whom to trust"
                )
            context = ssl.create_default_context(cafile=authority)
            certificate, key = os.path.join(directory, _CERTIFICATE), os.path.join(directory, _KEY)
            if os.path.isfile(certificate):
                context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        why = error.strerror or str(error)
        raise BlockError(
            errno.EINVAL, f"cannot use the certificates in {directory}: {why}"
        ) from error
    if wish.hostname is None:
        context.check_hostname = False
    return context


def _psk_context(wish: TlsWish, path: str) -> SSLContext:
    import ssl

    if not hasattr(ssl.SSLContext, "set_psk_client_callback"):
        here = ".".join(map(str, sys.version_info[:2]))
        raise UsageError(
            f"tls-psk-file={path} needs Python 3.13 or newer, and this is {here}: use tls-certificates"
        )
    user, key = psk_of(path, wish.user)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # who has the key is who he should be
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    # Types of 3.11 do not know it.
    context.set_psk_client_callback(lambda _: (user, key))  # type: ignore[attr-defined,unused-ignore]
    return context


def psk_of(path: str, user: str | None) -> tuple[str, bytes]:
    """The key of `user`, or of the first one, in a file of lines ``USER:HEX``. Raises: UsageError, BlockError."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise BlockError(
            getattr(error, "errno", None) or errno.EINVAL, f"cannot read {path}: {error}"
        ) from error
    for line in lines:
        name, colon, text = line.partition(":")
        if not colon or line.startswith("#") or user not in (None, name):
            continue
        try:
            return name, bytes.fromhex(text)
        except ValueError:
            raise UsageError(f"{path}: the key of {name!r} is not hexadecimal") from None
    whom = "a line USER:HEX" if user is None else f"a line of {user!r}"
    raise UsageError(f"{path} has not {whom}: psktool makes one")
