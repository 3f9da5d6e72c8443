"""One worker that makes durable what was done before, for all who ask for that meanwhile.

It does not know what there is to be done: its owner says so in two plans. `commit` makes durable whatever
was done before it began; `after` is what is left to do when those who waited have been told. Both are run
by one worker, one round at a time. Whoever asks while a round is asked for and has not begun is in that
one; so a commit is paid for once, however many wait for it.

What `commit` fails with is kept, for good: it is not run again, and every later flush is told the same.
Bound: one round under way and one asked for.

Source: Linux ``fs/jbd2/commit.c`` (one thread commits for all who wait, 6.12).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import final

from headway.core.block.bio import FLUSH, Bio, untraced
from headway.core.block.workqueue import Workqueue
from headway.core.plan import Guard, Plan, Ticket, call, park
from headway.errors import BlockError


@final
class Committer:
    """`error` is why nothing is promised any more; it and who waits change under `guard`, the owner's."""

    __slots__ = ("_after", "_commit", "_flushes", "_guard", "_queued", "_worker", "error")

    def __init__(
        self,
        guard: Guard,
        worker: Workqueue,
        commit: Callable[[], Plan[None]],
        after: Callable[[], Plan[None] | None],
    ) -> None:
        """Args: `worker` does nothing else, and one thing at a time."""
        self._guard = guard
        self._worker = worker
        self._commit, self._after = commit, after
        self._flushes: list[Bio] = []
        self._queued = False
        self.error: BlockError | None = None

    @property
    def is_waited_for(self) -> bool:
        """Under the guard."""
        return bool(self._flushes)

    def flush(self, bio: Bio) -> None:
        """Complete `bio` when all that was done before is durable. Waits: never."""
        with self._guard:
            self._flushes.append(bio)
        self.ask()

    def ask(self) -> None:
        """Have a round begin after this. Waits: never."""
        with self._guard:
            queued, self._queued = self._queued, True
        if not queued:
            self._worker.queue(self._round)

    def _round(self) -> Plan[None]:
        with self._guard:
            self._queued = False
            flushes, self._flushes = self._flushes, []
            failed = self.error
        if failed is None:
            try:
                yield from self._commit()
            except Exception as error:
                failed = self.fail(error)
        for bio in flushes:
            bio.complete(None if failed is None else again(failed))
        plan = self._after()
        if plan is not None:
            yield from plan

    def fail(self, error: BaseException) -> BlockError:
        """Promise nothing more; what is kept of the error holds nobody's buffers."""
        kept = again(error)
        with self._guard:
            self.error = kept
        return kept

    def last(self) -> Plan[None]:
        """One more round, and its end with all it asked for: nothing is under way then."""
        self.flush(Bio(FLUSH))
        ticket = Ticket("the last commit")
        self._worker.queue(call, ticket.wake)
        yield from park(ticket)


def again(error: BaseException) -> BlockError:
    """The same error for one more, or to be kept; what no device said is told as one."""
    if isinstance(error, BlockError):
        return untraced(error)
    return BlockError(errno.EIO, f"{type(error).__name__}: {error}")
