"""T10: the maps of reclaim and completion, on headway's own pools: found before memory is ever short."""

import queue
import threading

import pytest

import headway as hw
from headway import watch
from headway.watch.finding import text
from headway.watch.maps import Maps


@pytest.fixture
def session():
    with watch.watching() as session:
        yield session


def kinds(session):
    return [(finding.kind, finding.severity) for finding in session.findings()]


def zone_pool():
    return hw.Mempool(alloc=lambda gfp: bytearray(8), free=lambda element: None, name="frames")


def allocate_under(lock, pool):
    with lock, pool.lease():
        pass


def shrink(maps, lock):
    with maps.reclaiming(), lock:
        pass


def test_T10_1_a_cycle_from_two_runs_that_never_overlapped(session):
    lock, pool, maps = threading.Lock(), zone_pool(), Maps(session.ledger)
    allocate_under(lock, pool)
    assert kinds(session) == []
    shrink(maps, lock)
    found = session.findings()
    assert [(f.kind, f.severity) for f in found] == [
        ("reclaim-recursion", "risk")
    ] * 2  # fs, and io
    frames = [line for lines in found[0].stacks.values() for line in lines]
    assert any("in allocate_under" in line for line in frames)
    assert any("in shrink" in line for line in frames)


@pytest.mark.parametrize("scope", [hw.nofs, hw.noio])
def test_T10_2_no_report_under_a_scope(session, scope):
    lock, pool, maps = threading.Lock(), zone_pool(), Maps(session.ledger)
    with scope():
        allocate_under(lock, pool)
    with maps.reclaiming(io=scope is hw.noio), lock:
        pass
    assert kinds(session) == []


def test_T10_2_the_map_for_io_sees_what_nofs_leaves(session):
    """Blind spot 1 of fs_reclaim: I/O without FS touches no map there."""
    lock, pool, maps = threading.Lock(), zone_pool(), Maps(session.ledger)
    with hw.nofs():
        allocate_under(lock, pool)
    with maps.reclaiming(fs=False), lock:
        pass
    assert [f.pool for f in session.findings() if "io_reclaim" in f.pool]


def test_T10_2_no_report_for_a_try(session):
    lock, pool, maps = threading.Lock(), zone_pool(), Maps(session.ledger)
    allocate_under(lock, pool)
    with maps.reclaiming():
        assert lock.acquire(blocking=False)
        lock.release()
    assert kinds(session) == []
    other = threading.Lock()
    with other:
        pool.free(pool.try_alloc())
    shrink(maps, other)
    assert kinds(session) == []


def test_T10_2_no_report_for_reclaim_itself(session):
    lock, pool, maps = threading.Lock(), zone_pool(), Maps(session.ledger)
    shrink(maps, lock)
    with hw.noreclaim():
        allocate_under(lock, pool)
    assert kinds(session) == []


@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize("kind", ["mempool", "buffers", "slab", "budget"])
def test_T10_2_no_report_of_what_is_marked_NOLOCKDEP(session, kind, hidden):
    """Whoever knows better hides the allocation from the maps; the pool itself is watched all the same."""
    mask = hw.Gfp.KERNEL | hw.Gfp.NOLOCKDEP if hidden else hw.Gfp.KERNEL
    lock, maps = threading.Lock(), Maps(session.ledger)
    with hw.Zone("1MiB") as zone:
        makes = {
            "mempool": lambda: hw.Mempool(zone.buffers("4KiB"), name="frames"),
            "buffers": lambda: zone.buffers("4KiB"),
            "slab": lambda: hw.Slab(zone, 200),
            "budget": lambda: hw.Budget(4, name="bytes"),
        }
        pool = makes[kind]()
        with lock:
            if kind == "budget":
                pool.alloc(1, mask)
                pool.free(1)
            else:
                pool.free(pool.alloc(mask))
        shrink(maps, lock)
        if kind != "buffers":
            pool.close()
    assert {kind for kind, _ in kinds(session)} == (set() if hidden else {"reclaim-recursion"})


def test_T10_2_NOLOCKDEP_hides_no_nesting(session):
    pool = hw.Mempool.of(range(2), name="bio")
    taken = [pool.alloc(hw.Gfp.KERNEL | hw.Gfp.NOLOCKDEP) for _ in range(2)]
    for element in taken:
        pool.free(element)
    assert kinds(session) == [("nested", "warning")]


