"""The slow path: what is done for which mask, in which order, and when it ends (T3.1 to T3.3, T3.6)."""

from __future__ import annotations

from typing import Any

import pytest

from headway.core.mm.gfp import Gfp, Scope
from headway.core.mm.oom import GRACE_S, Oom, OutOfMemory
from headway.core.mm.pages import PageRun
from headway.core.mm.reclaim import PRIORITY, TICK_S
from headway.core.mm.shrinker import STOP, ScanControl
from headway.core.mm.watermarks import lowest_mark
from headway.core.plan import Park
from headway.errors import NoMemory, PoolClosed
from headway.runtimes.threads import THREADS
from tests.core.mm.memory import HIGH, LOW, MIN, PAGES, Cached, Memory
from tests.core.mm.test_shrinker import Things
from tests.steps import Stepper, step

KERNEL = Gfp.KERNEL


def ask(
    memory: Memory, gfp: Gfp = KERNEL, scope: int = 0, who: str = "a"
) -> Stepper[PageRun | None]:
    return step(memory.path.alloc(memory.share, gfp, scope, who))


def get(memory: Memory, gfp: Gfp = KERNEL, scope: int = 0) -> PageRun | None:
    return THREADS.run(memory.path.alloc(memory.share, gfp, scope, "a"))


def through(asked: Stepper[Any]) -> None:
    """Carry out effects, and let each pause run to its end."""
    while asked.request is not None:
        if isinstance(asked.request, Park):
            asked.answer(False)
        else:
            asked.effect()


TRY_LOW, TRY_MIN = f"try {LOW}", f"try {MIN}"
START = [TRY_LOW, "wake", TRY_MIN, "wake", TRY_MIN]


@pytest.mark.parametrize(
    ("gfp", "scope", "events"),
    [
        (Gfp.IO | Gfp.FS, 0, [TRY_LOW, TRY_MIN, TRY_MIN]),
        (Gfp.NOWAIT, 0, START),
        (Gfp.ATOMIC, 0, [TRY_LOW, "wake", "try 6", "wake", "try 6"]),
        (Gfp.ATOMIC | Gfp.NOMEMALLOC, 0, [TRY_LOW, "wake", "try 8", "wake", "try 8"]),
        (Gfp.NOWAIT | Gfp.MEMALLOC, 0, [TRY_LOW, "wake", TRY_MIN, "wake", "try 0"]),
        (Gfp.NOWAIT | Gfp.MEMALLOC | Gfp.NOMEMALLOC, 0, START),
        (KERNEL, Scope.NORECLAIM, START),  # the stop of recursion
        (KERNEL | Gfp.NORETRY, 0, [*START, "reclaim"]),
        (KERNEL | Gfp.RETRY_MAYFAIL, 0, [*START, "reclaim"]),
        (KERNEL, 0, [*START, "reclaim", f"try {HIGH}", "oom"]),
        (Gfp.NOIO, 0, [*START, "reclaim", f"try {HIGH}", "oom"]),
        (KERNEL, Scope.NOFS, [*START, "reclaim", f"try {HIGH}", "oom"]),
        (KERNEL | Gfp.MEMALLOC, 0,
         [*START[:-1], "try 0", "reclaim", f"try {HIGH}", "oom"]),
    ],
)  # fmt: skip
def test_t3_2_the_sequence_for_each_mask_when_there_is_nothing(
    gfp: Gfp, scope: int, events: list[str]
) -> None:
    memory = Memory()
    memory.fill(leave=0)
    assert get(memory, gfp, scope) is None
    assert memory.events == events


def test_t3_2_nofail_goes_on_with_half_of_min_and_pauses_between() -> None:
    memory = Memory()
    memory.fill(leave=0)
    asked = ask(memory, KERNEL | Gfp.NOFAIL)
    asked.to_park()
    first = [*START, "reclaim", f"try {HIGH}", "oom", "try 8"]
    assert memory.events == first
    assert isinstance(asked.request, Park) and asked.request.timeout_s == TICK_S
    asked.answer(False)
    assert memory.events == [*first, *START[3:], "reclaim", f"try {HIGH}", "oom", "try 8"]
    assert isinstance(asked.request, Park) and asked.request.timeout_s == 2 * TICK_S
    memory.release(9)
    asked.finish()
    assert isinstance(asked.result, PageRun)


