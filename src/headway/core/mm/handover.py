"""The one place where elements and waiters meet: hand-over, the queue, and the overflow to the backend.

It does not decide what a request tries before it waits (`headway.core.mm.climb` does). Elements enter
by `put_back`, waiters by `join`; whoever comes second finds the first, because both sides *store, then
look*: the freer appends, then reads the gate; the waiter enters the queue and raises the gate, then
settles. `_settle` never blocks on the guard: if someone holds it, that one looks again after letting go.
So `put_back` may be called from a finaliser or a signal handler that interrupted the holder.

What `min_count` elements cannot serve (a pool without a reserve, a bulk larger than it) is served by
the backend alone, so an element that goes *there* must be seen too. Such a request announces itself
before it asks the backend, and who gives the backend an element looks at the gate afterwards and kicks.
A kick is an event that changes `news`: a request that was climbing meanwhile climbs once more.

Bound: the circuit (reserve, held, handed over) never has fewer than `min_count` elements once filled;
what is given to the backend is chosen under the guard, or was never counted in.

Source: Linux ``mm/mempool.c`` (``mempool_free`` and its barriers); hand-over and kick are departures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

from headway.core.mm import poison as poisoning
from headway.core.mm.composite import Backend
from headway.core.mm.ladder import ANY_FIT, EXCLUSIVE, FIFO, Wake
from headway.core.mm.observed import ObservedPool
from headway.core.mm.refused import Refused
from headway.core.mm.watched import CLOSED, POISON, REFUSED, WAITERS, WIDE
from headway.core.plan import Ticket

E = TypeVar("E")

NOBODY: Final = 1 << 62  # `_wanted` when nobody waits


class HandOver(ObservedPool[E], Generic[E]):
    """A reserve, a queue, and the pairing of the two. `_kicked`, `_wide` change under the guard."""

    __slots__ = ("_above", "_backend", "_kicked", "_wide", "news", "wake")

    def _prepare(self, wake: Wake) -> None:
        self.wake = wake
        self.news: object = None  # another one with every kick
        self._wanted = NOBODY
        self._backend: Backend | None = None
        self._kicked = False
        self._wide = 0  # requests under way that the reserve alone could not serve
        self._above = Refused()  # pools over this one

    # -- elements come ---------------------------------------------------------------------------------

    def put_back(self, element: E) -> None:
        """Return an element to the circuit without counting it as freed."""
        if self._backend is not None and (
            self._gate & CLOSED or (self._wanted == NOBODY and len(self._reserve) >= self.min_count)
        ):
            self._overflow(element)
        else:
            if self._gate & POISON:
                poisoning.fill(element)
            self._reserve.append(element)
            self._settle()

    def _overflow(self, element: E) -> None:
        """Give the backend an element, then look: somebody may have asked it in vain just before."""
        assert self._backend is not None
        self._backend.free(element)
        if self._gate & (WAITERS | WIDE | REFUSED):
            self.kick()

    def _surplus(self) -> bool:
        """Whether the reserve holds more than its minimum, which a backend would take, and nobody waits."""
        return self._wanted == NOBODY and len(self._reserve) > (
            0 if self._gate & CLOSED else self.min_count
        )

    def _poison_reserve(self) -> None:
        """The first elements are free too: mark them so."""
        if self._gate & POISON:
            for element in self._reserve:
                poisoning.fill(element)

    # -- they meet -------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Pair what is in the reserve with who waits for it, and give a surplus to the backend.

        Both under the guard; tickets are woken, and the backend is called, after it is dropped. Whoever
        has held the guard comes through here: nobody else may have been able to.
        """
        while (
            len(self._reserve) >= self._wanted
            or self._kicked
            or (self._backend is not None and self._surplus())
            or (self._above.due and self._owes())
        ):
            if not self._guard.acquire(False):
                return  # whoever holds it settles after letting go
            try:
                owed: tuple[Callable[[], object], ...] = ()
                if self._above.due and (self._kicked or self._owes()):
                    self._gate &= ~REFUSED
                    owed = self._above.take()
                paired = self._pair()
                extra = self._pop(1) if self._backend is not None and self._surplus() else None
            finally:
                self._guard.release()
            self.wake_all(paired)
            if extra is not None:
                self._overflow(extra[0])
            for call in owed:
                call()

    def _owes(self) -> bool:
        """Whether a pool over this one was refused what is here now, and nobody in line has a claim to."""
        return bool(self._reserve) and (self._wanted == NOBODY or self.wake is not FIFO)

    def refuse(self, made: list[E], count: int) -> None:
        """Before a pool over this one hears no: look at the reserve once more."""
        made.extend(self._above.look_again(self._look_again, count - len(made)) or ())

    def _look_again(self, count: int) -> list[E] | None:
        with self._guard:
            if self._above.due:  # else it was told meanwhile: it will ask again
                self._gate |= REFUSED
        return self.take_reserve(count)

    def on_room(self, call: Callable[[], object]) -> None:
        """Have `call` made, without any lock, when what was refused came back (a pool over this one)."""
        with self._guard:
            self._above.add(call)
        self._settle()

    def off_room(self, call: Callable[[], object]) -> None:
        """Undo `on_room`."""
        with self._guard:
            self._above.drop(call)
        self._settle()

    def _pair(self) -> list[Ticket]:
        """Under the guard: give elements to waiters (or just choose whom to wake), and set the gate."""
        queue = self._queue
        there = len(self._reserve)
        if self.wake is FIFO:
            paired = []
            while (head := queue.first()) is not None and self._give(head):
                paired.append(head)
        elif self.wake is ANY_FIT:
            paired = [ticket for ticket in list(queue) if self._give(ticket)]
        else:
            count = there if self.wake is EXCLUSIVE else len(queue) * bool(there)
            paired = list(queue)[:count]
            for ticket in paired:
                queue.leave(ticket)
        if self._kicked:
            self._kicked = False
            if (head := queue.first()) is not None:
                paired.append(head)
        self.set_gate(0 if self.wake.hands_over else there)
        return [ticket for ticket in paired if not ticket.claim()]

    def _give(self, ticket: Ticket) -> bool:
        """Under the guard: hand over what a ticket needs, if it is there."""
        if len(self._reserve) < ticket.need:
            return False
        gift = self._pop(ticket.need)
        if gift is None:  # a late newcomer on the fast path took one
            return False
        self._queue.give(ticket, gift)
        return True

    def _pop(self, count: int) -> list[E] | None:
        """`count` elements of the reserve, last freed first, or None and the reserve as it was."""
        popped: list[E] = []
        try:
            if count == 1:
                return [self._reserve.pop()]
            for _ in range(count):
                popped.append(self._reserve.pop())
        except IndexError:
            self._reserve.extend(reversed(popped))
            return None
        return popped

    def set_gate(self, woken_for: int = 0) -> None:
        """Under the guard: say in the gate, and in `_wanted`, whom the next `free` has to look for.

        `woken_for` is how many elements have had their wake-ups, where elements are not handed over: as
        many as were there when the waiters were chosen, for one may have come since.
        """
        head = self._queue.first()
        if head is None:
            self._wanted = NOBODY
            self._gate &= ~WAITERS
            return
        if self.wake is FIFO:
            self._wanted = head.need
        else:
            self._wanted = max(self._least(), woken_for + 1) if woken_for else self._least()
        self._gate |= WAITERS

    def _least(self) -> int:
        return min((ticket.need for ticket in self._queue), default=NOBODY)

    def wake_all(self, tickets: Iterable[Ticket]) -> None:
        """Wake claimed tickets. What was handed to one that cannot be reached any more is put back
        into the reserve: whoever calls this settles next (a loop, not a recursion: many may be dead)."""
        for ticket in tickets:
            if not ticket.wake():
                self._reserve.extend(self._withdraw(ticket) or ())

    # -- waiters come and go ---------------------------------------------------------------------------

    def announce(self, step: int) -> None:
        """Before (1) and after (-1) a request that the reserve alone could not serve."""
        with self._guard:
            self._wide += step
            self._gate = self._gate | WIDE if self._wide else self._gate & ~WIDE
        self._settle()

    def join(self, ticket: Ticket) -> None:
        """Enter the queue, then look once more: an element may have come in between."""
        with self._guard:
            if self._gate & CLOSED:
                raise self.closed_error()
            self._queue.join(ticket)
            self.set_gate()
        self._settle()

    def renew(self, old: Ticket, new: Ticket) -> bool:
        """Keep the place in the queue with a fresh ticket; False if `old` is not queued any more."""
        with self._guard:
            queued = old in self._queue
            if queued:
                self._queue.renew(old, new)
                if self.wake.hands_over:
                    self.set_gate()  # it may need fewer by now
        self._settle()
        return queued

    def leave(self, ticket: Ticket) -> list[E] | None:
        """Stop waiting: what had been handed over already, or None."""
        gift = self._withdraw(ticket)
        self._settle()
        return gift

    def _withdraw(self, ticket: Ticket) -> list[E] | None:
        with self._guard:
            unused = ticket.woken and ticket in self._queue  # kicked, and did not ask the backend
            gift = self._queue.leave(ticket)
            self.set_gate()  # for all that are left: a wake-up received and not used is handed on
            self._kicked = self._kicked or unused
        return gift

    def take_reserve(self, count: int) -> list[E] | None:
        """`count` elements from the reserve if nobody has an older claim to them, else None."""
        with self._guard:
            queued = self._wanted != NOBODY and self.wake is FIFO
            taken = None if queued or len(self._reserve) < count else self._pop(count)
        self._settle()
        if taken is not None:
            self._inspect(taken)
        return taken

    def add_gift(self, made: list[E], gift: list[E] | None) -> None:
        """What was handed over came from the reserve."""
        if gift:
            self._inspect(gift)
            made.extend(gift)

    def _inspect(self, taken: list[E]) -> None:
        """The reserve served these: count it, and look who wrote to them while they were free."""
        self.reserve_uses += len(taken)
        if self._gate & POISON:
            for element in taken:
                wrong = poisoning.inspect(element)
                if wrong is not None:
                    self.poison_hits += 1
                    self.runtime.report(f"pool {self.name!r}: an element was {wrong}")

    def kick(self) -> None:
        """Say that the backend may have recovered: the first waiter asks it again, then the next."""
        self.news = object()
        self._kicked = True
        self._settle()

    def check_invariants(self) -> None:
        """For tests and the simulator: after every step."""
        self._queue.check_invariants()
        assert bool(len(self._queue)) == bool(self._gate & WAITERS), (
            "the gate and the queue disagree"
        )
        head = self._queue.first()
        if self.wake is Wake.FIFO and head is not None:
            assert len(self._reserve) < head.need, "the head of the queue was not served"
