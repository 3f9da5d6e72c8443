"""M-VLLM (today): two requests of a model server hold blocks of the cache, and each needs one more.

Seven blocks: A takes four and B three, then each waits for one. With six B does not start before A has
ended; with eight there is one for A. So a larger pool hangs where a smaller one is safe, and no
bisection finds that: `headway size` lists every size. Whatever fits is served, as the server does it.

Source: vLLM pull request #57104, found in production ("running 0, waiting 2").
"""

from __future__ import annotations

from typing import Any

from headway.core.mm.gfp import Gfp
from headway.core.mm.ladder import Wake
from headway.core.mm.pools import FixedMempool
from headway.core.plan import Plan
from headway.incidents.stage import DEADLOCK, Fix, Incident, Stage

BLOCKS = 7
STARTS_WITH = {"A": 4, "B": 3}
SIZES = {"one-more": 8, "one-less": 6}


def play(stage: Stage, fix: str | None) -> str:
    size = SIZES.get(fix or "", BLOCKS)
    blocks: FixedMempool[Any] = FixedMempool(
        range(size), runtime=stage.simulator, name="blocks", wake=Wake.ANY_FIT
    )
    for who in STARTS_WITH:
        stage.enter(who, _request(stage, who, blocks, fix))
    return stage.play()


def _request(stage: Stage, who: str, blocks: FixedMempool[Any], fix: str | None) -> Plan[None]:
    prompt = STARTS_WITH[who] + (1 if fix == "whole" else 0)
    while True:
        held = yield from _take(stage, who, blocks, prompt)
        yield from stage.turn()
        if fix != "whole":
            if fix == "preempt" and blocks.stats().reserve_count == 0:
                stage.say(who, "is preempted: gives its blocks back, and starts again later")
                _give_back(blocks, held)
                yield from stage.turn()
                continue
            held += yield from _take(stage, who, blocks, 1)
        stage.say(who, f"ends, and gives {len(held)} back")
        _give_back(blocks, held)
        return


def _take(stage: Stage, who: str, blocks: FixedMempool[Any], count: int) -> Plan[list[Any]]:
    left = blocks.stats().reserve_count
    if left < count:
        stage.say(who, f"asks for {count} of blocks", f"{left} left: it waits")
    taken = yield from blocks.alloc_plan(Gfp.KERNEL, 0, who, count, None)
    assert taken is not None
    stage.say(who, f"takes {count} of blocks", f"{blocks.stats().reserve_count} left")
    return taken


def _give_back(blocks: FixedMempool[Any], held: list[Any]) -> None:
    for block in held:
        blocks.free(block)


INCIDENT = Incident(
    "M-VLLM",
    "two requests hold all blocks of the cache, and each needs one more",
    DEADLOCK,
    (
        Fix("one-more", "eight blocks instead of seven"),
        Fix("one-less", "six blocks instead of seven: B cannot start beside A"),
        Fix("whole", "take what a request will need before it starts"),
        Fix("preempt", "when none is left, give all back and start again"),
    ),
    play,
)
