"""Hosts to test: a wire whose answers a test gives, parts from shelves, frames, and what ended."""

from __future__ import annotations

import threading
from typing import Any

from headway.core.block.command import Command, Completion
from headway.core.block.host import Host
from headway.core.mm.composite import Callables
from headway.core.mm.gfp import Gfp
from headway.core.mm.pools import FixedMempool
from headway.errors import BlockError
from tests.core.block.rig import Rig
from tests.core.mm.pools import Shelf


class Wire:
    """A transport that keeps what it was given; a test answers when it likes."""

    def __init__(self, *, lets_go: bool = False) -> None:
        self.out: list[Command] = []
        self.started: list[int] = []
        self.lets_go = lets_go
        self.error: BlockError | None = None

    def start(self, command: Command) -> None:
        if self.error is not None:
            raise self.error
        self.out.append(command)
        self.started.append(command.tag)

    def abort(self, tag: int) -> bool:
        return self.lets_go


class Frames:
    """A pool of buffers, the same set for ever, and spare ones in place of the quarantined."""

    def __init__(self, rig: Rig, count: int = 2) -> None:
        self.pool: FixedMempool[memoryview] = FixedMempool(
            [memoryview(bytearray(512)) for _ in range(count)],
            runtime=rig.simulator,
            name="frames",
            trace=True,
        )
        self.spares: list[memoryview] = [memoryview(bytearray(512)) for _ in range(9)]
        self.backend = Callables(
            lambda gfp: self.spares.pop() if self.spares else None, self.spares.append
        )


class Bench:
    """A host, its wire, its parts, and what ended."""

    def __init__(self, rig: Rig, *, parts: int = 3, lets_go: bool = False, **options: Any) -> None:
        self.rig = rig
        self.wire = Wire(lets_go=lets_go)
        self.shelves = [Shelf() for _ in range(parts)]
        self.host = Host(rig.simulator, self.wire, parts=self.shelves, **options)
        self.ended: list[tuple[str, Completion]] = []
        rig.simulator.start(self.host.keep_time(), "timekeeper")

    def execute(self, cmd: str, sg: Any = (), **options: Any) -> int:
        return self.host.execute(
            cmd, sg, lambda completion: self.ended.append((cmd, completion)), **options
        )

    def names(self) -> list[str]:
        return [cmd for cmd, _ in self.ended]

    def answer_all(self) -> None:
        while self.wire.out:
            self.host.answer(self.wire.out.pop(0).tag)


class Locked:
    """A shelf for several threads."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.lock = threading.Lock()

    def alloc(self, gfp: Gfp) -> Any:
        with self.lock:
            return self.shelf.alloc(gfp)

    def free(self, element: Any) -> None:
        with self.lock:
            self.shelf.free(element)
