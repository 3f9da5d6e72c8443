"""Passing bios down: what a layer submits while it is being submitted to is queued, not called.

It does not decide what a layer does with a bio. A *line* is one submission, from the first bio until
nothing is queued any more: the outermost caller runs it, layers only `send`. So the depth of a stack
costs no stack. After each layer what it sent is sorted: bios for layers further down first, then those
for the layer itself (the rest of a split), then what was queued before. A layer's remainder therefore
runs only after everything below its front has been handled: a reserve below is used by one piece at a
time where memory is short.

What waits in a line cannot start before its turn. A layer that waits for a bio of its set while others
of the same set are queued behind it would wait for ever; `headway.core.block.bioset` punts those to a
rescuer first. A plug that the line carries is kicked before any such wait.

A bio too long for a layer is split before it enters, with a bio of the layer's own set.

Source: Linux ``block/blk-core.c`` (``__submit_bio_noacct``, ``current->bio_list``, 6.12). Departure: the
line is an argument, where the kernel hangs it on the task.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol, TypeVar, final

from headway.core.block.bio import Bio, Withdrawn, refused, withdrawn
from headway.core.block.limits import NO_LIMITS, Limits
from headway.core.mm.gfp import Gfp, Scope
from headway.core.mm.mempool import Mempool
from headway.core.plan import Plan, Ticket, park

NOIO: Final = int(Scope.NOIO)

E = TypeVar("E")


class Kick(Protocol):
    """A plug: what its holder has gathered and not yet submitted."""

    def kick(self) -> object:
        """Let all of it start, by somebody else. Waits: never."""


class Rescued(Protocol):
    """A set with a rescuer."""

    def punt(self, line: Line) -> object:
        """Give what is queued of this set to the rescuer. Waits: never."""


class Source(Protocol):
    """Where bios come from."""

    def alloc(self, line: Line | None = None) -> Plan[Bio]: ...


class Target(Protocol):
    """A layer, as a line sees it."""

    @property
    def name(self) -> str: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def splits(self) -> Source | None: ...
    def submit(self, bio: Bio, line: Line) -> Plan[None] | None: ...


@final
class Line:
    """One submission; used by one task, so without a guard."""

    __slots__ = ("_at", "_fresh", "_queue", "plug")

    def __init__(self, plug: Kick | None = None) -> None:
        self.plug = plug
        self._at: Target | None = None  # the layer that is being submitted to
        self._fresh: list[tuple[Target, Bio]] = []  # what it has sent
        self._queue: deque[tuple[Target, Bio]] = deque()

    def send(self, bio: Bio, layer: Target) -> None:
        """Queue `bio` for `layer`; it belongs to the line now. Waits: never."""
        self._fresh.append((layer, bio))

    def __len__(self) -> int:
        return len(self._fresh) + len(self._queue)

    def __bool__(self) -> bool:
        return bool(self._fresh or self._queue)

    def take(
        self, pool: Mempool[E], count: int = 1, *, home: Rescued | None = None
    ) -> Plan[list[E]]:
        """Elements of a layer's own reserve, all or nothing; it never fails.

        Waits: until they come back. Before that the plug is kicked (R5), and what `home` has queued in
        this line is punted to its rescuer.
        """
        who = pool.runtime.owner()
        if self.plug is not None or (home is not None and self):
            taken = yield from pool.alloc_plan(Gfp.NOWAIT, NOIO, who, count, None)
            if taken is not None:
                return taken
            if self.plug is not None:
                self.plug.kick()
            if home is not None:
                home.punt(self)
        taken = yield from pool.alloc_plan(Gfp.NOIO, NOIO, who, count, None)
        assert taken is not None
        return taken

    def take_from(self, home: object) -> list[tuple[Target, Bio]]:
        """Take out what came from `home`, in order; everything else keeps its place."""
        taken = [pair for pair in self._fresh if pair[1].home is home]
        taken += [pair for pair in self._queue if pair[1].home is home]
        if taken:
            self._fresh[:] = [pair for pair in self._fresh if pair[1].home is not home]
            left = [pair for pair in self._queue if pair[1].home is not home]
            self._queue.clear()
            self._queue.extend(left)
        return taken

    def start(self) -> Plan[None] | None:
        """Pass on what is queued, here and now, as far as no layer has to wait: None if that was all,
        else the plan for the rest, which must be carried out. It is `run` without a driver."""
        waiting = self._begin()
        return None if waiting is None else self._go_on(waiting)

    def run(self) -> Plan[None]:
        """Pass on what is queued until nothing is. Waits: for the reserves of layers.

        A cancellation completes what is still queued with ECANCELED; what was passed on goes on.
        """
        waiting = self._begin()
        if waiting is not None:
            yield from self._go_on(waiting)

    def _begin(self) -> tuple[Plan[None], Target, Bio] | None:
        """The first part, which a signal's exception may interrupt as a cancellation interrupts the rest."""
        try:
            return self._advance()
        except BaseException:
            self._drop()
            raise

    def _advance(self) -> tuple[Plan[None], Target, Bio] | None:
        """Up to a layer that may have to wait: its plan, and what to complete if that fails."""
        fresh, queue = self._fresh, self._queue
        while True:
            if fresh:
                if len(fresh) == 1 and not queue:  # the usual case: passed on as it is
                    layer, bio = fresh.pop()
                else:
                    self._sort()
                    layer, bio = queue.popleft()
            elif queue:
                layer, bio = queue.popleft()
            else:
                return None
            self._at = layer
            limits = layer.limits
            if limits is not NO_LIMITS and not limits.fits(bio.offset, bio.length):
                if limits.aligned(bio.offset, bio.length):
                    front = limits.front(bio.offset, bio.length)
                    return self.cut(bio, front, layer), layer, bio
                why = f"it takes blocks of {limits.alignment} bytes"
                bio.complete(refused(bio, layer.name, why))
                continue
            try:
                plan = layer.submit(bio, self)
            except Exception as error:
                bio.complete(error)
                continue
            if plan is not None:
                return plan, layer, bio

    def _go_on(self, first: tuple[Plan[None], Target, Bio]) -> Plan[None]:
        waiting: tuple[Plan[None], Target, Bio] | None = first
        try:
            while waiting is not None:
                plan, layer, bio = waiting
                try:
                    yield from plan
                except Exception as error:
                    bio.complete(error)
                except BaseException:
                    bio.complete(_cancelled(bio, layer))
                    raise
                waiting = self._advance()
        finally:
            if self:
                self._drop()

    def _sort(self) -> None:
        """Lower layers first, then the rest for this layer, then what was queued before."""
        at = self._at
        same = [pair for pair in self._fresh if pair[0] is at]
        self._queue.extendleft(reversed(same))
        if len(same) < len(self._fresh):
            lower = [pair for pair in self._fresh if pair[0] is not at]
            self._queue.extendleft(reversed(lower))
        self._fresh.clear()

    def cut(self, bio: Bio, length: int, layer: Target) -> Plan[None]:
        """Queue the first `length` bytes of a bio for `layer`, and the rest behind them.

        Waits: for a bio of the layer's `splits`.
        """
        assert layer.splits is not None, f"{layer.name} has limits and no set to split with"
        front = yield from layer.splits.alloc(self)
        self.send(bio.split_to(front, length), layer)
        self.send(bio, layer)

    def _drop(self) -> None:
        """Nothing, unless the run was cancelled."""
        for layer, bio in [*self._fresh, *self._queue]:
            bio.complete(_cancelled(bio, layer))
        self._fresh.clear()
        self._queue.clear()


