"""E-KMAP (2001): tasks map pages into a window of few slots, and each needs two of them at once.

To copy between two high pages both must be mapped. As many tasks as slots have one each, and wait for
the second. The thread names kmap, beside loop, as a user that does not give back in bounded time.

Source: B. LaHaise in "mempool-2.5.1-D2" (2001), on who already breaks the rule of timely return.
"""

from __future__ import annotations

from typing import Any

from headway.core.mm.gfp import Gfp
from headway.core.mm.pools import FixedMempool
from headway.core.plan import Plan
from headway.incidents.stage import DEADLOCK, Fix, Incident, Stage

TASKS = 2


def play(stage: Stage, fix: str | None, *, tasks: int = TASKS, slots: int | None = None) -> str:
    """`tasks` copy through a window of `slots`: as many as tasks, if not given, or one more with *capacity*."""
    size = tasks + 1 if fix == "capacity" else slots or tasks
    window: FixedMempool[Any] = FixedMempool(range(size), runtime=stage.simulator, name="window")
    for number in range(1, tasks + 1):
        name = f"T{number}"
        second = window
        if fix == "local":
            second = FixedMempool([0], runtime=stage.simulator, name=f"slot of {name}")
        stage.enter(name, _copy_page(stage, name, window, second, fix))
    return stage.play()


def _copy_page(
    stage: Stage, who: str, window: FixedMempool[Any], second: FixedMempool[Any], fix: str | None
) -> Plan[None]:
    if fix == "together":
        both = yield from window.alloc_plan(Gfp.KERNEL, 0, who, 2, None)
        assert both is not None
        stage.say(who, "maps both pages, all or nothing")
        yield from stage.turn()
        for slot in both:
            stage.free(who, window, slot, "unmaps a page")
        return
    source = yield from stage.alloc(who, window, "maps its source: a slot")
    yield from stage.turn()
    if fix == "bounce":
        stage.say(who, "copies to memory that is always mapped")
        stage.free(who, window, source, "unmaps its source")
    target = yield from stage.alloc(who, second, "maps its target: a slot")
    stage.free(who, second, target, "unmaps its target")
    if fix != "bounce":
        stage.free(who, window, source, "unmaps its source")


INCIDENT = Incident(
    "E-KMAP",
    "every task has mapped one page, and waits for the slot of its second",
    DEADLOCK,
    (
        Fix("capacity", "one slot more than tasks: N*(k-1)+1"),
        Fix("together", "map both at once, all or nothing"),
        Fix("local", "a slot of its own for each task's second page"),
        Fix("bounce", "copy by way of memory that needs no slot: one at a time"),
    ),
    play,
)
