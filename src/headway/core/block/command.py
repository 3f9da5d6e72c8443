"""What a host and its transport tell each other: a command, how it ended, and who carries it.

It decides nothing; `host` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, final

from headway.core.mm.mempool import Mempool
from headway.errors import BlockError


@final
@dataclass(frozen=True, slots=True)
class Completion:
    """How a request ended. `sg` is the memory that is the caller's again: none while it is quarantined."""

    error: BlockError | None
    sense: bytes
    sg: tuple[memoryview, ...]


Done: TypeAlias = Callable[[Completion], object]


@final
class Command:
    """A request as the transport sees it; `tag` names it in the answer."""

    __slots__ = ("cmd", "done", "home", "parts", "sg", "tag", "timeout_s")

    def __init__(
        self,
        tag: int,
        cmd: Any,
        sg: tuple[memoryview, ...],
        done: Done,
        home: Mempool[Any] | None,
        timeout_s: float | None,
    ) -> None:
        self.tag = tag
        self.cmd = cmd
        self.sg = sg
        self.done = done
        self.home = home
        self.timeout_s = timeout_s
        self.parts: tuple[Any, ...] | None = None  # its slot, while it is in flight

    def take_parts(self) -> tuple[Any, ...] | None:
        """Its slot, once."""
        parts, self.parts = self.parts, None
        return parts

    def __repr__(self) -> str:
        return f"<Command {self.tag}: {self.cmd!r}, {sum(map(len, self.sg))} bytes>"


class Transport(Protocol):
    """What carries commands to a device and answers through `Host.answer`."""

    def start(self, command: Command, /) -> object:
        """Begin; the answer may come at once. Waits: never. Raises: BlockError if it cannot."""

    def abort(self, tag: int, /) -> bool:
        """Give up a command: True if the device will not touch its memory any more."""
