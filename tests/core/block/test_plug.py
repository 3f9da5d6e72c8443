"""A plug holds bios back, and is pushed out before its holder sleeps."""

from __future__ import annotations

import pytest

from headway.core.block.bio import READ, Bio
from headway.core.block.line import Line
from headway.core.block.plug import FLUSH_SIZE, MAX_COUNT, Plug
from headway.core.mm.gfp import Gfp
from headway.core.mm.pools import FixedMempool
from headway.core.plan import Park, Plan
from tests.core.block.rig import BLOCK, Log, Rig
from tests.steps import step


class NoPlug(Plug):  # type: ignore[misc]  # final for users; here to show what the kick is for
    def kick(self) -> None:
        """Broken on purpose."""


def bio_of(bios, offset: int) -> Plan[Bio]:
    bio = yield from bios.make(READ, offset, memoryview(bytearray(BLOCK)), BLOCK)
    bio.push(lambda bio: bios.free(bio) or True)
    return bio


@pytest.mark.parametrize("kicks", [True, False])
def test_t55_the_plug_is_flushed_before_the_sleep_or_the_wait_never_ends(kicks: bool) -> None:
    """One bio in the set, and it is in the plug of the one who asks for the next."""
    rig = Rig()
    events: list[str] = []
    workers = rig.workers("plug")
    bios = rig.set_of("bios", min_count=1)
    low = Log("low", rig.disk(), events)
    plug = (Plug if kicks else NoPlug)(workers)

    def task() -> Plan[None]:
        plug.start()
        yield from plug.add((yield from bio_of(bios, 0)), low)
        events.append("sleep")
        bio = yield from bios.alloc(Line(plug))
        events.append("woken")
        bios.free(bio)
        yield from plug.finish()

    stuck = [its.name for its in rig.run(task()) if its.name.startswith("task")]
    assert stuck == ([] if kicks else ["task 0"])
    assert events == (["sleep", "low 0", "woken"] if kicks else ["sleep"])
    assert plug.kicks == (1 if kicks else 0)


def test_t55_the_flush_comes_before_the_park() -> None:
    rig = Rig()
    workers, bios = rig.workers("plug"), rig.set_of(min_count=1)
    rig.run()
    plug = Plug(workers)
    plug.start()
    held = step(bio_of(bios, 0)).finish()
    step(plug.add(held, rig.disk(late=False))).finish()
    asking = step(bios.alloc(Line(plug)))
    while not isinstance(asking.request, Park):
        asking.effect() if hasattr(asking.request, "effect") else asking.answer(0.0)
    assert workers.stats().pending == 1 and len(plug) == 0


def test_a_pool_kicks_its_plug_too() -> None:
    """Whatever the plug's holder waits for: ``unplug=`` is the same kick."""
    rig = Rig()
    workers, bios = rig.workers("plug"), rig.set_of(min_count=2)
    plug = Plug(workers)
    frames: FixedMempool[int] = FixedMempool(
        [1], runtime=rig.simulator, name="frames", unplug=plug.kick
    )

    def task() -> Plan[None]:
        plug.start()
        [frame] = yield from frames.alloc_plan(*ask)
        bio = yield from bios.make(READ, 0, memoryview(bytearray(BLOCK)), BLOCK)
        bio.push(lambda bio: (frames.free(frame), bios.free(bio)))
        yield from plug.add(bio, rig_disk)
        [again] = yield from frames.alloc_plan(*ask)
        frames.free(again)
        yield from plug.finish()

    ask = (Gfp.NOIO, 0, "task", 1, None)
    rig_disk = rig.disk()
    assert not [its for its in rig.run(task()) if its.name.startswith("task")]
    assert plug.kicks == 1
    bios.close()


def test_it_flushes_when_it_is_full_or_large_and_at_the_outermost_finish() -> None:
    rig = Rig(fine=False)
    log: list[str] = []
    low = Log("low", rig.disk(size=4 << 20, late=False), log)
    plug = Plug(rig.workers("plug"))

    def add(length: int) -> None:
        rig.run(plug.add(Bio(READ, 0, memoryview(bytearray(length))), low))

    plug.start()
    plug.start()
    for _ in range(MAX_COUNT):
        add(BLOCK)
    assert log == []
    add(BLOCK)
    assert len(log) == MAX_COUNT + 1
    add(FLUSH_SIZE)
    assert len(log) == MAX_COUNT + 2
    add(BLOCK)
    rig.run(plug.finish())
    assert len(plug) == 1, "the inner plug is the outer one"
    rig.run(plug.finish())
    assert len(plug) == 0 and len(log) == MAX_COUNT + 3
    add(BLOCK)
    assert len(log) == MAX_COUNT + 4, "without a plug it goes at once"


def test_a_layer_that_waits_for_its_reserve_kicks_the_plug_first() -> None:
    rig = Rig()
    workers, bios = rig.workers("plug"), rig.set_of(min_count=1)
    buffers: FixedMempool[int] = FixedMempool([1], runtime=rig.simulator, name="buffers")
    plug = Plug(workers)
    disk = rig.disk()

    def task() -> Plan[None]:
        plug.start()
        [buffer] = yield from Line(plug).take(buffers)
        bio = yield from bios.make(READ, 0, memoryview(bytearray(BLOCK)), BLOCK)
        bio.push(lambda bio: (buffers.free(buffer), bios.free(bio)))
        yield from plug.add(bio, disk)
        [again] = yield from Line(plug).take(buffers)
        buffers.free(again)
        yield from plug.finish()

    assert not [its for its in rig.run(task()) if its.name.startswith("task")]
    assert plug.kicks == 1 and buffers.outstanding == 0
    bios.close()