@pytest.mark.parametrize("tries", [True, False])
def test_T10_1_a_lock_of_a_shrinker_held_over_an_object_of_a_slab(session, tries):
    with hw.Zone("1MiB") as zone:
        lock = threading.Lock()
        registered = zone.register_shrinker(Shrinker(lock, tries=tries), name="mine")
        slab = hw.Slab(zone, 200, name="headers")
        with lock:
            header = slab.alloc()
        zone.reclaim("4KiB")
        slab.free(header)
        registered.unregister()
        slab.close()
    assert {kind for kind, _ in kinds(session)} == (set() if tries else {"reclaim-recursion"})


@pytest.mark.parametrize("limit", [None, 60])
@pytest.mark.parametrize("what", ["event", "queue"])
def test_a_wait_inside_a_shrinker(session, what, limit):
    """Whoever is to end it may be waiting for memory; with a time limit it ends all the same."""
    event, line = threading.Event(), queue.Queue()

    class Waiting:
        def count_objects(self, control):
            return 1

        def scan_objects(self, control):
            if what == "event":
                event.wait(limit)
            else:
                line.get(timeout=limit)
            return 1

    def end():
        while not session.ledger.waits:
            pass
        event.set()
        line.put(None)

    with hw.Zone("1MiB") as zone:
        registered = zone.register_shrinker(Waiting(), name="mine")
        thread = threading.Thread(target=end)
        thread.start()
        zone.reclaim("4KiB")
        thread.join()
        registered.unregister()
    expected = [] if limit else [("wait-in-shrinker", "warning")]
    assert kinds(session) == expected
    if not limit:
        frames = [line for lines in session.findings()[0].stacks.values() for line in lines]
        assert any("in scan_objects" in line for line in frames)


@pytest.mark.parametrize("what", ["slab", "buffers", "pool"])
def test_what_a_shrinker_allocates_does_not_reclaim(session, what):
    """It runs under noreclaim(): its own allocations may fail, and cannot come back to it."""
    with hw.Zone("1MiB") as zone:
        buffers = zone.buffers("4KiB")
        source = hw.Slab(zone, 200) if what == "slab" else buffers
        if what == "pool":
            source = hw.Mempool(buffers, name="frames")

        class Allocating:
            def count_objects(self, control):
                return 1

            def scan_objects(self, control):
                source.free(source.alloc())
                return 1

        registered = zone.register_shrinker(Allocating(), name="mine")
        zone.reclaim("4KiB")
        registered.unregister()
        if what != "buffers":
            source.close()
    assert kinds(session) == []


def test_T10_3_two_of_one_pool_and_the_cure(session):
    """E-003: two mappers take two each, of two; what is in flight comes back by itself."""
    pool = hw.Mempool.of(range(2), name="bio")
    one, two = pool.alloc(), pool.alloc()
    pool.free(one)
    pool.free(two)
    assert kinds(session) == [("nested", "warning")]
    assert session.findings()[0].hangs_from == 2


def test_T10_3_the_cured_twin_is_silent(session):
    pool = hw.Mempool.of(range(2), name="bio")
    one = pool.alloc()
    pool.hand_over(one)
    two = pool.alloc()
    pool.hand_over(two)
    pool.free(one)
    pool.free(two)
    assert kinds(session) == []


def test_T10_4_a_completion_that_waits_for_what_its_waiters_hold(session):
    """E-002: the end of write-back needs a lock that is held by those who wait for write-back."""
    lock, maps = threading.Lock(), Maps(session.ledger)
    with lock:
        maps.wait_for("writeback")
    with maps.completing("writeback"), lock:
        pass
    assert kinds(session) == [("reclaim-recursion", "risk")]


def test_T10_5_priming_reports_the_first_wrong_allocation(session):
    lock, maps = threading.Lock(), Maps(session.ledger)
    shrink(maps, lock)  # at start, before memory is ever short
    pool = zone_pool()
    allocate_under(lock, pool)
    assert {kind for kind, _ in kinds(session)} == {"reclaim-recursion"}


class Shrinker:
    """A cache of the program's own, whose lock its shrinker takes."""

    def __init__(self, lock, *, tries=False):
        self.lock, self.tries = lock, tries

    def count_objects(self, control):
        return 4

    def scan_objects(self, control):
        if self.lock.acquire(blocking=not self.tries):
            self.lock.release()
        return 0


@pytest.mark.parametrize("tries", [False, True])
def test_T10_1_a_lock_of_a_real_shrinker_held_over_an_allocation(session, tries):
    with hw.Zone("1MiB") as zone:
        lock = threading.Lock()
        registered = zone.register_shrinker(Shrinker(lock, tries=tries), name="mine")
        pool = hw.Mempool(zone.buffers("4KiB"), name="frames")
        allocate_under(lock, pool)
        zone.reclaim("4KiB")  # nothing was short, and the two never overlapped
        registered.unregister()
        pool.close()
    found = {kind for kind, _ in kinds(session)}
    assert found == (set() if tries else {"reclaim-recursion"})
    if not tries:
        frames = [line for lines in session.findings()[0].stacks.values() for line in lines]
        assert any("in scan_objects" in line for line in frames)
        assert any("in allocate_under" in line for line in frames)


