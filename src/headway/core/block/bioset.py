"""Bios with a reserve: a set for each level, so that no level waits for what another holds.

It does not pass bios on (`line` does). A set is a mempool of bios, and the rule that goes with it (R3):
hold at most one bio of a set that is not in flight; a layer that needs several takes them at once with
`alloc_many`, all or nothing.

Submission inside submission breaks that rule without anybody's fault: a bio that was sent is only
queued in the line, behind the layer that now asks for another. Before such a wait a set with a *rescuer*
takes its own bios out of the line, in order, and lets the rescuer submit them. Those of other sets stay:
submitting them might need this set, and would stop the rescuer itself. So every waiter is served as
soon as the rescued bios complete. A set whose bios cannot be queued behind its own allocations (one
bio for each request from outside, say) needs no rescuer.

Bound: `min_count` bios are there for ever; with a set per level, a request needs one bio of each level
to get on, whatever the others do.

Source: Linux ``block/bio.c`` (``bio_alloc_bioset``, ``punt_bios_to_rescuer``, ``bio_alloc_rescue``, 6.12).
"""

from __future__ import annotations

from typing import Any, Final, final

from headway.core.block.bio import Bio, Op
from headway.core.block.line import Line, Target, carry_out, submit
from headway.core.block.workqueue import Workqueue
from headway.core.mm.gfp import Gfp
from headway.core.mm.mempool import Mempool
from headway.core.mm.pools import BackedMempool, FixedMempool
from headway.core.plan import Plan, Runtime

BIO_POOL_SIZE: Final = 2  # what a set holds if nothing else is said, as in the kernel


class _Bios:
    """A backend that makes bios: at most `most` beyond the reserve (None: any number)."""

    __slots__ = ("_home", "_tokens")

    def __init__(self, home: BioSet, most: int | None) -> None:
        self._home = home
        self._tokens = None if most is None else list(range(most))

    def alloc(self, gfp: Gfp) -> Bio | None:
        if self._tokens is not None:
            try:
                self._tokens.pop()
            except IndexError:
                return None
        return Bio(home=self._home)

    light = alloc

    def free(self, bio: Bio) -> None:
        if self._tokens is not None:
            self._tokens.append(0)


@final
class BioSet:
    """`min_count` bios in reserve, and at most `extra` more while memory allows (None: any number).

    With ``extra=0`` it is a fixed set, whose fast path is the quickest. `rescuer` is a work queue whose
    own thread submits what was punted; it must not be one that this set's bios are completed on.
    """

    __slots__ = ("_rescuer", "name", "pool", "punted")

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        *,
        min_count: int = BIO_POOL_SIZE,
        extra: int | None = 0,
        rescuer: Workqueue | None = None,
        trace: bool = False,
    ) -> None:
        self.name = name
        self._rescuer = rescuer
        self.punted = 0  # bios ever given to the rescuer
        options: dict[str, Any] = {"runtime": runtime, "name": name, "trace": trace}
        self.pool: Mempool[Bio]
        if extra == 0:
            self.pool = FixedMempool([Bio(home=self) for _ in range(min_count)], **options)
        else:
            most = None if extra is None else extra + min_count
            self.pool = BackedMempool(_Bios(self, most), min_count=min_count, **options)

    # -- taking --------------------------------------------------------------------------------------

    def try_alloc(self) -> Bio | None:
        """A bio if that needs no wait; for those who are not in a plan."""
        return self.pool.take_now() or self.pool.try_alloc()

    def alloc(self, line: Line | None = None) -> Plan[Bio]:
        """A bio, sooner or later: it never fails. `line` is the submission this is part of, if any.

        Waits: until a bio of the set completes; before that the line's plug is kicked, and what is
        queued in the line of this set is rescued.
        """
        bio = self.pool.take_now()
        if bio is not None:
            return bio
        return (yield from self.alloc_many(1, line))[0]

    def alloc_many(self, count: int, line: Line | None = None) -> Plan[list[Bio]]:
        """`count` bios at once, all or nothing: what one layer needs for one request."""
        self.pool.check_count(count)
        home = None if self._rescuer is None else self
        return (yield from (Line() if line is None else line).take(self.pool, count, home=home))

    def punt(self, line: Line) -> None:
        """Let the rescuer submit what is queued in `line` of this set."""
        assert self._rescuer is not None
        for layer, bio in line.take_from(self):
            self.punted += 1
            self._rescuer.queue(submit, layer, bio)

    # -- making others of one ------------------------------------------------------------------------

    def clone(self, bio: Bio, line: Line | None = None) -> Plan[Bio]:
        """A bio that asks for the same, of the same memory, chained to `bio`."""
        clone = bio.copy_to((yield from self.alloc(line)))
        bio.chain(clone)
        return clone

    def split(self, bio: Bio, length: int, line: Line | None = None) -> Plan[Bio]:
        """The first `length` bytes as a bio of their own; `bio` keeps the rest. See `Bio.split_to`."""
        return bio.split_to((yield from self.alloc(line)), length)

    def make(self, op: Op, offset: int, view: memoryview | None, length: int) -> Plan[Bio]:
        """A bio of one's own, at the top of a stack."""
        return (yield from self.alloc()).aim(op, offset, view, length)

    def ask(
        self,
        layer: Target,
        op: Op,
        offset: int = 0,
        view: memoryview | None = None,
        length: int = 0,
    ) -> Plan[None]:
        """One request of a layer's own, in a bio of this set. Raises: what it failed with.

        Waits: for the bio, for reserves below, and for the end.
        """
        bio = yield from self.make(op, offset, view, length if view is None else len(view))
        yield from carry_out(layer, bio)
        self.settle(bio)

    # -- giving back ---------------------------------------------------------------------------------

    def free(self, bio: Bio) -> None:
        """Take a bio home; completed children come by themselves."""
        assert bio.home is self, f"{bio!r} is not of {self.name}"
        bio.reset()
        self.pool.free(bio)

    def settle(self, bio: Bio) -> None:
        """Take a bio that has ended home. Raises: what it failed with."""
        error = bio.error
        self.free(bio)
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback has this frame, and with it the views in others

    def close(self) -> None:
        """Raises: PoolBusy if bios are still out."""
        self.pool.close()

    def __repr__(self) -> str:
        return f"<BioSet {self.name!r}: {self.pool!r}, {self.punted} punted>"
