"""Known bugs of pools, each beside a twin that does it right: what `test_gallery.py` checks.

Every function here takes no argument, makes its pools and spawns its tasks; it is checked as a
user's function would be.
"""

from __future__ import annotations

import headway as hw
from headway import aio
from tests.checker.corpus.flights import submits_each


def takes_two(pool):
    first = pool.alloc()
    second = pool.alloc()
    pool.free(second)
    pool.free(first)


def loop_of_2009():
    pool = hw.Mempool.of(range(2), name="bio")
    hw.spawn(takes_two, pool)
    hw.spawn(takes_two, pool)


def loop_of_2009_sized():
    pool = hw.Mempool.of(range(3), name="bio")
    hw.spawn(takes_two, pool)
    hw.spawn(takes_two, pool)


def loop_of_2009_submitting():
    pool = hw.Mempool.of(range(1), name="bio")
    hw.spawn(submits_each, pool)
    hw.spawn(submits_each, pool)


def takes_bulk(pool):
    pool.free_bulk(pool.alloc_bulk(2))


def loop_of_2009_in_bulk():
    pool = hw.Mempool.of(range(2), name="bio")
    hw.spawn(takes_bulk, pool)
    hw.spawn(takes_bulk, pool)


def unwinds(pool):
    first = pool.alloc()
    second = pool.try_alloc()
    if second is not None:
        pool.free(second)
    pool.free(first)


def loop_of_2009_unwinding():
    pool = hw.Mempool.of(range(2), name="bio")
    hw.spawn(unwinds, pool)
    hw.spawn(unwinds, pool)


def nested_checkout():
    pool = hw.Mempool.of(range(1), name="connections")
    with pool.lease(), pool.lease():
        pass


def nested_checkout_of_two_pools():
    outer = hw.Mempool.of(range(1), name="outer")
    inner = hw.Mempool.of(range(1), name="inner")
    with outer.lease(), inner.lease():
        pass


def takes_both(first, second):
    with first.lease(), second.lease():
        pass


def crossed_order():
    a = hw.Mempool.of(range(1), name="a")
    b = hw.Mempool.of(range(1), name="b")
    hw.spawn(takes_both, a, b)
    hw.spawn(takes_both, b, a)


def one_order():
    a = hw.Mempool.of(range(1), name="a")
    b = hw.Mempool.of(range(1), name="b")
    hw.spawn(takes_both, a, b)
    hw.spawn(takes_both, a, b)


def forgets(pool):
    pool.alloc()


def leak():
    pool = hw.Mempool.of(range(2), name="bio")
    hw.spawn(forgets, pool)


def leak_of_what_is_in_flight():
    pool = hw.Mempool.of(range(2), name="bio")
    pool.hand_over(pool.alloc())


def returns(pool):
    with pool.lease():
        pass


def no_leak():
    pool = hw.Mempool.of(range(2), name="bio")
    hw.spawn(returns, pool)


def three_in_line():
    pool = hw.Mempool.of(range(1), name="bio")
    for _ in range(3):
        hw.spawn(returns, pool)


def keeps_going(pool):
    for _ in range(3):
        pool.free(pool.alloc())


def partial():
    bio = hw.Mempool.of(range(2), name="bio")
    other = hw.Mempool.of(range(1), name="other")
    hw.spawn(takes_two, bio)
    hw.spawn(takes_two, bio)
    hw.spawn(keeps_going, other)


def goes_on_for_ever(pool):
    while True:
        pool.free(pool.alloc())


def partial_beside_an_endless_loop():
    bio = hw.Mempool.of(range(2), name="bio")
    other = hw.Mempool.of(range(1), name="other")
    hw.spawn(takes_two, bio)
    hw.spawn(takes_two, bio)
    hw.spawn(goes_on_for_ever, other)


def over_an_allocator():
    pool = hw.Mempool(alloc=object, min_count=2, name="bio")
    hw.spawn(takes_two, pool)
    hw.spawn(takes_two, pool)


def over_an_allocator_sized():
    pool = hw.Mempool(alloc=object, min_count=3, name="bio")
    hw.spawn(takes_two, pool)
    hw.spawn(takes_two, pool)


