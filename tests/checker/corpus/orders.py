"""Several pools: the order in which they are taken, and who gives back what needs another."""

import headway as hw


def both(first, second):
    with first.lease(), second.lease():
        pass


def three(first, second, third):
    with first.lease(), second.lease(), third.lease():
        pass


def pools(**sizes):
    return [hw.Mempool.of(range(size), name=name) for name, size in sizes.items()]


def deadlock_crossed():
    a, b = pools(a=1, b=1)
    hw.spawn(both, a, b)
    hw.spawn(both, b, a)


def ok_one_order():
    a, b = pools(a=1, b=1)
    hw.spawn(both, a, b)
    hw.spawn(both, a, b)


def ok_crossed_with_room():
    a, b = pools(a=2, b=1)
    hw.spawn(both, a, b)
    hw.spawn(both, b, a)


def deadlock_a_ring_of_three():
    a, b, c = pools(a=1, b=1, c=1)
    hw.spawn(both, a, b)
    hw.spawn(both, b, c)
    hw.spawn(both, c, a)


def ok_a_ring_with_one_turned_round():
    a, b, c = pools(a=1, b=1, c=1)
    hw.spawn(both, a, b)
    hw.spawn(both, b, c)
    hw.spawn(both, a, c)


def ok_crossed_behind_a_gate():
    gate, a, b = pools(gate=1, a=1, b=1)
    hw.spawn(three, gate, a, b)
    hw.spawn(three, gate, b, a)


def request(threads, connections):
    """A handler holds a connection; giving it back takes a worker thread."""
    with threads.lease():
        connection = connections.alloc()
    with threads.lease():
        connections.free(connection)


def deadlock_the_release_needs_a_worker():
    threads, connections = pools(threads=2, connections=1)
    for _ in range(3):
        hw.spawn(request, threads, connections)


def ok_as_many_connections_as_workers_and_one_kept():
    threads, connections = pools(threads=2, connections=3)
    for _ in range(3):
        hw.spawn(request, threads, connections)


def request_with_a_kept_thread(threads, kept, connections):
    with threads.lease():
        connection = connections.alloc()
    with kept.lease():
        connections.free(connection)


def ok_one_thread_is_kept_for_releases():
    threads, kept, connections = pools(threads=2, kept=1, connections=1)
    for _ in range(3):
        hw.spawn(request_with_a_kept_thread, threads, kept, connections)


def parent(workers, done):
    """Holds a worker while its child, which needs one too, is to say that it is done."""
    with workers.lease():
        done.free(done.alloc())


def child(workers, done, token):
    with workers.lease():
        done.free(token)


def deadlock_a_parent_waits_for_its_child():
    workers, done = pools(workers=1, done=1)
    token = done.alloc()
    hw.spawn(child, workers, done, token)
    hw.spawn(parent, workers, done)


def ok_a_worker_more_than_parents():
    workers, done = pools(workers=2, done=1)
    token = done.alloc()
    hw.spawn(child, workers, done, token)
    hw.spawn(parent, workers, done)


def hand_over_hand(*chain):
    """Each next one before the last goes back."""
    held = None
    for pool in chain:
        element = pool.alloc()
        if held is not None:
            held[0].free(held[1])
        held = (pool, element)
    held[0].free(held[1])


def ok_hand_over_hand_in_one_order():
    a, b, c = pools(a=1, b=1, c=1)
    hw.spawn(hand_over_hand, a, b, c)
    hw.spawn(hand_over_hand, a, b, c)


def deadlock_hand_over_hand_against_the_order():
    a, b, c = pools(a=1, b=1, c=1)
    hw.spawn(hand_over_hand, a, b, c)
    hw.spawn(hand_over_hand, c, b, a)


def ok_threads_connections_and_bytes():
    threads, connections, room = pools(threads=2, connections=2, room=4)
    for _ in range(3):
        hw.spawn(three, threads, connections, room)
