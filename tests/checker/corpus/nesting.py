"""One pool, taken again while some of it is held: nested checkouts and their cures."""

import headway as hw


def takes(pool, count):
    taken = [pool.alloc() for _ in range(count)]
    for element in taken:
        pool.free(element)


def nested(pool):
    with pool.lease(), pool.lease():
        pass


def single(pool):
    with pool.lease():
        pass


def twice_in_turn(pool):
    with pool.lease():
        pass
    with pool.lease():
        pass


def crowd(size, *counts):
    pool = hw.Mempool.of(range(size), name="connections")
    for count in counts:
        hw.spawn(takes, pool, count)


def deadlock_two_nested_in_two():
    crowd(2, 2, 2)


def ok_two_nested_in_three():
    crowd(3, 2, 2)


def deadlock_five_nested_in_five():
    crowd(5, 2, 2, 2, 2, 2)


def ok_five_nested_in_six():
    crowd(6, 2, 2, 2, 2, 2)


def deadlock_a_chain_of_three():
    crowd(4, 3, 3)


def ok_a_chain_of_three():
    crowd(5, 3, 3)


def deadlock_mixed_depths():
    crowd(3, 3, 2, 1)


def ok_mixed_depths():
    crowd(4, 3, 2, 1)


def ok_nobody_nests():
    crowd(1, 1, 1, 1, 1)


def deadlock_alone_with_itself():
    crowd(1, 2)


def deadlock_scopes_nest():
    pool = hw.Mempool.of(range(2), name="sessions")
    hw.spawn(nested, pool)
    hw.spawn(nested, pool)
    hw.spawn(single, pool)


def ok_scopes_follow_each_other():
    pool = hw.Mempool.of(range(1), name="sessions")
    hw.spawn(twice_in_turn, pool)
    hw.spawn(twice_in_turn, pool)


def depth(pool, left):
    """Recursion: each level keeps its element."""
    with pool.lease():
        if left > 1:
            depth(pool, left - 1)


def deadlock_recursion():
    pool = hw.Mempool.of(range(3), name="frames")
    hw.spawn(depth, pool, 3)
    hw.spawn(depth, pool, 2)


def ok_recursion_with_room():
    pool = hw.Mempool.of(range(4), name="frames")
    hw.spawn(depth, pool, 3)
    hw.spawn(depth, pool, 2)


def per_level(outer, inner):
    with outer.lease(), inner.lease():
        pass


def ok_a_pool_for_each_level():
    outer, inner = hw.Mempool.of(range(2), name="outer"), hw.Mempool.of(range(1), name="inner")
    for _ in range(3):
        hw.spawn(per_level, outer, inner)


def gated(gate, pool):
    with gate.lease():
        takes(pool, 3)


def ok_a_gate_of_one_before_three_at_a_time():
    gate, pool = hw.Mempool.of(range(1), name="gate"), hw.Mempool.of(range(3), name="bio")
    for _ in range(4):
        hw.spawn(gated, gate, pool)


def deadlock_a_gate_of_two_before_three_at_a_time():
    gate, pool = hw.Mempool.of(range(2), name="gate"), hw.Mempool.of(range(4), name="bio")
    for _ in range(4):
        hw.spawn(gated, gate, pool)


def gate_inside(gate, pool):
    """The gate is taken after the first element: too late to help."""
    first = pool.alloc()
    with gate.lease():
        second = pool.alloc()
    pool.free(second)
    pool.free(first)


def deadlock_a_gate_that_is_not_outermost():
    gate, pool = hw.Mempool.of(range(1), name="gate"), hw.Mempool.of(range(2), name="bio")
    hw.spawn(gate_inside, gate, pool)
    hw.spawn(gate_inside, gate, pool)
