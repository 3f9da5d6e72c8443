"""TLS to an NBD server, as its URI wishes: certificates, or a key that both sides have.

It trusts nobody by default but whom the system trusts. With `tls-certificates=DIR` it trusts who is
signed by `ca-cert.pem` there alone, and shows `client-cert.pem` with `client-key.pem` if they are
there: the names that nbdkit, qemu and libnbd use. A certificate must have the host's name; on a
Unix socket, which has none, the chain must be right, and the name if `tls-hostname` gives one.

A key that both sides have is one of a file (`psk`).

Source: ssl; the NBD protocol, "TLS support".
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

from headway.edge.nbd_uri import TlsWish
from headway.edge.psk import psk_context, psk_of
from headway.errors import BlockError, UsageError

if TYPE_CHECKING:
    from ssl import SSLContext, SSLSocket

_AUTHORITY, _CERTIFICATE, _KEY = "ca-cert.pem", "client-cert.pem", "client-key.pem"


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
    context = psk_context(f"tls-psk-file={path}", server=False)
    user, key = psk_of(path, wish.user)
    # Types of 3.11 do not know it.
    context.set_psk_client_callback(lambda _: (user, key))  # type: ignore[attr-defined,unused-ignore]
    return context
