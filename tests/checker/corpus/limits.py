"""Time limits, tries that may come to nothing, and loops that never end."""

import headway as hw


def slot(size, *fns, wake=hw.Wake.FIFO):
    pool = hw.Mempool.of(range(size), name="slots", wake=wake)
    for fn in fns:
        hw.spawn(fn, pool)


def serves(pool):
    while True:
        with pool.lease():
            pass


def nested(pool):
    with pool.lease(), pool.lease():
        pass


def unwinds(pool):
    first = pool.alloc()
    second = pool.try_alloc()
    if second is not None:
        pool.free(second)
    pool.free(first)


def ok_a_second_that_may_fail():
    slot(1, unwinds, unwinds, unwinds)


def gives_up(pool):
    first = pool.alloc()
    try:
        second = pool.alloc(timeout_s=1.0)
    except hw.PoolTimeout:
        pool.free(first)
        return
    pool.free(second)
    pool.free(first)


def ok_a_second_with_a_time_limit():
    slot(2, gives_up, gives_up)


def gives_up_and_forgets(pool):
    first = pool.alloc()
    try:
        second = pool.alloc(timeout_s=1.0)
    except hw.PoolTimeout:
        return
    pool.free(second)
    pool.free(first)


def leak_after_a_timeout():
    slot(2, gives_up_and_forgets, gives_up_and_forgets)


def forgets_if_busy(pool):
    first = pool.alloc()
    second = pool.try_alloc()
    if second is None:
        return
    pool.free(second)
    pool.free(first)


def leak_on_the_busy_path():
    slot(2, forgets_if_busy, forgets_if_busy)


def starts_over(pool):
    while True:
        first = pool.alloc()
        second = pool.try_alloc()
        if second is not None:
            break
        pool.free(first)
    pool.free(second)
    pool.free(first)


def livelock_both_start_over():
    slot(2, starts_over, starts_over)


def ok_both_start_over_with_one_more():
    slot(3, starts_over, starts_over)


def starts_over_after_a_timeout(pool):
    while True:
        first = pool.alloc()
        try:
            second = pool.alloc(timeout_s=1.0)
        except hw.PoolTimeout:
            pool.free(first)
            continue
        break
    pool.free(second)
    pool.free(first)


def livelock_both_time_out_and_start_over():
    slot(2, starts_over_after_a_timeout, starts_over_after_a_timeout)


def polls(pool):
    while (element := pool.try_alloc()) is None:
        pass
    pool.free(element)


def ok_pollers_among_themselves():
    slot(1, polls, polls)


def starvation_a_poller_among_servers():
    slot(1, polls, serves)


def ok_servers():
    slot(1, serves, serves, serves)


def pair(pool):
    pool.free_bulk(pool.alloc_bulk(2))


def starvation_a_pair_as_they_fit():
    slot(2, serves, serves, pair, wake=hw.Wake.ANY_FIT)


def ok_a_pair_in_order():
    slot(2, serves, serves, pair)


def serves_nested(pool):
    while True:
        with pool.lease(), pool.lease():
            pass


def deadlock_servers_that_nest():
    slot(2, serves_nested, serves_nested)


def ok_servers_that_nest_with_one_more():
    slot(3, serves_nested, serves_nested)


def deadlock_two_beside_servers_of_another_pool():
    other = hw.Mempool.of(range(1), name="other")
    slot(2, nested, nested)
    hw.spawn(serves, other)


def times_out(pool):
    pool.free(pool.alloc(timeout_s=5.0))


def holds_for_ever(pool):
    pool.hand_over(pool.alloc())


def error_nobody_catches_the_timeout():
    pool = hw.Mempool.of(range(1), name="slots")
    pool.hand_over(pool.alloc())
    hw.spawn(times_out, pool)


def ok_a_time_limit_as_a_watchdog():
    slot(1, times_out, times_out)
