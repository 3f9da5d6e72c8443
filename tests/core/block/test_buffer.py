"""A buffer's holds: a hit and whoever wants the memory, each coming first, and a release too many. By steps."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from headway.core.block import writeback
from headway.core.block.bio import Bio
from headway.core.block.buffer import Buffer
from headway.core.block.bufio import BufferCache
from headway.core.plan import Plan
from headway.errors import UsageError
from headway.runtimes.threads import THREADS
from tests.core.block.cache_rig import load, make, store
from tests.steps import step


def run(plan: Plan[Any]) -> Any:
    return step(plan).finish()


class Asked:
    """What a shrinker is asked for."""

    def __init__(self, scan_count: int) -> None:
        self.scan_count = self.scanned = scan_count


def _moved(cache: BufferCache) -> None:
    run(cache.move_plan(run(cache.read_plan(1)), 5))


@pytest.mark.parametrize(
    "gone", [lambda cache: cache.take_clean(), lambda cache: cache.forget(1), _moved],
    ids=["evicted", "forgotten", "moved"],
)  # fmt: skip
def test_a_hit_that_comes_too_late_steps_back(gone: Any) -> None:
    cache, _, _ = make(THREADS, 4)
    run(load(cache, 1))
    late = cache.blocks[1]
    gone(cache)
    cache.quick = {1: late}  # as it was when the hit looked
    assert cache.hit(1) is None and not late.held
    assert cache.get(1) is None


def test_who_wants_the_memory_steps_back_from_a_hit_that_came_first() -> None:
    cache, _, _ = make(THREADS, 4, keeping={"retain_bytes": 0})
    run(load(cache, 1))
    buffer = cache.blocks[1]
    buffer.holds.append(False)  # the first half of a hit
    cache.forget(1)
    assert cache.take_clean() is None and cache.keeper.scan_objects(Asked(4)) == 0
    assert buffer.ready, "its second half finds all as it was"
    buffer.release()
    assert cache.take_clean() is not None


def test_a_release_too_many_is_refused_and_changes_nothing() -> None:
    cache, _, _ = make(THREADS, 4)
    buffer = run(cache.read_plan(1))
    cache.release(buffer)
    for release in (
        buffer.release,
        lambda: cache.release(buffer),
        lambda: buffer.__exit__(*[None] * 3),
    ):
        with pytest.raises(UsageError, match="more often than it was held"):
            release()
        assert buffer.held == 0
    assert cache.hit(1) is buffer and buffer.held == 1
    assert cache.take_clean() is None, "it is held like any other"
    cache.release(buffer)


class Between(list[bool]):
    """The holds of a buffer that is released just after somebody has looked how many there are."""

    def __init__(self, buffer: Buffer) -> None:
        super().__init__(buffer.holds)
        self.thread = threading.Thread(target=buffer.release, daemon=True)
        self.popped = threading.Event()
        self.looked = False

    def __len__(self) -> int:
        count = super().__len__()
        if not self.looked:
            self.looked = True
            self.thread.start()
            assert self.popped.wait(30)
        return count

    def pop(self, *args: Any) -> bool:
        value = super().pop(*args)
        self.popped.set()
        return value


def test_a_release_just_after_a_mover_has_looked_wakes_it() -> None:
    cache, _, _ = make(THREADS, 4)
    buffer, there = run(cache.read_plan(1)), run(cache.read_plan(5))
    there.holds = holds = Between(there)
    moving = step(cache.move_plan(buffer, 5))
    ticket = moving.to_park()
    holds.thread.join(30)
    assert ticket.woken, "a lost wake-up"
    moving.answer(True)
    moving.finish()
    assert cache.supply.alerts == 0 and sorted(cache.blocks) == [5]


def test_a_release_just_after_a_failed_write_has_looked_forgets_the_block() -> None:
    cache, disk, _ = make(THREADS, 4)
    run(store(cache, 1, 5))
    buffer = run(cache.read_plan(1))
    disk.bad = lambda bio: bio.op.value == "write"
    holds = Between(buffer)

    def failed(bio: Bio) -> None:
        buffer.holds = holds

    disk.failed = failed
    run(writeback.start(cache, buffer))
    holds.thread.join(30)
    assert not cache.blocks and cache.supply.alerts == 0
