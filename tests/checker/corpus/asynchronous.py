"""Coroutines, alone and beside plain functions."""

import headway as hw
from headway import aio


async def nested(pool):
    face = aio.Mempool(pool)
    async with face.lease(), face.lease():
        pass


async def single(pool):
    async with aio.Mempool(pool).lease():
        pass


async def in_bulk(pool):
    face = aio.Mempool(pool)
    taken = await face.alloc_bulk(2)
    face.free_bulk(taken)


def plain(pool):
    with pool.lease(), pool.lease():
        pass


async def gives_up(pool):
    face = aio.Mempool(pool)
    first = await face.alloc()
    try:
        face.free(await face.alloc(timeout_s=1.0))
    except hw.PoolTimeout:
        pass
    face.free(first)


async def tries(pool):
    face = aio.Mempool(pool)
    first = await face.alloc()
    second = await face.alloc(hw.Gfp.NOWAIT)
    if second is not None:
        face.free(second)
    face.free(first)


async def forgets(pool):
    await aio.Mempool(pool).alloc()


async def both(first, second):
    async with aio.Mempool(first).lease(), aio.Mempool(second).lease():
        pass


async def serves(pool):
    face = aio.Mempool(pool)
    while True:
        async with face.lease():
            pass


def run(size, *fns):
    pool = hw.Mempool.of(range(size), name="limiter")
    for fn in fns:
        hw.spawn(fn, pool)


def deadlock_two_coroutines_nest():
    run(2, nested, nested)


def ok_two_coroutines_nest_in_three():
    run(3, nested, nested)


def deadlock_a_coroutine_and_a_function():
    run(2, nested, plain)


def ok_a_coroutine_and_a_function_in_three():
    run(3, nested, plain)


def ok_coroutines_in_turn():
    run(1, single, single, single)


def ok_coroutines_in_bulk():
    run(2, in_bulk, in_bulk, single)


def ok_coroutines_give_up():
    run(2, gives_up, gives_up)


def ok_coroutines_try():
    run(1, tries, tries)


def leak_a_coroutine_forgets():
    run(2, forgets, single)


def ok_coroutines_serve():
    run(1, serves, serves)


def deadlock_coroutines_cross():
    a, b = hw.Mempool.of(range(1), name="a"), hw.Mempool.of(range(1), name="b")
    hw.spawn(both, a, b)
    hw.spawn(both, b, a)


def ok_coroutines_keep_an_order():
    a, b = hw.Mempool.of(range(1), name="a"), hw.Mempool.of(range(1), name="b")
    hw.spawn(both, a, b)
    hw.spawn(both, a, b)
