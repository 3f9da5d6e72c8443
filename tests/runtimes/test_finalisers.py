"""The two deadlocks of the field, shown and cured: a collection in a pool's critical section."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headway.runtimes.finalisers import NoFinalisers, nofinalisers, put_off


@pytest.fixture(autouse=True)
def eager_collector() -> Iterator[None]:
    """A collection at nearly every allocation, as a busy program has it sooner or later."""
    before = gc.get_threshold(), gc.isenabled()
    gc.collect()
    gc.set_threshold(1, 1, 1)
    gc.enable()
    yield
    gc.set_threshold(*before[0])
    if not before[1]:
        gc.disable()


class Pool:
    """A pool of the usual kind: one lock, which `release` wants too. It notes what would have hung."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.owner: int | None = None
        self.free: list[int] = [1]
        self.hung = 0

    def release(self, connection: int) -> None:
        if self.owner == threading.get_ident():
            self.hung += 1  # here the real ones wait for themselves
            return
        with self.lock:
            self.free.append(connection)

    def get(self, inside: Callable[[], object] = gc.isenabled) -> int:
        with self.lock:
            self.owner = threading.get_ident()
            inside()
            allocate()
            taken = self.free.pop()
            self.owner = None
        return taken


class Client:
    """Holds a connection, and is in a cycle, as clients are."""

    def __init__(self, pool: Any) -> None:
        self.pool, self.me = pool, self

    def __del__(self) -> None:
        self.pool.release(7)


class PutOff(Client):
    @put_off
    def __del__(self) -> None:
        self.pool.release(7)


def allocate() -> None:
    """Enough containers that the collector comes by, if it is on."""
    kept = [[number] for number in range(5000)]
    assert len(kept) == 5000


def test_without_a_scope_the_collector_re_enters_the_pool() -> None:
    pool = Pool()
    gc.disable()  # until the pool is entered: garbage may lie about as long as it likes
    Client(pool)
    pool.get(gc.enable)
    assert pool.hung == 1, "redis-py #2883: release, inside get, on the same thread"


def test_in_a_scope_it_comes_afterwards() -> None:
    pool = Pool()
    with nofinalisers():
        Client(pool)
        pool.get()
        assert pool.hung == 0 and pool.free == []
    allocate()
    assert pool.hung == 0 and pool.free == [7]


def test_what_is_put_off_waits_for_the_safe_point_even_by_reference_count() -> None:
    pool = Pool()
    client: Any = PutOff(pool)
    client.me = None
    with nofinalisers():
        with pool.lock:
            pool.owner = threading.get_ident()
            del client
            gc.collect()  # and by somebody who collects in spite of us
            pool.owner = None
        assert pool.free == [1]
    assert (pool.hung, pool.free) == (0, [1, 7])


def test_the_io_thread_s_shape() -> None:
    """dask #7547: a finaliser on the I/O thread needs the lock of who waits for that thread."""
    library, served, asked = threading.Lock(), threading.Event(), threading.Event()
    freed: list[str] = []

    @put_off
    def free() -> None:
        with library:
            freed.append("freed")

    def serve() -> None:
        asked.wait(60)
        with nofinalisers():  # one step of I/O
            free()
            served.set()

    io = threading.Thread(target=serve)
    io.start()
    with library:
        asked.set()
        assert served.wait(60), "the I/O thread waits for the lock we hold"
    io.join(60)
    assert freed == ["freed"]


def test_scopes_nest_and_restore_what_was() -> None:
    assert isinstance(nofinalisers(), NoFinalisers)
    with nofinalisers():
        with nofinalisers():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    with nofinalisers():
        pass
    assert not gc.isenabled(), "who had it off keeps it off"


def test_calls_put_off_run_once_in_order_and_at_once_elsewhere() -> None:
    done: list[int] = []
    note = put_off(done.append)
    note(0)
    with nofinalisers():
        note(1)
        with nofinalisers():
            note(2)
        elsewhere = threading.Thread(target=note, args=(3,))
        elsewhere.start()
        elsewhere.join()
        assert done == [0, 3], "another thread holds nothing of ours"
    assert done == [0, 3, 1, 2]


def test_one_that_raises_is_reported_and_the_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    done: list[int] = []

    @put_off
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(ValueError, match="the block's own"):
        with nofinalisers():
            fail()
            put_off(done.append)(1)
            raise ValueError("the block's own")
    assert done == [1] and [one.exc_type for one in said] == [KeyError]
    assert gc.isenabled()


def test_many_threads_leave_it_as_it_was() -> None:
    off: list[bool] = []

    def work() -> None:
        for _ in range(200):
            with nofinalisers():
                off.append(not gc.isenabled())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(off) and len(off) == 800 and gc.isenabled()
