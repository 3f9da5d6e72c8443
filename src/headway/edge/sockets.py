"""Where a server listens: Unix and TCP sockets, those a supervisor has opened, standard input.

It serves nothing. A Unix socket is made with mode 0600 in one step, so that there is no moment in
which others may connect. In its place a socket that nobody answers on is removed; one that somebody
answers on, and whatever is no socket, is left alone and refused. When the listener is closed, its
name is removed only if it is still the same file.

Source: unix(7); sd_listen_fds(3) for LISTEN_PID and LISTEN_FDS.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from dataclasses import dataclass
from typing import Final, final
from urllib.parse import quote

from headway.errors import BlockError, UsageError

_BACKLOG: Final = 1024
_FIRST_FD: Final = 3  # of those a supervisor passes on
_PATH_LIMIT: Final = 107  # bytes of a Unix socket's name on Linux


@final
@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket, and how a client names it."""

    sock: socket.socket
    shown: str  # "unix:PATH" or "tcp:HOST:PORT"
    path: str | None = None
    made: tuple[int, int] | None = None  # device and inode of `path`, if it was made here
    exposed: bool = False  # whether other machines may reach it

    def uri(self, export: str = "", *, secure: bool = False) -> str:
        """The NBD URI of an export served here; `secure`: with TLS."""
        scheme = "nbds" if secure else "nbd"
        name = quote(export, safe="")
        if self.path is not None:
            return f"{scheme}+unix:///{name}?socket={quote(self.path, safe='/')}"
        return f"{scheme}://{self.shown.removeprefix('tcp:')}/{name}"

    def close(self) -> None:
        self.sock.close()
        if self.path is None or self.made is None:
            return
        try:
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == self.made:
                os.unlink(self.path)
        except OSError:
            pass  # it is gone already, or not ours to remove


def listen(where: str) -> Listener:
    """Listen on `unix:PATH` or `tcp:[HOST]:PORT` (port 0: any that is free; no host: loopback).

    Raises: UsageError if `where` is neither, or something that is no socket has the name;
    BlockError if it cannot be had. Waits: never.
    """
    scheme, _, rest = where.partition(":")
    if scheme == "unix" and rest:
        return _listen_unix(rest)
    if scheme == "tcp":
        return _listen_tcp(where, rest)
    raise UsageError(f"cannot listen on {where!r}: write unix:PATH or tcp:[HOST]:PORT")


def _listen_unix(path: str) -> Listener:
    if not hasattr(socket, "AF_UNIX"):
        raise UsageError(f"cannot listen on unix:{path}: there are no Unix sockets here")
    path = os.path.abspath(path)
    if len(os.fsencode(path)) > _PATH_LIMIT:
        raise UsageError(
            f"cannot listen on unix:{path}: its name has {len(os.fsencode(path))} bytes, and the "
            f"system takes {_PATH_LIMIT}: use a shorter one"
        )
    _make_way(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(sock.fileno(), 0o600)  # Linux gives the name the mode of the unbound socket
        sock.bind(path)
        made = os.lstat(path)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise _failed(f"unix:{path}", error) from error
    except BaseException:
        sock.close()
        raise
    return Listener(sock, f"unix:{path}", path, (made.st_dev, made.st_ino))


def _make_way(path: str) -> None:
    """Remove a socket that nobody listens on any more; refuse anything else."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _failed(f"unix:{path}", error) from error
    if not stat.S_ISSOCK(found.st_mode):
        raise UsageError(
            f"cannot listen on unix:{path}: it exists and is no socket; remove it, or use another name"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)  # stale
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # its queue is full: somebody is there
        except OSError as error:
            raise _failed(f"unix:{path}", error) from error
    raise BlockError(
        errno.EADDRINUSE,
        f"cannot listen on unix:{path}: another server answers there; stop it first",
    )


def _listen_tcp(where: str, rest: str) -> Listener:
    host, colon, port_text = rest.rpartition(":")
    if not colon or not port_text.isascii() or not port_text.isdigit() or int(port_text) > 65535:
        raise UsageError(
            f"cannot listen on {where!r}: write tcp:[HOST]:PORT, for example tcp::10809"
        )
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, int(port_text), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _failed(where, error) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise _failed(where, error) from error
    return _described(sock)


def _described(sock: socket.socket) -> Listener:
    """A listener for a socket that is bound and listening."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        name = sock.getsockname()
        path = os.fsdecode(name) if name else ""
        return Listener(sock, f"unix:{path}", path)
    host, port = sock.getsockname()[:2]
    exposed = not (host.startswith("127.") or host == "::1")
    shown = f"[{host}]" if ":" in host else host
    return Listener(sock, f"tcp:{shown}:{port}", exposed=exposed)


def activated() -> list[Listener]:
    """The sockets that a supervisor has opened for this process; none if it has not.

    The environment that says so is cleared, so that child processes do not take it for theirs.
    Raises: UsageError if what was passed on is no listening socket.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    text = os.environ.get("LISTEN_FDS", "")
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 4096:
        raise UsageError(f"LISTEN_FDS is {text!r}: it must be the number of sockets passed on")
    found = []
    for fd in range(_FIRST_FD, _FIRST_FD + int(text)):
        try:
            sock = socket.socket(fileno=fd)
            listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise UsageError(
                f"descriptor {fd} of LISTEN_FDS is no socket: {error.strerror}"
            ) from error
        if not listening or sock.type != socket.SOCK_STREAM:
            raise UsageError(f"descriptor {fd} of LISTEN_FDS is no listening stream socket")
        os.set_inheritable(fd, False)
        found.append(_described(sock))
    return found


def standard_input() -> socket.socket:
    """Standard input as a connected socket, as inetd passes it on; standard output is left alone.

    Raises: UsageError if it is no connected stream socket.
    """
    try:
        sock = socket.socket(fileno=os.dup(0))
        sock.getpeername()
    except OSError as error:
        raise UsageError(
            f"--stdio needs a connected socket as standard input: {error.strerror}; "
            "start it from a client (nbdsh, nbdcopy -- [ COMMAND ]) or from inetd"
        ) from error
    return sock


def _failed(where: str, error: OSError) -> BlockError:
    return BlockError(
        error.errno if error.errno and error.errno > 0 else errno.EADDRNOTAVAIL,
        f"cannot listen on {where}: {error.strerror or error}",
    )
