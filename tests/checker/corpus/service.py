"""A correct service of a hundred lines: four pools, scopes, coroutines and plain functions. Nothing to be found.

An upload takes a connection, reads into frames, and hands each frame to a worker, which compresses it into
a second frame and writes it out in the background. What the code says of itself:

- order: connections, then workers, then frames, then requests; nobody asks against it;
- frames: an upload holds one while it waits for a worker, a worker one while it waits for its second;
- a request is in flight as soon as it is filled, and its completion gives it back.
"""

import headway as hw
from headway import aio

UPLOADS = 2
SCRUBBERS = 1
CONNECTIONS = 2
WORKERS = 2
FRAMES = 2  # one worker at a time may hold one and wait for another
REQUESTS = 1


def complete(requests, request):
    """What the device calls when it has written."""
    requests.free(request)


def write_out(requests, frame):
    """Lower layer: may neither call up nor wait for memory that I/O has to clean."""
    with hw.noio():
        request = requests.alloc()
        requests.hand_over(request)
        hw.spawn(complete, requests, request)


def compress(frames, requests):
    """Two frames, both at once: nothing is held while it waits for the pair."""
    source, target = frames.alloc_bulk(2)
    try:
        write_out(requests, target)
    finally:
        frames.free(target)
        frames.free(source)


def work(workers, frames, requests):
    with workers.lease():
        compress(frames, requests)


async def upload(connections, workers, frames, requests):
    """One client: its connection is its own until all of it is written."""
    async with aio.Mempool(connections).lease():
        for _ in range(2):
            async with aio.Mempool(workers).lease():
                pair = await aio.Mempool(frames).alloc_bulk(2)
                try:
                    request = await aio.Mempool(requests).alloc()
                    requests.hand_over(request)
                    hw.spawn(complete, requests, request)
                finally:
                    frames.free_bulk(pair)


async def ping(connections):
    """A client that asks nothing, and gives up soon."""
    try:
        async with aio.Mempool(connections).lease(timeout_s=1.0):
            pass
    except hw.PoolTimeout:
        return


def scrub(workers, frames):
    """In the background: looks at frames when there are any, and never insists."""
    with workers.lease(), hw.nofs():
        for _ in range(2):
            frame = frames.try_alloc()
            if frame is None:
                return
            frames.free(frame)


def drain(requests):
    """Before the end: see that no request is in flight any more."""
    with requests.lease():
        pass


def ok_the_service():
    connections = hw.Mempool.of(range(CONNECTIONS), name="connections")
    workers = hw.Mempool.of(range(WORKERS), name="workers")
    frames = hw.Mempool.of(range(FRAMES), name="frames")
    requests = hw.Mempool.of(range(REQUESTS), name="requests")
    for _ in range(UPLOADS):
        hw.spawn(upload, connections, workers, frames, requests)
    hw.spawn(work, workers, frames, requests)
    hw.spawn(ping, connections)
    for _ in range(SCRUBBERS):
        hw.spawn(scrub, workers, frames)
    hw.spawn(drain, requests)
