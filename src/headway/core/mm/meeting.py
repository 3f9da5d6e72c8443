"""Where the requests of all budgets of one runtime wait, and units that come back meet them.

One guard for all of them, because a request may need units of several budgets *in one event*: of those
it names, and of each level above. It takes them all or none, and holds nothing while it waits.

A request stands in the line of every budget it names, and is tried when it is the first of each. It is
granted if every level has enough; else it is *starving* at the first level that has not, and nobody
younger may draw from that level before it. So a request that its own budget's limit stops does not
stop others who share only the parent. With any-fit, whoever fits is granted. Those entitled
to reserves have a line of their own, and pass the others: nobody who frees waits for one who waits.

Nobody is forgotten: the oldest request (of the entitled, else of all) is the first of its lines and has
no older one starving before it, so it is tried whenever units come to the level it starves at.

Units come back without a lock: they go into a list, and who holds the guard looks again after letting
go (store, then look: `headway.core.mm.handover` has the argument). Bound: a return costs one try for
each request starving at its levels, and one for each grant.

Source: the rule of ``headway check``'s models; Linux ``page_counter_try_charge`` for the levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import Final, TypeVar, final

from headway.core.mm.account import Account
from headway.core.mm.ladder import Wake
from headway.core.plan import Runtime, Ticket
from headway.errors import UsageError

T = TypeVar("T")
Part = tuple[Account, int]
Heap = list[tuple[bool, int, "Ask"]]
NEWCOMER: Final = 1 << 62


@final
class Ask:
    """A request: so many units of each of these, all or nothing. `short` is the level that has too few.

    All fields but the first three change under the guard. `asked` is that level, once its reclaimers were run
    for it there: when it comes to starve elsewhere, or there again, it is woken to run them.
    """

    __slots__ = ("asked", "entitled", "granted", "levels", "number", "parts", "short", "ticket")

    def __init__(self, parts: tuple[Part, ...], entitled: bool) -> None:
        self.parts = parts
        self.entitled = entitled
        levels = [level for account, _ in parts for level in account.levels()]
        self.levels = tuple(dict.fromkeys(levels))
        self.number = NEWCOMER
        self.short: Account | None = None
        self.asked: Account | None = None
        self.ticket: Ticket | None = None  # while it stands in the lines
        self.granted = False

    @property
    def rank(self) -> tuple[bool, int]:
        return (not self.entitled, self.number)

    def check_possible(self) -> None:
        """Raises: UsageError if not even all units of every level would do."""
        need: dict[Account, int] = {}
        for account, units in self.parts:
            for level in account.levels():
                need[level] = need.get(level, 0) + units
                units = max(0, units - level.floor)
        for level, units in need.items():
            most = level.most(self.entitled)
            if units > most and not (self.entitled and level.force):
                raise UsageError(
                    f"budget {level.name!r}: {level.show(units)} were asked for at once; "
                    f"it can never give more than {level.show(most)} of its {level.show(level.capacity)}"
                    + (
                        f", {level.show(level.reserve)} are reserve"
                        * (not self.entitled and level.reserve > 0)
                    )
                )


@final
class Meeting:
    """One for each runtime. `bring` and `look` never wait; the rest may wait for the guard."""

    __slots__ = ("_asks", "_numbers", "due", "findings", "guard")

    def __init__(self, runtime: Runtime) -> None:
        self.guard = runtime.guard()
        self._asks: dict[Ticket, Ask] = {}
        self.due: list[Account] = []  # somebody may have to look here
        self.findings: list[tuple[Account, str]] = []  # to be reported by who settles
        self._numbers = 0

    # -- units come ------------------------------------------------------------------------------------

    def bring(self, account: Account, units: int) -> None:
        """Give units back."""
        account._home.append(units)
        self.look(account)

    def look(self, account: Account) -> None:
        """Something may have come to this level."""
        self.due.append(account)
        self.settle()

    def settle(self) -> None:
        """Serve whoever can be served; wake them, and report what was found, after the guard is dropped."""
        while self.due:
            if not self.guard.acquire(False):
                return  # whoever holds it settles after letting go
            try:
                served = self._serve()
                findings, self.findings = self.findings, []
            finally:
                self.guard.release()
            self._wake(served)
            for account, finding in findings:
                account.runtime.report(finding)

    def change(self, step: Callable[[], T]) -> T:
        """Run one step under the guard."""
        try:
            with self.guard:
                return step()
        finally:
            self.settle()

    def units(self, ticket: Ticket, account: Account) -> int:
        """Under the guard: how many units of `account` are asked for with this ticket."""
        return sum(units for other, units in self._asks[ticket].parts if other is account)

    # -- requests come and go --------------------------------------------------------------------------

    def take_now(self, ask: Ask) -> bool:
        """Grant a request that stands in no line, unless somebody has an older claim."""
        with self.guard:
            ask.short = None
            if self._may_go(ask):
                ask.short = self._charge(ask)
                ask.granted = ask.short is None
        self.settle()
        return ask.granted

    def join(self, ask: Ask, ticket: Ticket) -> None:
        """Enter the lines; who comes to a closed budget is woken at once, and who could make room.

        He has tried that, but what came to be had since then found nobody here to tell (`rouse`).
        """
        with self.guard:
            self._numbers += 1
            ask.number, ask.ticket, ask.short, ask.asked = self._numbers, ticket, None, None
            self._asks[ticket] = ask
            for account, _ in ask.parts:
                account.lines[ask.entitled].join(ticket)
                account.set_gate()
                self.due.append(account)
            if any(level.closed for level in ask.levels) and not ticket.claim():
                ticket.wake()
        self.settle()

    def renew(self, ask: Ask, ticket: Ticket) -> bool:
        """Keep the places in the lines with a fresh ticket; False if it does not wait any more."""
        with self.guard:
            old = ask.ticket
            if old is not None:
                for account, _ in ask.parts:
                    account.lines[ask.entitled].renew(old, ticket)
                self._asks[ticket] = self._asks.pop(old)
                ask.ticket = ticket
        self.settle()
        return old is not None

    def leave(self, ask: Ask) -> bool:
        """Stop waiting; True if it was granted in the meantime: the units are the caller's."""
        with self.guard:
            self._remove(ask)
        self.settle()
        return ask.granted

    def drop(self, ask: Ask) -> None:
        """Stop waiting, and return what was granted: there is no use for it any more."""
        with self.guard:
            self._remove(ask)
            granted, ask.granted = ask.granted, False
            if granted:
                for account, units in ask.parts:
                    account._home.append(units)
                    self.due.append(account)
        self.settle()

    def rouse(self, account: Account) -> None:
        """Wake all who wait for this level, to look again: at its limit, at its end, at who makes room here.

        That one may make it for a level above too, so those are woken who starve there.
        """
        with self.guard:
            tickets = []
            above = tuple(account.levels())
            for ticket, ask in self._asks.items():
                if account in ask.levels or ask.short in above:
                    ask.asked = None
                    if not ticket.claim():
                        tickets.append(ticket)
        self._wake(tickets)
        self.settle()

    # -- under the guard -------------------------------------------------------------------------------

    def _serve(self) -> list[Ticket]:
        """Try, oldest first, everybody whom what is due may concern; whom to wake."""
        heap: Heap = []
        while self.due:
            account = self.due.pop()
            account.come_home()
            for level in account.levels():
                self._push_starving(heap, level)
            self._push_first(heap, account)
        served = []
        while heap:
            ask = heappop(heap)[2]
            ticket, before = ask.ticket, ask.short
            if ticket is None or not self._may_go(ask):
                continue
            self._starve(ask, self._charge(ask))
            if before is not None and before is not ask.short:
                self._push_starving(heap, before)  # it does not stand in their way any more
            if ask.short is None:
                ask.granted, ticket.gift = True, [ask]
                served.append(ticket)
                for account in self._remove(ask):
                    self._push_first(heap, account)
            elif ask.short.gives_way and ask.asked is not ask.short:
                ask.asked = ask.short
                served.append(ticket)
        return [ticket for ticket in served if not ticket.claim()]

    def _push_starving(self, heap: Heap, level: Account) -> None:
        for ask in level.starving:
            heappush(heap, (*ask.rank, ask))

    def _push_first(self, heap: Heap, account: Account) -> None:
        for line in account.lines:
            for ticket in line:
                ask = self._asks[ticket]
                heappush(heap, (*ask.rank, ask))
                if account.wake is Wake.FIFO:
                    break

    def _may_go(self, ask: Ask) -> bool:
        """Whether all is open, and nobody has an older claim to what it wants."""
        if any(level.closed for level in ask.levels):
            return False
        for account, _ in ask.parts:
            first = account.lines[ask.entitled].first()
            if account.wake is Wake.FIFO and first is not None and first is not ask.ticket:
                return False
        for level in ask.levels:
            if level.wake is Wake.FIFO:
                for other in level.starving:
                    if other.rank < ask.rank:
                        self._starve(ask, level)
                        return False
        return True

    def _charge(self, ask: Ask) -> Account | None:
        """Take it all, or nothing, and name the level that has too little."""
        for level in ask.levels:
            level.come_home()  # also where nobody starves: nobody looked when it came
        for index, (account, units) in enumerate(ask.parts):
            short = account.charge(units, ask.entitled)
            if short is not None:
                for done, count in ask.parts[:index]:
                    done.credit(count)
                return short
        return None

    def _starve(self, ask: Ask, short: Account | None) -> None:
        """Write down at which level it starves; a request that is in no line starves nowhere."""
        before, ask.short = ask.short, short
        if short is not before:
            ask.asked = None  # what came to be had there since found nobody who starves there
            if before is not None:
                before.starving.pop(ask, None)
                before.set_gate()
        if short is not None and ask.ticket is not None:
            short.starving[ask] = None
            short.set_gate()

    def _remove(self, ask: Ask) -> list[Account]:
        """Out of every line, and at these somebody else may be the first now."""
        if ask.ticket is None:
            return []
        del self._asks[ask.ticket]
        accounts = [account for account, _ in ask.parts]
        for account in accounts:
            account.lines[ask.entitled].leave(ask.ticket)
        if ask.short is not None:
            self.due.append(ask.short)
        if not ask.granted:
            self.due.extend(accounts)
        ask.ticket = None
        self._starve(ask, None)
        for account in accounts:
            account.set_gate()
        return accounts

    def _wake(self, tickets: Iterable[Ticket]) -> None:
        """What was granted to one that cannot be reached any more goes to the next."""
        for ticket in tickets:
            if not ticket.wake():
                with self.guard:
                    ask = ticket.gift[0] if ticket.gift else self._asks.get(ticket)
                if ask is not None:
                    self.drop(ask)
