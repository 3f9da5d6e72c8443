"""The driver for threads."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

from headway.core.mm.gfp import Gfp, Scope
from headway.core.plan import Plan
from headway.runtimes import scopes
from headway.runtimes.threads import THREADS
from headway.threaded import Mempool
from tests.runtimes.conformance import Conformance, Driver


class OnThreads(Driver):
    runtime = THREADS
    cancelled = KeyboardInterrupt

    def run(self, *plans: Plan[Any]) -> list[Any]:
        if len(plans) == 1:
            return [THREADS.run(plans[0])]
        ended: dict[int, Any] = {}

        def work(number: int, plan: Plan[Any]) -> None:
            ended[number] = THREADS.run(plan)

        threads = [threading.Thread(target=work, args=item) for item in enumerate(plans)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [ended[number] for number in range(len(plans))]

    def cancel(
        self, plan: Plan[Any], when: Callable[[], bool], *others: Plan[Any]
    ) -> BaseException:
        """Nothing cancels a thread but an interrupt from the keyboard."""
        main = threading.get_ident()
        over = threading.Event()

        def interrupt() -> None:
            while not when():
                if over.wait(0.001):
                    return
            signal.pthread_kill(main, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            THREADS.run(plan)
        except BaseException as error:
            return error
        finally:
            over.set()
            thread.join()
        raise AssertionError("it was not cancelled")


class TestThreads(Conformance):
    make = OnThreads


def test_t2_2_a_scope_belongs_to_its_thread() -> None:
    seen: list[int] = []
    with scopes.noio():
        thread = threading.Thread(target=lambda: seen.append(scopes.current()))
        thread.start()
        thread.join()
        carried = threading.Thread(target=scopes.carry(lambda: seen.append(scopes.current())))
        carried.start()
        carried.join()
    assert seen == [0, Scope.NOIO]


def test_an_allocator_is_called_under_its_requesters_scope() -> None:
    seen: list[tuple[Gfp, Gfp]] = []

    def allocate(gfp: Gfp) -> object:
        seen.append((gfp & Gfp.KERNEL, scopes.effective()))
        return object()

    pool: Mempool[object] = Mempool(alloc=allocate, min_count=1)
    with scopes.noio():
        pool.alloc_preallocated()
        pool.alloc()
    assert seen == [(Gfp.KERNEL, Gfp.KERNEL), (Gfp.NOIO, Gfp.NOIO)]


def test_free_in_a_signal_handler_that_interrupted_the_guards_holder() -> None:
    """The holder looks again after letting go: the waiter is served, and nothing waits for itself."""
    pool = Mempool.of("x")
    pool.alloc()
    got: list[str] = []
    thread = threading.Thread(target=lambda: got.append(pool.alloc()))
    thread.start()
    while not pool.waiters:
        pass
    old = signal.signal(signal.SIGUSR1, lambda *_: pool.free("x"))
    try:
        with pool._guard:
            signal.raise_signal(signal.SIGUSR1)
            assert pool.waiters == 1
        pool._settle()  # as every holder does
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert got == ["x"] and pool.outstanding == 1
