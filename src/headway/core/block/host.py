"""Commands to a device that may be slow, late, or dead: each completes exactly once, within its deadline.

It does not move bytes: a *transport* starts a command and answers later, from anywhere, by tag. Each
command in flight needs a slot made of several parts (the command and its sense buffer), allocated
without waiting. One slot per host is spare: whichever part cannot be had, those that were taken go
back and the spare is used; if it is out, the request waits its turn and starts when a slot comes back.
Any slot that comes back becomes the spare first. So with an allocator that always fails every request
is still carried out, one at a time.

When the deadline passes, the request fails with `DeviceTimeout` and its slot comes home. Its memory does
not, unless the transport says that the device has let go of it: it is quarantined until the late
answer or `close`. A tag is never used twice, so a late or second answer hits nobody else; it is counted.

Bound: a request ends at most its timeout after `execute`, provided that the timekeeper runs.

Source: Linux ``drivers/scsi/scsi.c`` (3.6: one spare per host), ``scsi_error.c`` for deadlines.
"""

from __future__ import annotations

import errno
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, Final, final

from headway.core.block.command import Command, Completion, Done, Transport
from headway.core.block.deadlines import Deadlines
from headway.core.block.quarantine import Quarantine
from headway.core.block.workqueue import Workqueue
from headway.core.mm.composite import Backend, Callables, Composite
from headway.core.mm.gfp import Gfp
from headway.core.mm.mempool import Mempool
from headway.core.plan import Plan, Runtime, Ticket, park
from headway.errors import BlockError, DeviceTimeout, NoMemory, UsageError

COMMAND_SIZE: Final = 16
SENSE_SIZE: Final = 96
TIMEOUT_S: Final = 30.0


@final
@dataclass(frozen=True, slots=True)
class HostStats:
    """A snapshot. `spare_uses`: requests the spare served; `timeouts`: deadlines that passed; `late`:
    answers after that; `stray`: answers to what was answered already. `quarantined` is elements now,
    `quarantined_bytes` their size, `replaced` elements ever given to pools in their place."""

    name: str
    in_flight: int
    waiting: int
    spare: bool
    spare_uses: int
    timeouts: int
    late: int
    stray: int
    quarantined: int
    quarantined_bytes: int
    replaced: int