def _cancelled(bio: Bio, layer: Target) -> Withdrawn:
    return withdrawn(bio, layer.name, "the submission was cancelled")


def submit(layer: Target, bio: Bio, plug: Kick | None = None) -> Plan[None]:
    """Submit one bio from outside; hooks say when it is complete. Waits: for the reserves of layers."""
    line = Line(plug)
    line.send(bio, layer)
    yield from line.run()


def carry_out(layer: Target, bio: Bio, plug: Kick | None = None) -> Plan[None]:
    """Submit one bio and wait until it is complete; `bio.error` says how it ended.

    If it is cancelled while the bio is in flight, the bio goes home by itself when it is complete;
    its memory is in use until then, so whoever cancels keeps that memory alive.
    """
    ticket = Ticket(layer.name)
    turns = [1, 0]  # whoever comes second, the end or a cancellation, looks after the bio

    def ended(bio: Bio) -> bool:
        if turns.pop() == 0:
            ticket.wake()
        elif bio.home is not None:
            bio.home.free(bio)
        return True

    bio.push(ended)
    try:
        line = Line(plug)
        line.send(bio, layer)
        plan = line.start()
        if plan is not None:
            yield from plan
        if len(turns) == 2:  # else it has ended already
            yield from park(ticket)
    except BaseException:
        if turns.pop() == 1 and bio.home is not None:
            bio.home.free(bio)
        raise