def pool_over_pool():
    inner = hw.Mempool.of(range(2), name="inner")
    outer = hw.Mempool(inner, min_count=1, name="outer")
    hw.spawn(returns, outer)
    hw.spawn(returns, outer)


def gives_up(pool):
    try:
        pool.free(pool.alloc(timeout_s=5.0))
    except hw.PoolTimeout:
        pass


def holds_long(pool, gate):
    element = pool.alloc()
    gate.alloc()
    pool.free(element)


def frees_the_gate(gate, element):
    gate.free(element)


def timed_wait():
    pool = hw.Mempool.of(range(1), name="bio")
    hw.spawn(gives_up, pool)
    hw.spawn(gives_up, pool)


def double_free():
    pool = hw.Mempool.of(range(2), name="bio", trace=True)
    element = pool.alloc()
    pool.free(element)
    pool.free(element)


def raises():
    raise KeyError("gone")


async def takes_two_async(pool):
    face = aio.Mempool(pool)
    async with face.lease(), face.lease():
        pass


def async_loop_of_2009():
    pool = hw.Mempool.of(range(2), name="bio")
    hw.spawn(takes_two_async, pool)
    hw.spawn(takes_two_async, pool)


def async_loop_of_2009_sized():
    pool = hw.Mempool.of(range(3), name="bio")
    hw.spawn(takes_two_async, pool)
    hw.spawn(takes_two_async, pool)


def appends(pool, order):
    element = pool.alloc()
    order.append(element)
    if len(order) == 2:
        pool.alloc()
    pool.free(element)


def shares_a_list():
    order = []
    pool = hw.Mempool.of(range(2), name="bio")
    hw.spawn(appends, pool, order)
    hw.spawn(appends, pool, order)


def keeps_if_it_is_the_first(pool, gate):
    element = pool.alloc()
    gate.free(gate.alloc())
    if element != 0:
        pool.free(element)


def depends_on_the_element():
    pool = hw.Mempool.of(range(2), name="bio")
    gate = hw.Mempool.of(range(1), name="gate")
    hw.spawn(keeps_if_it_is_the_first, pool, gate)
    hw.spawn(returns, pool)


def two_pools_of_one_name():
    hw.spawn(takes_both, hw.Mempool.of(range(1)), hw.Mempool.of(range(1)))


def gives_up_untidily(pool, other):
    element = other.alloc()
    try:
        pool.free(pool.alloc(timeout_s=5.0))
    except hw.PoolTimeout:
        return
    other.free(element)


def leak_on_timeout():
    pool = hw.Mempool.of(range(1), name="bio")
    other = hw.Mempool.of(range(1), name="other")
    hw.spawn(gives_up_untidily, pool, other)
    hw.spawn(returns, pool)


def times_out(pool):
    pool.free(pool.alloc(timeout_s=5.0))


def timeout_that_nobody_catches():
    pool = hw.Mempool.of(range(1), name="bio")
    pool.hand_over(pool.alloc())
    hw.spawn(times_out, pool)


def timeout_as_a_watchdog():
    pool = hw.Mempool.of(range(1), name="bio")
    hw.spawn(times_out, pool)
    hw.spawn(returns, pool)


def looks_first(pool):
    if pool.reserve_count > 1:
        pool.free(pool.alloc())
    else:
        pool.alloc()


def looks_before_it_takes():
    pool = hw.Mempool.of(range(2), name="bio")
    hw.spawn(looks_first, pool)
    hw.spawn(returns, pool)


def spawns_methods():
    pool = hw.Mempool.of(range(2), name="bio")
    for element in pool.alloc_bulk(2):
        pool.hand_over(element)
        hw.spawn(pool.free, element)


def cleans_up_with_an_error(pool):
    try:
        pool.alloc()
    finally:
        raise ValueError("on the way out")


def stuck_and_then_raises():
    pool = hw.Mempool.of(range(1), name="bio")
    pool.hand_over(pool.alloc())
    hw.spawn(cleans_up_with_an_error, pool)


_chance = __import__("random").Random(1)


def by_chance():
    pool = hw.Mempool.of(range(2), name="bio")
    for _ in range(3):
        hw.spawn(takes_two if _chance.random() < 0.5 else returns, pool)
