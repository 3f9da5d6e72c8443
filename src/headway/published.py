"""Processes that publish, seen from outside: which there are, and what they say.

It decides nothing, and speaks the protocol of `headway.publishing`: an empty line asks, one line answers.

Source: own.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, Final, final

from headway import snapshots
from headway.edge import local_sockets
from headway.errors import HeadwayError, UsageError

__all__ = ["Published", "processes"]

_HOW: Final = "call hw.publish() in it, or start it with HEADWAY_PUBLISH=1"
_SILENT_S: Final = 10.0


def processes() -> list[int]:
    """Which processes of this user publish, by number; what others left behind is removed.

    Raises: UsageError if the folder of their sockets is open to other users.
    """
    return local_sockets.listeners(snapshots.PURPOSE)


@final
class Published:
    """A connection to one process that publishes, for a ``with`` block.

    Raises: UsageError if there is none, saying why. Waits: at most 10 s.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._peer = local_sockets.connect(snapshots.PURPOSE, pid, _SILENT_S)
        except (FileNotFoundError, ConnectionRefusedError):
            raise UsageError(_why_not(pid)) from None
        except TimeoutError:
            raise HeadwayError(f"process {pid} does not answer: is it stopped?") from None
        self._lines = self._peer.makefile("rb")

    def snapshot(self) -> dict[str, Any]:
        """What it says now.

        Raises: HeadwayError if it does not answer; EOFError if it has ended. Waits: at most 10 s.
        """
        try:
            self._peer.sendall(b"\n")
            line = self._lines.readline()
        except TimeoutError:
            raise HeadwayError(
                f"process {self.pid} has not answered for {_SILENT_S:.0f} s: it is stopped, or holds "
                "the interpreter; try again"
            ) from None
        except ConnectionError:
            line = b""
        if not line.endswith(b"\n"):
            raise EOFError(f"process {self.pid} has ended, or publishes no more")
        return snapshots.read(line, f"process {self.pid}")

    def close(self) -> None:
        self._lines.close()
        self._peer.close()

    def __enter__(self) -> Published:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _why_not(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return f"there is no process {pid}: headway top lists those that publish"
    except PermissionError:
        return f"process {pid} is another user's: run headway top as that user"
    return f"process {pid} does not publish: {_HOW}"
