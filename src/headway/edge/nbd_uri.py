"""What an NBD URI says: where a server is, which export is wanted, and whether TLS is to protect it.

It connects to nothing but what it is asked to (`Place.connect`), and speaks no TLS (`nbd_tls` does).
`nbd://[USER@]HOST[:PORT]/EXPORT`, `nbd+unix:///EXPORT?socket=PATH`, and with TLS `nbds` for `nbd`, where the
query may say

    tls-certificates=DIR    what to trust, and what to show
    tls-psk-file=FILE       a key that both sides have, instead of certificates
    tls-hostname=NAME       the name that the server's certificate must have, if it is not HOST

Other words that begin with tls- are refused: not to know one could mean to trust whom one should not.

Source: the NBD URI specification, doc/uri.md of the reference implementation; libnbd's tls- words.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, final
from urllib.parse import parse_qs, unquote, urlsplit

from headway.core.nbd import wire
from headway.errors import UsageError

SCHEMES: Final = ("nbd", "nbd+unix", "nbds", "nbds+unix")
_PORT: Final = 10809
_CERTIFICATES, _PSK_FILE, _HOSTNAME = "tls-certificates", "tls-psk-file", "tls-hostname"


@final
@dataclass(frozen=True, slots=True)
class TlsWish:
    """How a server is to prove itself. `hostname` None: any name, if the chain is right."""

    hostname: str | None
    certificates: str | None = None
    psk_file: str | None = None
    user: str | None = None  # of the lines of `psk_file`; None: the first


@final
@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is, and what is wanted there."""

    shown: str
    export: str
    path: str | None  # of a Unix socket
    host: str = ""
    port: int = _PORT
    tls: TlsWish | None = None

    def connect(self, timeout_s: float, made: Callable[[socket.socket], object]) -> socket.socket:
        """A connected socket; `made` is given each that begins to connect: to shut it down ends that. Raises: OSError.

        Waits: at most `timeout_s` for each address of the host, and for its name.
        """
        failure = OSError(errno.EHOSTUNREACH, f"{self.host} has no address")
        for family, address in self._addresses():
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:  # a system without this family may have that of the next
                failure = error
                continue
            try:
                sock.setblocking(False)
                number = sock.connect_ex(address)
                made(sock)
                _finish(sock, number, timeout_s)
                if self.path is None:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
        raise failure

    def _addresses(self) -> list[tuple[int, Any]]:
        if self.path is not None:
            return [(socket.AF_UNIX, self.path)]
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        return [(family, address) for family, _, _, _, address in found]


def _finish(sock: socket.socket, number: int, timeout_s: float) -> None:
    """Wait until a connection that has begun is there. `number` is what its beginning said."""
    if number == errno.EINPROGRESS:
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_WRITE)
            if not selector.select(timeout_s):
                raise TimeoutError
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, os.strerror(number))


def parse_uri(uri: str) -> Place:
    """What an NBD URI says. Raises: UsageError."""
    try:
        parts = urlsplit(uri)
        port, user = parts.port, parts.username
        query = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
    except ValueError as error:
        raise UsageError(f"{uri} is no NBD URI: {error}") from error
    export = unquote(parts.path.removeprefix("/"), errors="surrogateescape")
    if len(os.fsencode(export)) > wire.NAME_LIMIT:
        raise UsageError(f"{uri}: an export's name has at most {wire.NAME_LIMIT} bytes")
    words = {name: values[0] for name, values in query.items()}
    tls = _wished(uri, parts.scheme, parts.hostname, user, words)
    if parts.scheme.endswith("+unix"):
        path = words.get("socket", "")
        if not path or (parts.netloc and parts.netloc != f"{user}@"):
            raise UsageError(f"{uri} names no socket: write {parts.scheme}:///EXPORT?socket=PATH")
        return Place(uri, export, path, tls=tls)
    if not parts.hostname:
        raise UsageError(f"{uri} names no host: write {parts.scheme}://HOST:PORT/EXPORT")
    try:
        parts.hostname.encode("idna")  # as it is asked for
    except UnicodeError as error:
        raise UsageError(f"{uri}: {parts.hostname} is no name of a host: {error}") from error
    return Place(uri, export, None, parts.hostname, _PORT if port is None else port, tls)


def _wished(
    uri: str, scheme: str, host: str | None, user: str | None, words: dict[str, str]
) -> TlsWish | None:
    asked = sorted(word for word in words if word.startswith("tls-"))
    if not scheme.startswith("nbds"):
        if asked:
            raise UsageError(f"{uri} has {asked[0]} and no TLS: write nbds instead of nbd")
        return None
    for word in asked:
        if word not in (_CERTIFICATES, _PSK_FILE, _HOSTNAME):
            raise UsageError(
                f"{uri}: {word} is not known here, only {_CERTIFICATES}, {_PSK_FILE} and {_HOSTNAME}"
            )
    if _PSK_FILE in words and _CERTIFICATES in words:
        raise UsageError(f"{uri} has {_CERTIFICATES} and {_PSK_FILE}: give one of them")
    return TlsWish(words.get(_HOSTNAME, host), words.get(_CERTIFICATES), words.get(_PSK_FILE), user)
