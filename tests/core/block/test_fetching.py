"""A miss in one go: the same as the plan's, and nothing at all where it would have to wait."""

from __future__ import annotations

import errno

import pytest

from headway.core.block.bio import Bio
from headway.errors import BlockError, DeviceTimeout
from headway.runtimes.simulator import Simulator
from headway.runtimes.threads import THREADS
from tests.core.block.cache_rig import BLOCK, Disk, Frames, load, make, store


def at_rest(cache: object, memory: Frames, frames: int, cached: int) -> None:
    """Nothing is held or under way, and every frame is in the memory, the reserve or the cache."""
    cache.check_invariants()
    assert not any(buffer.held or buffer.reading for buffer in cache.blocks.values())
    assert len(cache.blocks) == cached
    assert memory.left == frames - cached - len(cache.supply.reserve)
    assert cache.bios.pool.outstanding == 0


def test_what_is_read_is_held_and_a_hit_afterwards() -> None:
    cache, disk, memory = make(THREADS, 4)
    disk.fill(3, 33)
    attempts: list[str] = []
    cache.attempt = attempts.append
    buffer = cache.fetch(3)
    assert buffer is not None and set(buffer.view) == {33} and buffer.held == 1
    assert attempts == ["nowait"] and cache.hit(3) is buffer
    assert (cache.misses, cache.hits, cache.read_requests) == (1, 1, 1)
    buffer.release()
    buffer.release()
    at_rest(cache, memory, 4, cached=1)


def test_the_end_of_the_device_may_lie_inside_the_block() -> None:
    cache, disk, memory = make(THREADS, 4, Disk(size=BLOCK + 512))
    disk.device.pwrite(memoryview(b"\xff" * 512), BLOCK)
    buffer = cache.fetch(1)
    assert buffer is not None and bytes(buffer.view) == b"\xff" * 512 + bytes(BLOCK - 512)
    buffer.release()
    at_rest(cache, memory, 4, cached=1)


@pytest.mark.parametrize("why", ["no memory", "no such block", "known already", "closed", "no bio"])
def test_nothing_is_done_where_it_cannot_be_done_at_once(why: str) -> None:
    cache, disk, memory = make(THREADS, 4, in_flight=1)
    THREADS.run(load(cache, 7))
    block, bio = 3, None
    if why == "no memory":
        memory.fails = True
    elif why == "no such block":
        block = 64
    elif why == "known already":
        block = 7
    elif why == "no bio":
        bio = cache.bios.pool.take_now()
    elif why == "closed":
        cache.closed = True
    before = list(disk.log)
    assert cache.fetch(block) is None and disk.log == before and cache.misses == 1
    if bio is not None:
        cache.bios.free(bio)
    cache.closed = False
    at_rest(cache, memory, 4, cached=1)


def test_a_block_that_cannot_be_read_is_forgotten() -> None:
    cache, disk, memory = make(THREADS, 4)
    disk.bad = lambda bio: True
    with pytest.raises(BlockError, match="the rig let it fail"):
        cache.fetch(3)
    at_rest(cache, memory, 4, cached=0)
    disk.bad = lambda bio: False
    assert THREADS.run(load(cache, 3)) == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a layer's bug")])
def test_an_exception_out_of_the_device_leaves_nothing_behind(error: BaseException) -> None:
    cache, disk, memory = make(THREADS, 4)

    def broken(bio: object) -> bool:
        raise error

    disk.submit_now = broken
    with pytest.raises(type(error)):
        cache.fetch(3)
    at_rest(cache, memory, 4, cached=0)
    del disk.submit_now
    assert THREADS.run(load(cache, 3)) == 0


@pytest.mark.parametrize("fails", [False, True])
def test_a_layer_that_has_to_wait_gets_the_rest_as_a_plan(fails: bool) -> None:
    cache, disk, memory = make(THREADS, 4)
    disk.fill(3, 33)
    disk.submit_now = lambda bio: False
    disk.bad = lambda bio: fails
    if fails:
        with pytest.raises(BlockError, match="the rig let it fail"):
            cache.fetch(3)
    else:
        buffer = cache.fetch(3)
        assert buffer is not None and set(buffer.view) == {33}
        buffer.release()
    at_rest(cache, memory, 4, cached=0 if fails else 1)


def test_where_every_step_is_a_choice_only_plans_are_run() -> None:
    cache, disk, _ = make(Simulator(lambda options: 0), 4)
    assert cache.fetch(3) is None and not disk.log


def test_t711_an_error_stays_what_it_was_and_is_nobody_else_s() -> None:
    """Who told a device that is late from one that is broken still can; what is kept holds no buffer."""
    cache, disk, memory = make(THREADS, 4)
    late = DeviceTimeout(errno.ETIMEDOUT, "no answer", offset=4096, timeout_s=2.5)
    try:
        raise late
    except DeviceTimeout:
        pass

    def fails(bio: Bio) -> None:
        bio.error = late

    disk.bad, disk.failed = lambda bio: bio.op.value != "flush", fails
    THREADS.run(store(cache, 1, 5))
    asked = (
        lambda: cache.fetch(2),
        lambda: THREADS.run(cache.read_plan(2)),
        lambda: THREADS.run(cache.write_dirty_plan()),
    )
    for ask in asked:
        with pytest.raises(DeviceTimeout, match="no answer") as caught:
            ask()
        assert caught.value is not late and caught.value.__cause__ is None
        assert (caught.value.timeout_s, caught.value.offset) == (2.5, 4096)
    at_rest(cache, memory, 4, cached=0)
