"""A real hang, explained and then ended: what the tests of the patches share."""

import asyncio
import contextlib
import threading

from headway.errors import Deadlock


def hung(session, *functions, waits=1):
    """The hang that the functions run into, one thread each; then it is ended, wait by wait.

    The session must have been started with `breaks`. With fewer than `waits` waits it is none yet: somebody is
    on his way to one.
    """

    def run(function):
        with contextlib.suppress(Deadlock):
            function()

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    hang = None
    while any(thread.is_alive() for thread in threads):
        found = session.hang()
        if found is not None and hang is None and len(names(found)[0]) < waits:
            continue
        hang = hang or found
        if found is not None:
            session.end_youngest()
    assert hang is not None, "they all ended"
    return hang


def hung_tasks(session, make):
    """The hang of two tasks of one loop; `make` gives what each is to run, when the loop runs, or a pair: that,
    and what ends their pool."""

    async def main():
        made = await make()
        runs, end = made if isinstance(made, tuple) else (made, None)
        await asyncio.gather(*runs, return_exceptions=True)
        if end is not None:
            await end()

    return hung(session, lambda: asyncio.run(main()))


def nest(meet, take, give):
    """Take one, meet the other, take a second: a function for a thread."""

    def run():
        one = take()
        try:
            meet.wait()
            give(take())
        finally:
            give(one)

    return run


async def nest_task(meet, take, give):
    """The same as a task; `give` may be awaited or not."""
    one = await take()
    try:
        await meet.wait()
        await maybe(give(await take()))
    finally:
        await maybe(give(one))


async def maybe(given):
    if asyncio.iscoroutine(given):
        await given


def names(hang):
    """Whom the waiters wait for, and what the holders hold, without the places."""
    waits = {(waiter["pool"] or waiter["what"]).partition(" made")[0] for waiter in hang["waiters"]}
    held = {holder["pool"].partition(" made")[0] for holder in hang["holders"]}
    return waits, held