@final
class Host:
    """One device's commands. `parts` make a slot; `timeout_s` is the device's default deadline.

    `replacements` and `quota` say what pools get in place of quarantined elements. With `workers`, `done`
    runs on that queue; else wherever the answer came from, or on the timekeeper.

    Raises: NoMemory if not even the spare can be had.
    """

    __slots__ = (
        "_closed", "_deadlines", "_expiring", "_guard", "_in_flight", "_next_tag", "_pumping", "_runtime",
        "_skipped", "_slots", "_spare", "_starting", "_timer", "_timer_s", "_transport", "_waiting", "_workers", "late",
        "name", "quarantine", "spare_uses", "stray", "timeout_s", "timeouts",
    )  # fmt: skip

    def __init__(
        self,
        runtime: Runtime,
        transport: Transport,
        name: str = "host",
        *,
        parts: Sequence[Backend] | None = None,
        timeout_s: float = TIMEOUT_S,
        replacements: Backend | None = None,
        quota: int = 0,
        workers: Workqueue | None = None,
    ) -> None:
        if not timeout_s > 0:
            raise UsageError(f"host {name!r}: timeout_s is {timeout_s}; it must be above 0")
        self.name = name
        self.timeout_s = timeout_s
        self._runtime = runtime
        self._transport = transport
        self._workers = workers
        self._guard = runtime.guard()
        self._slots = Composite(*(_buffers() if parts is None else parts))
        self.quarantine = Quarantine(runtime.guard(), replacements, quota)
        # Under the guard:
        self._spare: tuple[Any, ...] | None = self._slots.alloc(Gfp.KERNEL)
        self._in_flight: dict[int, Command] = {}
        self._waiting: OrderedDict[int, Command] = OrderedDict()
        self._deadlines = Deadlines()
        self._expiring: dict[int, bool] = {}  # due just now: whether the answer came meanwhile
        self._skipped = False
        #: The tag that is being handed to the device: it is not expired meanwhile.
        self._starting = 0
        self._next_tag = 1
        self._pumping = False
        self._timer: Ticket | None = None  # where the timekeeper sleeps, until `_timer_s`
        self._timer_s: float | None = None
        self._closed = False
        self.spare_uses = self.timeouts = self.late = self.stray = 0
        if self._spare is None:
            raise NoMemory(f"host {name!r}: no memory for one command; it cannot promise progress")

    def execute(
        self,
        cmd: Any,
        sg: Sequence[memoryview],
        done: Done,
        *,
        home: Mempool[Any] | None = None,
        timeout_s: float | EllipsisType | None = ...,
    ) -> int:
        """Carry out `cmd` with the memory `sg`; ``done(completion)`` is called exactly once. The tag.

        `sg` are elements of the pool `home`, or memory of one's own (None). It is the device's until
        `done`, and then the caller's again if the completion has it; else it goes home by itself.
        `timeout_s` None switches the deadline off; left out, it is the device's.
        Waits: never.
        """
        limit_s = self.timeout_s if isinstance(timeout_s, EllipsisType) else timeout_s
        if limit_s is not None and not limit_s > 0:
            raise UsageError(
                f"host {self.name!r}: timeout_s is {limit_s}; above 0, or None for none"
            )
        with self._guard:
            if self._closed:
                raise BlockError(errno.ENODEV, f"host {self.name!r} is closed: {cmd!r} was refused")
            tag = self._next_tag
            self._next_tag += 1
            self._waiting[tag] = Command(tag, cmd, tuple(sg), done, home, limit_s)
            timer = None if limit_s is None else self._set_deadline(tag, limit_s)
        if timer is not None:
            timer.wake()
        self._pump()
        return tag

    def perform(self, cmd: Any, sg: Sequence[memoryview], **options: Any) -> Plan[Completion]:
        """`execute`, and wait for its end; options as there. Waits: at most its timeout."""
        ticket = Ticket(self.name)
        ended: list[Completion] = []

        def done(completion: Completion) -> None:
            ended.append(completion)
            ticket.wake()

        self.execute(cmd, sg, done, **options)
        yield from park(ticket)
        return ended[0]

    def answer(self, tag: int, error: BlockError | None = None, sense: bytes = b"") -> bool:
        """The device has carried out a command, or failed to; False if nobody waits for that any more.

        From anywhere. Waits: never.
        """
        with self._guard:
            command = self._in_flight.pop(tag, None)
            if command is not None:
                self._deadlines.drop(tag, command.timeout_s)
            expiring = self._expiring.get(tag) is False
            if expiring:  # in this moment: `_expire` finds it
                self._expiring[tag] = True
        if command is None:
            if expiring or self.quarantine.release(tag):
                self.late += 1
            else:
                self.stray += 1
            return False
        assert command.parts is not None
        buffer = command.parts[-1]
        if sense and isinstance(buffer, bytearray):
            buffer[: len(sense)] = sense[: len(buffer)]
        self._put(command.take_parts())
        self._finish(command, error, sense, returned=True)
        self._pump()
        return True

    def keep_time(self) -> Plan[None]:
        """The timekeeper: a task of its own, started with the host; ends when the host is closed."""
        while True:
            ticket = Ticket(f"{self.name} deadlines")
            now_s = self._runtime.now()
            with self._guard:
                if self._closed:
                    return
                passed = self._passed(now_s)
                next_s = self._deadlines.next_s(self._starting)
                self._timer, self._timer_s = ticket, next_s
            for command in passed:
                self._expire(command)
            if passed:
                self._pump()
                continue
            yield from park(ticket, None if next_s is None else max(0.0, next_s - now_s))

    def close(self) -> None:
        """End it: what is under way fails with ECANCELED, what is quarantined comes home.

        Only when the device can write nowhere any more. Waits: never.
        """
        with self._guard:
            self._closed = True
            commands = [*self._in_flight.values(), *self._waiting.values()]
            self._in_flight.clear()
            self._waiting.clear()
            timer, self._timer = self._timer, None
            spare, self._spare = self._spare, None
        if timer is not None:
            timer.wake()
        for command in commands:
            self._put(command.take_parts())
            gone = BlockError(
                errno.ECANCELED, f"host {self.name!r} was closed: {command!r} was dropped"
            )
            self._finish(command, gone, b"", returned=True)
        self.quarantine.release_all()
        if spare is not None:
            self._slots.free(spare)

    def stats(self) -> HostStats:
        held = self.quarantine
        return HostStats(
            self.name, len(self._in_flight), len(self._waiting), self._spare is not None,
            self.spare_uses, self.timeouts, self.late, self.stray, held.count, held.bytes, held.replaced,
        )  # fmt: skip

    # -- slots -----------------------------------------------------------------------------------------

    def _get(self) -> tuple[Any, ...] | None:
        """A whole slot, or the spare, or None."""
        parts = self._slots.alloc(Gfp.ATOMIC)
        if parts is None:
            with self._guard:
                parts, self._spare = self._spare, None
            if parts is not None:
                self.spare_uses += 1
                # The command is cleared; what belongs to it stays.
                if isinstance(parts[0], bytearray):
                    parts[0][:] = bytes(len(parts[0]))
        return parts

    def _put(self, parts: tuple[Any, ...] | None) -> None:
        """A slot comes back: it becomes the spare, if there is none."""
        if parts is None:
            return
        with self._guard:
            if self._spare is None and not self._closed:
                self._spare, parts = parts, None
        if parts is not None:
            self._slots.free(parts)

    def _pump(self) -> None:
        """Start what waits while there are slots. One at a time does this: an answer that comes inside
        `start` must not start the next one deeper in the stack."""
        while True:
            with self._guard:
                if self._pumping or not self._waiting:
                    return
                self._pumping = True
            parts = self._get()
            with self._guard:
                if parts is None:
                    self._pumping = False
                    if self._spare is not None and self._waiting:
                        continue  # it came back just now
                    return
                command = self._waiting.popitem(last=False)[1] if self._waiting else None
                if command is not None:
                    command.parts = parts
                    self._in_flight[command.tag] = command
                    self._starting = command.tag
            if command is None:  # its deadline has passed meanwhile
                self._put(parts)
            else:
                self._launch(command)
            with self._guard:
                self._pumping = False
                self._starting = 0
                timer = None
                if self._skipped:  # it became due meanwhile
                    timer, self._timer, self._skipped = self._timer, None, False
            if timer is not None:
                timer.wake()

    def _launch(self, command: Command) -> None:
        try:
            self._transport.start(command)
        except BlockError as error:
            self.answer(command.tag, error)

    # -- ends ------------------------------------------------------------------------------------------

    def _finish(
        self, command: Command, error: BlockError | None, sense: bytes, *, returned: bool
    ) -> None:
        completion = Completion(error, sense, command.sg if returned else ())
        if self._workers is None:
            command.done(completion)
        else:
            self._workers.queue(_end, command.done, completion)

    def _expire(self, command: Command) -> None:
        self.timeouts += 1
        tag = command.tag
        returned = command.parts is None or self._transport.abort(tag)
        if not returned:
            self.quarantine.hold(tag, command.sg, command.home)
        with self._guard:
            answered = self._expiring.pop(tag, False)
        if answered:
            self.quarantine.release(tag)
        self._put(command.take_parts())
        assert command.timeout_s is not None
        error = DeviceTimeout(
            errno.ETIMEDOUT,
            f"host {self.name!r}: {command!r} had no answer within {command.timeout_s} s"
            f"{'' if returned else '; its memory is quarantined until there is one'}",
            timeout_s=command.timeout_s,
        )
        self._finish(command, error, b"", returned=returned)

    def _set_deadline(self, tag: int, limit_s: float) -> Ticket | None:
        """Under the guard; the timekeeper's ticket if it sleeps for too long now."""
        deadline_s = self._deadlines.add(tag, self._runtime.now(), limit_s)
        if self._timer is None or (self._timer_s is not None and self._timer_s <= deadline_s):
            return None
        timer, self._timer = self._timer, None
        return timer

    def _passed(self, now_s: float) -> list[Command]:
        """Under the guard: take out what is due, but for what is being handed to the device now."""
        passed = []
        for tag in self._deadlines.passed(now_s):
            if tag == self._starting:
                self._skipped = True
                continue
            command = self._in_flight.pop(tag, None) or self._waiting.pop(tag)
            self._deadlines.drop(tag, command.timeout_s)
            if command.parts is not None:
                self._expiring[tag] = False
            passed.append(command)
        return passed

    def __repr__(self) -> str:
        return (
            f"<Host {self.name!r}: {len(self._in_flight)} in flight, {len(self._waiting)} waiting, "
            f"{self.quarantine.count} quarantined>"
        )


def _buffers() -> tuple[Backend, Backend]:
    """A command and a sense buffer, from ordinary memory."""
    command = Callables(lambda gfp: bytearray(COMMAND_SIZE), lambda part: None)
    sense = Callables(lambda gfp: bytearray(SENSE_SIZE), lambda part: None)
    return command, sense


def _end(done: Done, completion: Completion) -> None:
    done(completion)
