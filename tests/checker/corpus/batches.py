"""Requests of several at once, under FIFO and as they fit: where larger pools can be worse."""

import headway as hw

ANY_FIT = hw.Wake.ANY_FIT


def long(blocks):
    held = blocks.alloc_bulk(4)
    held.append(blocks.alloc())
    blocks.free_bulk(held)


def short(blocks):
    held = blocks.alloc_bulk(3)
    held.append(blocks.alloc())
    blocks.free_bulk(held)


def long_at_once(blocks):
    blocks.free_bulk(blocks.alloc_bulk(5))


def short_at_once(blocks):
    blocks.free_bulk(blocks.alloc_bulk(4))


def server(size, first, second, wake=hw.Wake.FIFO):
    blocks = hw.Mempool.of(range(size), name="blocks", wake=wake)
    hw.spawn(first, blocks)
    hw.spawn(second, blocks)


def ok_six_blocks_as_they_fit():
    server(6, long, short, ANY_FIT)


def deadlock_seven_blocks_as_they_fit():
    server(7, long, short, ANY_FIT)


def ok_eight_blocks_as_they_fit():
    server(8, long, short, ANY_FIT)


def deadlock_six_blocks_in_order():
    server(6, long, short)


def deadlock_seven_blocks_in_order():
    server(7, long, short)


def ok_eight_blocks_in_order():
    server(8, long, short)


def ok_seven_blocks_all_at_once():
    server(7, long_at_once, short_at_once, ANY_FIT)


def ok_five_blocks_all_at_once():
    server(5, long_at_once, short_at_once)


def error_more_at_once_than_there_are():
    server(4, long_at_once, short_at_once)


def one_and_one(pool):
    first = pool.alloc()
    second = pool.alloc()
    pool.free(second)
    pool.free(first)


def pair(pool):
    pool.free_bulk(pool.alloc_bulk(2))


def deadlock_in_order_behind_a_pair():
    server(2, one_and_one, pair)


def ok_past_the_pair_as_it_fits():
    server(2, one_and_one, pair, ANY_FIT)


def ok_in_order_with_one_more():
    server(3, one_and_one, pair)


def two_then_one(pool):
    held = pool.alloc_bulk(2)
    held.append(pool.alloc())
    pool.free_bulk(held)


def ok_three_is_safe():
    server(3, two_then_one, two_then_one, ANY_FIT)


def deadlock_four_is_not():
    server(4, two_then_one, two_then_one, ANY_FIT)


def gives_some_back(pool):
    held = pool.alloc_bulk(3)
    pool.free(held.pop())
    held.append(pool.alloc())
    pool.free_bulk(held)


def deadlock_what_was_given_back_is_gone():
    server(4, gives_some_back, gives_some_back)


def ok_what_was_given_back_can_be_had_again():
    server(5, gives_some_back, gives_some_back)
