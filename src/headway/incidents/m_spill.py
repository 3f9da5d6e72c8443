"""M-SPILL (today): a sorter books room for its spill, gives it back just before, and takes it again.

In between it is somebody else's, who now waits for what the spill would have set free. A reserve that
is freed to be used is no reserve; the kernel's twin is the SLUB merge of 2008. What is needed next is
handed on, never freed and taken.

Source: DataFusion #24739 and pull request #20642.
"""

from __future__ import annotations

from typing import Any

from headway.core.mm.pools import FixedMempool
from headway.core.plan import Plan
from headway.incidents.stage import DEADLOCK, Fix, Incident, Stage

RUN = 2  # pages of sorted data


def play(stage: Stage, fix: str | None) -> str:
    memory: FixedMempool[Any] = FixedMempool(range(RUN + 1), runtime=stage.simulator, name="memory")
    room = memory
    if fix == "private":
        room = FixedMempool([0], runtime=stage.simulator, name="the sorter's room")
    stage.enter("sorter", _sorter(stage, memory, room, fix))
    stage.enter("neighbour", _neighbour(stage, memory))
    return stage.play()


def _sorter(
    stage: Stage, memory: FixedMempool[Any], room: FixedMempool[Any], fix: str | None
) -> Plan[None]:
    booked = yield from stage.alloc("sorter", room, "books room for the spill")
    data = []
    for number in range(1, RUN + 1):
        data.append((yield from stage.alloc("sorter", memory, f"takes page #{number}")))
    yield from stage.turn()
    if fix is None:
        stage.free("sorter", room, booked, "gives the room back, to spill into it")
        yield from stage.turn()
        booked = yield from stage.alloc("sorter", room, "takes the room again")
    else:
        stage.say("sorter", "spills into the room that it has")
    for page in data:
        stage.free("sorter", memory, page, "has written a page, and frees it")
    stage.free("sorter", room, booked, "frees the room")


def _neighbour(stage: Stage, memory: FixedMempool[Any]) -> Plan[None]:
    yield from stage.turn()
    held = []
    for number in range(1, RUN + 1):
        held.append((yield from stage.alloc("neighbour", memory, f"takes page #{number}")))
        yield from stage.turn()
    for page in held:
        stage.free("neighbour", memory, page)


INCIDENT = Incident(
    "M-SPILL",
    "room that was booked for the spill is given back just before it",
    DEADLOCK,
    (
        Fix("hand-over", "spill into the room that is held: never free it to take it again"),
        Fix("private", "a pool of its own for the room, which nobody else can take from"),
    ),
    play,
)
