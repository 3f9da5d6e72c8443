"""TLS on a socket that never blocks, with the manners of one that has none.

It decides nothing. "It would have to wait" is BlockingIOError here, as elsewhere, whichever way TLS
has to wait; a connection that ended without a goodbye is one that ended. The certificates lie in a
directory under the names that nbdkit and qemu use: `server-cert.pem` and `server-key.pem`, and
`ca-cert.pem` if clients have to show a certificate that it has signed. Instead of them there may be keys that both
sides have, in a file (`psk`).

What OpenSSL keeps per connection (about 50 KiB) is not in the server's memory limit.

Source: ssl, "Notes on non-blocking sockets"; the NBD protocol, "TLS support".
"""

from __future__ import annotations

import os
import socket
import ssl
from typing import final

from headway.edge.psk import exposed, keys_of, psk_context
from headway.errors import BlockError, UsageError

_CERTIFICATE, _KEY, _AUTHORITY = "server-cert.pem", "server-key.pem", "ca-cert.pem"


def server_context(directory: str) -> ssl.SSLContext:
    """A context with the certificates in `directory`. Raises: UsageError, BlockError."""
    certificate, key, authority = (
        os.path.join(directory, name) for name in (_CERTIFICATE, _KEY, _AUTHORITY)
    )
    for path in (certificate, key):
        if not os.path.isfile(path):
            raise UsageError(
                f"--tls-certificates {directory} has no {os.path.basename(path)}: it must hold "
                f"{_CERTIFICATE} and {_KEY}, and {_AUTHORITY} if clients are to show theirs"
            )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
        if os.path.isfile(authority):
            context.load_verify_locations(authority)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        why = error.strerror or str(error)
        raise BlockError(
            getattr(error, "errno", None) or 5, f"cannot use the certificates in {directory}: {why}"
        ) from error
    return context


def psk_server_context(path: str) -> ssl.SSLContext:
    """A context with the keys in a file, each its user's. Raises: UsageError, BlockError."""
    context = psk_context(f"--tls-psk {path}", server=True)
    keys = keys_of(path)
    # Types of 3.11 do not know it. No key: the client is refused as one with a wrong key is.
    context.set_psk_server_callback(lambda user: keys.get(user, b""))  # type: ignore[attr-defined,unused-ignore]
    return context


def exposed_key(directory: str) -> str | None:
    """The private key, if others than its owner can read it."""
    return exposed(os.path.join(directory, _KEY))


@final
class SecureSocket:
    """A connected socket that speaks TLS, as the server; takes the plain one over."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext) -> None:
        self._sock = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        self._greeted = False

    def fileno(self) -> int:
        return self._sock.fileno()

    def recv_into(self, buffer: memoryview, count: int = 0) -> int:
        """As a socket's; the TLS handshake comes first. Raises: BlockingIOError, OSError."""
        try:
            if not self._greeted:
                self._sock.do_handshake()
                self._greeted = True
            return self._sock.recv_into(buffer, count or len(buffer))
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ssl.SSLEOFError:
            return 0

    def send(self, data: memoryview | bytes) -> int:
        """As a socket's. Raises: BlockingIOError, OSError."""
        try:
            return self._sock.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def sendmsg(self, parts: tuple[bytes, memoryview]) -> int:
        """Both, one after the other; how much was sent of them together."""
        head, body = parts
        count = self.send(head)
        if count < len(head):
            return count
        try:
            return count + self.send(body)
        except BlockingIOError:
            return count

    def pending(self) -> bool:
        """Whether there is more to receive that the kernel does not know of."""
        return self._sock.pending() > 0

    def close(self) -> None:
        self._sock.close()
