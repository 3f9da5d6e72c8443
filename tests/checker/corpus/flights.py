"""What is in flight, what is kept, what is wrong with the code itself; and pools over allocators."""

import threading

import headway as hw


def completes(pool, element):
    pool.free(element)


def submits_each(pool):
    for _ in range(2):
        element = pool.alloc()
        pool.hand_over(element)
        hw.spawn(completes, pool, element)


def ok_each_is_in_flight_before_the_next():
    pool = hw.Mempool.of(range(1), name="bio")
    hw.spawn(submits_each, pool)
    hw.spawn(submits_each, pool)


def collects_and_submits(pool):
    taken = [pool.alloc(), pool.alloc()]
    for element in taken:
        pool.hand_over(element)
        hw.spawn(completes, pool, element)


def deadlock_collected_before_any_is_in_flight():
    pool = hw.Mempool.of(range(2), name="bio")
    hw.spawn(collects_and_submits, pool)
    hw.spawn(collects_and_submits, pool)


def ok_collected_with_room():
    pool = hw.Mempool.of(range(3), name="bio")
    hw.spawn(collects_and_submits, pool)
    hw.spawn(collects_and_submits, pool)


def completes_through(pool, other, element):
    """The completion itself needs something that the submitters hold."""
    with other.lease():
        pool.free(element)


def submits_and_holds(pool, other):
    with other.lease():
        element = pool.alloc()
        pool.hand_over(element)
        hw.spawn(completes_through, pool, other, element)
        pool.free(pool.alloc())


def deadlock_the_completion_needs_what_waits_for_it():
    pool, other = hw.Mempool.of(range(1), name="bio"), hw.Mempool.of(range(1), name="memory")
    hw.spawn(submits_and_holds, pool, other)


def ok_the_completion_has_room():
    pool, other = hw.Mempool.of(range(1), name="bio"), hw.Mempool.of(range(2), name="memory")
    hw.spawn(submits_and_holds, pool, other)


def leak_never_completed():
    pool = hw.Mempool.of(range(2), name="bio")
    pool.hand_over(pool.alloc())


def forgets(pool):
    pool.alloc()


def leak_forgotten():
    pool = hw.Mempool.of(range(3), name="bio")
    hw.spawn(forgets, pool)
    hw.spawn(forgets, pool)


def deadlock_forgotten_and_then_missed():
    pool = hw.Mempool.of(range(1), name="bio")
    hw.spawn(forgets, pool)
    hw.spawn(forgets, pool)


def error_freed_twice():
    pool = hw.Mempool.of(range(2), name="bio")
    element = pool.alloc()
    pool.free(element)
    pool.free(element)


def divides(pool):
    with pool.lease() as element:
        1 // element


def error_in_the_code_itself():
    hw.spawn(divides, hw.Mempool.of([0], name="bio"))


def takes_two(pool):
    first = pool.alloc()
    second = pool.alloc()
    pool.free(second)
    pool.free(first)


def over_an_allocator(reserve, *fns, **options):
    pool = hw.Mempool(alloc=object, min_count=reserve, name="bio", **options)
    for fn in fns:
        hw.spawn(fn, pool)


def deadlock_when_the_allocator_fails():
    over_an_allocator(2, takes_two, takes_two)


def ok_when_the_allocator_fails_the_reserve_does():
    over_an_allocator(3, takes_two, takes_two)


def ok_one_element_in_reserve_for_many():
    def single(pool):
        with pool.lease():
            pass

    over_an_allocator(1, single, single, single)


def error_a_raw_lock():
    pool = hw.Mempool.of(range(1), name="bio")
    with threading.Lock(), pool.lease():
        pass


def two_then_one(pool):
    held = pool.alloc_bulk(2)
    held.append(pool.alloc())
    pool.free_bulk(held)


def deadlock_when_the_allocator_works():
    over_an_allocator(3, two_then_one, two_then_one, wake=hw.Wake.ANY_FIT)


def branch(pool):
    """Which element it got decides what it does: schedules differ by more than counts."""
    element = pool.alloc()
    if element == 1:
        other = pool.alloc()
        pool.free(other)
    pool.free(element)


def ok_only_one_element_makes_trouble():
    pool = hw.Mempool.of(range(2), name="bio")
    hw.spawn(branch, pool)
    hw.spawn(branch, pool)