def test_nofail_is_not_silent(caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory(oom=Oom.RAISE)
    memory.fill(leave=0)
    asked = ask(memory, KERNEL | Gfp.NOFAIL)
    pauses = []
    while not caplog.records:
        assert isinstance(asked.request, Park) and asked.request.timeout_s is not None
        pauses.append(asked.request.timeout_s)
        asked.answer(False)
    assert max(pauses) <= GRACE_S and len(pauses) < 100
    assert "may not fail" in caplog.records[0].getMessage()
    memory.release(60)
    asked.answer(True)
    assert asked.result is not None


def test_t3_2_a_page_freed_by_reclaim_is_tried_for_once_more() -> None:
    memory = Memory()
    memory.path.reclaim.background = None
    memory.path.reclaim.shrinkers.register(Cached(memory.zone.share(0), 50))
    memory.fill(leave=0)
    assert get(memory, KERNEL | Gfp.NORETRY) is not None
    assert memory.events == [TRY_LOW, TRY_MIN, TRY_MIN, "reclaim", TRY_MIN]


@pytest.mark.parametrize("order", [0, 2])
@pytest.mark.parametrize(
    "gfp",
    [
        Gfp.NOWAIT, Gfp.ATOMIC, KERNEL, KERNEL | Gfp.HIGH, Gfp.NOWAIT | Gfp.MEMALLOC,
        Gfp.ATOMIC | Gfp.NOMEMALLOC, Gfp.NOWAIT | Gfp.MEMALLOC | Gfp.NOMEMALLOC,
    ],
)  # fmt: skip
def test_t3_1_the_slow_path_leaves_what_the_table_says_to_the_page(gfp: Gfp, order: int) -> None:
    memory = Memory()
    memory.share = memory.zone.share(order)
    while get(memory, gfp) is not None:
        pass
    mark = lowest_mark(int(gfp), MIN)
    assert memory.zone.room() == mark + (PAGES - mark) % (1 << order)
    memory.zone.check_invariants()


class Meagre(Things):
    """Claims much, and frees a page where it is told to: by the number of the call."""

    def __init__(self, memory: Memory, fruitful: set[int]) -> None:
        super().__init__(1000)
        self.memory = memory
        self.fruitful = fruitful
        self.rounds = 0

    def scan_objects(self, control: ScanControl) -> int:
        self.rounds += 1
        if self.rounds in self.fruitful:
            control.scanned = 100_000
            return 32  # says so; somebody else has them by the time we look
        return STOP


def test_t3_3_sixteen_rounds_without_progress_and_any_progress_starts_again() -> None:
    def rounds(fruitful: int | None) -> int:
        memory = Memory()
        memory.path.reclaim.background = None
        memory.fill(leave=0)
        meagre = Meagre(memory, set())
        memory.path.reclaim.shrinkers.register(meagre)
        asked = ask(memory, KERNEL | Gfp.RETRY_MAYFAIL)
        done = 0
        while asked.request is not None:
            if isinstance(asked.request, Park):
                done += 1
                if done == fruitful:
                    meagre.fruitful = {meagre.rounds + 1}
                asked.answer(False)
            else:
                asked.effect()
        assert asked.result is None
        return memory.events.count("reclaim")

    assert rounds(None) == 17
    assert rounds(10) == 10 + 1 + 17


def test_pages_that_make_no_block_are_no_progress() -> None:
    """Every second page is held: reclaim may free for ever, and no run of two appears."""
    memory = Memory()
    memory.path.reclaim.background = None
    memory.fill(leave=0)
    for run in memory.held[::2]:
        memory.holder.free(run)
    memory.share = memory.zone.share(1)
    endless = Meagre(memory, set(range(1000)))
    memory.path.reclaim.shrinkers.register(endless)
    asked = ask(memory, KERNEL | Gfp.RETRY_MAYFAIL)
    through(asked)
    assert asked.result is None and memory.events.count("reclaim") == 17


def test_a_pause_ends_with_the_first_page_that_comes_back() -> None:
    memory = Memory()
    memory.path.reclaim.background = None
    memory.fill(leave=0)
    memory.path.reclaim.shrinkers.register(Meagre(memory, set()))
    asked = ask(memory)
    ticket = asked.to_park()
    memory.release(17)
    assert ticket.woken
    asked.finish()
    assert asked.result is not None and not memory.zone._waiting


def test_a_page_that_comes_back_before_the_pause_is_not_missed() -> None:
    memory = Memory()
    memory.path.reclaim.background = None
    memory.fill(leave=0)
    counts = []

    class Late(Meagre):
        def count_objects(self, control: ScanControl) -> int:
            counts.append(1)
            if len(counts) == PRIORITY + 2:  # after its run, while it judges whether to go on
                memory.release(17)
            return super().count_objects(control)

    memory.path.reclaim.shrinkers.register(Late(memory, set()))
    asked = ask(memory)
    through(asked)
    assert asked.result is not None and memory.events.count("reclaim") == 1


def test_a_cancelled_request_leaves_no_ticket_behind() -> None:
    memory = Memory()
    memory.fill(leave=0)
    asked = ask(memory, KERNEL | Gfp.NOFAIL)
    asked.to_park()
    assert len(memory.zone._waiting) == 1
    with pytest.raises(KeyboardInterrupt):
        asked.throw(KeyboardInterrupt())
    assert not memory.zone._waiting


def test_t3_6_all_dirty_the_plain_allocator_ends_with_its_policy_and_does_not_loop() -> None:
    """Everything reclaimable needs an allocation to be freed: no progress, and a bounded end."""
    memory = Memory(oom=Oom.RAISE)
    memory.path.reclaim.background = None
    memory.fill(leave=MIN)
    writes: list[PageRun | None] = []

    class Dirty(Things):
        def scan_objects(self, control: ScanControl) -> int:
            got = THREADS.run(memory.path.alloc(memory.share, KERNEL, control.scope, control.who))
            writes.append(got)
            return STOP

    memory.path.reclaim.shrinkers.register(Dirty(100))
    asked = ask(memory)
    with pytest.raises(NoMemory, match=r"100.*could be reclaimed|400KiB could be reclaimed"):
        through(asked)
    assert writes and set(writes) == {None}
    assert memory.path.reclaim.deepest == 1, "what it allocates does not reclaim again"


@pytest.mark.parametrize("flag", [Gfp.NORETRY, Gfp.RETRY_MAYFAIL])
def test_who_may_fail_is_not_judged(flag: Gfp) -> None:
    asked: list[OutOfMemory] = []

    def victim(info: OutOfMemory) -> bool:
        asked.append(info)
        return True

    memory = Memory(oom=victim)
    memory.fill(leave=0)
    assert get(memory, KERNEL | flag) is None
    assert not asked and memory.path.oom_count == 0


def test_a_victim_is_asked_and_what_it_gives_back_is_used() -> None:
    told: list[OutOfMemory] = []

    def victim(info: OutOfMemory) -> bool:
        told.append(info)
        memory.release(17)
        return True

    memory = Memory(oom=victim)
    memory.fill(leave=0)
    assert get(memory) is not None
    assert told == [OutOfMemory("z", "a", "user", 4096, 0, 0, KERNEL)]
    assert memory.events[-3:] == ["oom", "victim", "wake"]


def test_a_victim_that_breaks_its_word_is_waited_for_once() -> None:
    memory = Memory(oom=lambda info: True)
    memory.fill(leave=0)
    asked = ask(memory)
    asked.to_park()
    assert isinstance(asked.request, Park) and asked.request.timeout_s == GRACE_S
    with pytest.raises(NoMemory, match=r"z.*'user'.*0B of 512KiB are open, 64KiB must stay"):
        asked.answer(False)
    with pytest.raises(NoMemory):
        through(ask(full(lambda info: False)))


def full(oom: Any) -> Memory:
    memory = Memory(oom=oom)
    memory.fill(leave=0)
    return memory


def test_who_may_not_call_code_above_does_not_ask_a_victim() -> None:
    memory = full(lambda info: pytest.fail("it was asked"))
    with pytest.raises(NoMemory):
        get(memory, Gfp.NOFS)


def test_newcomers_are_refused_while_others_wait_and_until_there_is_room() -> None:
    memory = full(Oom.REFUSE)
    first = ask(memory)
    first.to_park()
    memory.events.clear()
    assert get(memory) is None
    assert memory.events == [TRY_LOW, "refuse"]
    assert get(memory, Gfp.ATOMIC) is None and memory.events[-1] != "refuse", "the urgent may try"
    memory.release(60)
    first.finish()
    assert first.result is not None
    memory.events.clear()
    assert get(memory) is not None and "refuse" not in memory.events
    memory.fill(leave=0)
    assert get(memory, KERNEL | Gfp.NORETRY) is None
    assert "refuse" not in memory.events, "there was room again: newcomers may try"


def test_one_judgement_at_a_time_and_the_loser_tries_again() -> None:
    memory = full(Oom.REFUSE)
    first, second = ask(memory), step(memory.path.alloc(memory.share, KERNEL, 0, "b"))
    first.to_park()
    assert second.done and second.result is None, "refused at the door"
    memory = full(lambda info: True)
    first = ask(memory)
    first.to_park()
    second = step(memory.path.alloc(memory.share, KERNEL, 0, "b"))
    second.to_park()
    assert isinstance(second.request, Park) and second.request.timeout_s == TICK_S
    memory.release(18)
    first.finish()
    second.finish()
    assert first.result is not None and second.result is not None


def test_a_closed_share_ends_the_request() -> None:
    memory = full(Oom.FAIL)
    asked = ask(memory, KERNEL | Gfp.NOFAIL)
    asked.to_park()
    memory.share.close()
    with pytest.raises(PoolClosed):
        asked.answer(True)


def test_look() -> None:
    memory = Memory()
    assert repr(memory.path) == (
        "<SlowPath of 'z': 0 direct runs, 0 throttled, 0 times out of memory, policy fail>"
    )
    assert repr(memory.path.reclaim) == (
        "<Reclaim: 0 shrinkers, 0 pages freed, 0 direct runs, deepest 0>"
    )