@pytest.mark.parametrize("mask", [hw.Gfp.KERNEL, hw.Gfp.NOIO])
def test_T10_2_buffers_of_a_zone_by_themselves_follow_their_mask(session, mask):
    with hw.Zone("1MiB") as zone:
        lock = threading.Lock()
        registered = zone.register_shrinker(Shrinker(lock), name="mine")
        buffers = zone.buffers("4KiB")
        with lock:
            buffers.free(buffers.alloc(mask))
        zone.reclaim("4KiB")
        registered.unregister()
    found = {kind for kind, _ in kinds(session)}
    assert found == ({"reclaim-recursion"} if mask == hw.Gfp.KERNEL else set())


@pytest.mark.parametrize("under_lock", [True, False])
def test_T10_4_a_write_back_that_takes_what_is_held_over_a_dirty_put(session, under_lock):
    """E-002 on a real cache: who makes a value dirty may wait for write-back, which needs his lock."""
    lock, written = threading.Lock(), []

    def write(key, value):
        with lock:
            written.append(key)

    def put(cache, key):
        if under_lock:
            with lock:
                cache.put(key, bytes(100), dirty=True)
        else:
            cache.put(key, bytes(100), dirty=True)

    with hw.Zone("1MiB") as zone:
        cache = hw.ShrinkableCache(zone, cost=len, write_back=write)
        put(cache, "a")
        cache.flush()
        cache.close()
    assert "a" in written
    assert kinds(session) == ([("reclaim-recursion", "risk")] if under_lock else [])
    if under_lock:
        assert "where that is completed" in session.findings()[0].remedy


@pytest.mark.parametrize("under_lock", [True, False])
def test_a_reclaimer_of_a_budget_that_takes_what_is_held_over_a_charge(session, under_lock):
    lock = threading.Lock()

    def reclaim(units):
        with lock:
            budget.free(units)
            return units

    budget = hw.Budget(4, name="bytes", reclaim=reclaim)
    if under_lock:
        with lock:
            budget.alloc(1)
        budget.free(1)
    budget.alloc(4)
    budget.alloc(2)  # two of the four are given up
    budget.free(4)
    found = {kind for kind, _ in kinds(session)} - {"nested"}
    # the second: reclaim runs while all four units are held, and the lock is held while one is waited for
    assert found == ({"reclaim-recursion", "opposite-orders"} if under_lock else set())


@pytest.mark.parametrize("own", [False, True])
def test_T10_3_a_second_bio_of_one_set_below_oneself(session, own):
    """E-RESCUE: a stacked driver takes a bio while the one above it is held back; cured by a set for each level."""
    upper = hw.Mempool.of(range(4), name="bio")
    lower = hw.Mempool.of(range(4), name="bio below") if own else upper

    def below():
        with lower.lease():
            pass

    with upper.lease():
        below()
    assert [(f.kind, f.hangs_from) for f in session.findings()] == ([] if own else [("nested", 4)])


def test_T10_3_two_charges_of_one_budget_and_the_cure(session):
    budget = hw.Budget(10, name="bytes")
    budget.alloc(4)
    budget.alloc(4)
    budget.free(3)
    budget.free(5)
    assert [(f.kind, f.severity, f.hangs_from) for f in session.findings()] == [
        ("nested", "warning", 2)  # two that hold 4 of 10 each, and wait for 4 more
    ]
    assert session.ledger.current().held == []


def test_T10_3_both_at_once_are_silent(session):
    budget = hw.Budget(10, name="bytes")
    with budget.lease(8):
        pass
    for _ in range(3):
        budget.alloc(4)
        budget.free(4)
    assert kinds(session) == []


def test_T10_6_the_text_is_the_same_each_time():
    said = []
    for _ in range(2):
        with watch.watching() as session:
            lock, pool, maps = threading.Lock(), zone_pool(), Maps(session.ledger)
            allocate_under(lock, pool)
            shrink(maps, lock)
        said.append([text(finding.json()) for finding in session.findings()])
    assert said[0] == said[1] != []


def test_T10_6_not_watching_leaves_nothing_behind():
    before = (threading.Lock, threading.Semaphore.acquire, threading.Event.wait, hw.threaded._show)
    with watch.watching():
        assert threading.Lock is not before[0]
    after = (threading.Lock, threading.Semaphore.acquire, threading.Event.wait, hw.threaded._show)
    assert after == before
