"""Where a process listens for others of its user: one socket for each process and purpose, in a private folder.

It does not serve and knows no protocol. The folder is ``headway`` in XDG_RUNTIME_DIR, else ``headway-UID`` where
temporary files go; it is 0700 and ours, or it is refused: whoever owns it could listen in our place. A
socket gets its name when it already listens, so whoever finds one that refuses knows that its process is
gone, and takes it away. (A process id proves nothing: containers share folders, not numbers.)

Source: the XDG base directory specification, for XDG_RUNTIME_DIR.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from pathlib import Path
from typing import Final

from headway.errors import UsageError

_LONGEST: Final = 107  # bytes of a name, in Linux's sockaddr_un


def folder() -> Path:
    """The folder, made if it is missing.

    Raises: UsageError if others could use it, or there are no Unix sockets here; OSError.
    """
    if not hasattr(socket, "AF_UNIX") or not hasattr(os, "getuid"):
        raise UsageError("this system has no Unix sockets: a process cannot be asked from outside")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        path = Path(runtime, "headway")
    else:
        import tempfile

        path = Path(tempfile.gettempdir(), f"headway-{os.getuid()}")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise UsageError(f"{path} is open to other users: remove it, or set XDG_RUNTIME_DIR")
    return path


def socket_path(purpose: str, pid: int) -> Path:
    """Where that process listens, if it does. Raises: as `folder`; UsageError if the name is too long."""
    path = folder() / f"{purpose}-{pid}.sock"
    length = len(os.fsencode(path))
    if length > _LONGEST:
        raise UsageError(
            f"{path} has {length} bytes, and the name of a socket at most {_LONGEST}: "
            "set XDG_RUNTIME_DIR to a shorter folder"
        )
    return path


def listen(purpose: str) -> socket.socket:
    """A listening socket of this process, mode 0600. Raises: as `socket_path`; OSError."""
    path = socket_path(purpose, os.getpid())
    fresh = path.with_suffix(".new")
    for pid in _named(purpose):
        if not is_there(pid):
            _answers(purpose, pid)  # else what killed processes leave would pile up
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        fresh.unlink(missing_ok=True)
        listening.bind(str(fresh))
        fresh.chmod(0o600)
        listening.listen(16)
        fresh.rename(path)
    except BaseException:
        listening.close()
        fresh.unlink(missing_ok=True)
        raise
    return listening


def connect(purpose: str, pid: int, timeout_s: float) -> socket.socket:
    """A connection to that process. Raises: OSError if it does not listen. Waits: at most `timeout_s`."""
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Python's own timeout does not wait here: a full queue of connections is EAGAIN at once.
        whole_s = int(timeout_s)
        limit = struct.pack("@ll", whole_s, int((timeout_s - whole_s) * 1e6))
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        peer.connect(str(socket_path(purpose, pid)))
        peer.settimeout(timeout_s)
    except BaseException as error:
        peer.close()
        if isinstance(error, BlockingIOError):
            raise TimeoutError(errno.ETIMEDOUT, f"process {pid} does not accept") from error
        raise
    return peer


def listeners(purpose: str) -> list[int]:
    """The processes that listen, by number; sockets of those that have gone are removed.

    Waits: at most a second for each that does not answer, and is listed. Raises: as `folder`.
    """
    found = [pid for pid in _named(purpose) if _answers(purpose, pid)]
    return sorted(found)


def _named(purpose: str) -> list[int]:
    """The processes that have a socket here, whether or not they are still there."""
    start = f"{purpose}-"
    numbers = [path.stem.removeprefix(start) for path in folder().glob(f"{start}*.sock")]
    return [int(number) for number in numbers if number.isdecimal()]


def is_there(pid: int) -> bool:
    """Whether there is such a process, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


def _answers(purpose: str, pid: int) -> bool:
    """Whether somebody listens there; the socket of one that has gone is removed."""
    try:
        connect(purpose, pid, 1.0).close()
    except FileNotFoundError:
        return False
    except ConnectionRefusedError:
        socket_path(purpose, pid).unlink(missing_ok=True)
        return False
    except OSError:
        pass  # too busy to answer: it is there
    return True
