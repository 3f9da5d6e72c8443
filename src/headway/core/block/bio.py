"""One request to a layer: an operation, a range, its memory, and how its end becomes known.

It does not wait, allocate or move bytes; `bioset` has the reserves, `line` passes bios down. A bio is
*complete* when all its shares are: its own, and one for each child that was split off it or chained
to it. Then its hooks are called, last pushed first, each with the bio as it was when the hook was
pushed; so a layer may shift, cut or replace what it passes on, and finds its own request again. After
the last hook a child goes home to its set and gives up its share of its parent.

::

    split: 12 bytes = 4 + 8      parent  [own share, front]  -> complete when both came
                                 front   --------------------^

All of that is one loop: a stack of any depth completes in constant stack. `complete` may come from
any thread; shares are a list, whose pop is one step for all, so no lock is needed. Whoever passed a
bio on or completed it must not touch it again: it may be somebody else's already.

Source: Linux ``block/bio.c`` (``bio_endio``, ``bio_chain``, ``bio_split``, 6.12). Departure: hooks
restore the range, where the kernel keeps a copy of the iterator in each layer's own data.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, Protocol, TypeAlias, TypeVar, final

from headway.errors import BlockError

E = TypeVar("E", bound=BaseException)


class Op(Enum):
    """What a bio asks for."""

    READ = "read"
    WRITE = "write"
    FLUSH = "flush"  # all writes completed before it are on stable storage after it
    DISCARD = "discard"  # the range is no longer needed; what it reads as is not defined
    ZERO = "zero"  # the range reads as zeros afterwards


# Plain names: on 3.11 looking a member up in its class costs a third of a microsecond.
READ: Final = Op.READ
WRITE: Final = Op.WRITE
FLUSH: Final = Op.FLUSH
DISCARD: Final = Op.DISCARD
ZERO: Final = Op.ZERO

Hook: TypeAlias = "Callable[[Bio], object]"


class Home(Protocol):
    """Where a bio goes when it has ended."""

    def free(self, bio: Bio) -> object: ...


@final
class Join:
    """The shares of one bio that are still out, and the first error among them."""

    __slots__ = ("_shares", "error")

    def __init__(self) -> None:
        self._shares = [0]  # 0 is popped last
        self.error: BaseException | None = None

    def enter(self) -> None:
        """One more share; only while the caller holds one itself."""
        assert self._shares
        self._shares.append(1)

    def leave(self, error: BaseException | None) -> bool:
        """Give up a share; True for the last."""
        if error is not None and self.error is None:
            self.error = error
        return self._shares.pop() == 0

    def __len__(self) -> int:
        return len(self._shares)


@final
class Bio:
    """A request. Its fields may be changed by whoever it was passed to, until it is passed on.

    `offset` and `length` are bytes; `view` holds the data of a READ or WRITE and is `length` long, None
    otherwise. `fua`: a WRITE is complete when its data is on stable storage. `error` is None or why it
    failed. `private` is for whoever allocated it.
    """

    __slots__ = (
        "error",
        "fua",
        "home",
        "hooks",
        "join",
        "length",
        "offset",
        "op",
        "parent",
        "private",
        "share",
        "view",
    )

    def __init__(
        self,
        op: Op = READ,
        offset: int = 0,
        view: memoryview | None = None,
        *,
        length: int | None = None,
        fua: bool = False,
        home: Home | None = None,
    ) -> None:
        self.op = op
        self.offset = offset
        self.view = view
        self.length = (0 if view is None else len(view)) if length is None else length
        self.fua = fua
        self.home = home
        self.error: BaseException | None = None
        self.private: Any = None
        self.hooks: list[tuple[Hook, int, int, memoryview | None, Join | None]] = []
        self.join: Join | None = None  # the children of this bio, at the level it is at now
        self.parent: Bio | None = None
        self.share: Join | None = None  # its share of its parent

    def aim(self, op: Op, offset: int, view: memoryview | None, length: int) -> Bio:
        """Make a bio fresh from its set ask for something; the bio."""
        self.op = op
        self.offset = offset
        self.view = view
        self.length = length
        return self

    @property
    def end(self) -> int:
        """The offset after its last byte."""
        return self.offset + self.length

    # -- who hears of its end ----------------------------------------------------------------------

    def push(self, hook: Hook) -> None:
        """Have ``hook(bio)`` called when it is complete, with range and memory as they are now.

        A hook never waits; what it raises is the bio's error, if that has none. If it returns something
        true it has taken the bio back: it completes it again later (a retry), frees it, or keeps it. If not,
        whoever is above hears next.
        """
        self.hooks.append((hook, self.offset, self.length, self.view, self.join))
        self.join = None

    def chain(self, child: Bio) -> None:
        """Make this bio wait for `child`, which goes home by itself when it is complete."""
        join = self.join
        if join is None:
            join = self.join = Join()
        join.enter()
        child.parent, child.share = self, join

    def complete(self, error: BaseException | None = None) -> None:
        """Give up this bio's own share: what was asked of the caller is done, or failed with `error`.

        Waits: never. Exactly once for each time the bio was passed on.
        """
        bio = self
        if error is not None and bio.error is None:
            bio.error = error
        while True:
            join = bio.join
            if join is not None and not join.leave(bio.error):
                return
            while True:  # `join`, if there is one, is whole
                if join is not None:
                    bio.join, bio.error = None, join.error
                if bio.hooks:
                    hook, bio.offset, bio.length, bio.view, bio.join = bio.hooks.pop()
                    try:
                        if hook(bio):
                            return
                    except Exception as raised:  # whoever waits above must hear all the same
                        bio.error = bio.error or raised
                    break
                parent, share, error = bio.parent, bio.share, bio.error
                if parent is None:
                    return
                assert share is not None
                if bio.home is not None:
                    bio.home.free(bio)
                if not share.leave(error):
                    return
                bio, join = parent, share

    # -- what it becomes -------------------------------------------------------------------------

    def copy_to(self, clone: Bio) -> Bio:
        """Make `clone` ask for the same, of the same memory; the clone."""
        clone.op, clone.fua = self.op, self.fua
        clone.offset, clone.length, clone.view = self.offset, self.length, self.view
        return clone

    def split_to(self, front: Bio, length: int) -> Bio:
        """Cut the first `length` bytes off into `front`, chained to this bio; the front.

        The rest stays here: it is passed on after the front. Both share the memory.
        """
        assert 0 < length < self.length, (length, self.length)
        self.copy_to(front)
        front.length = length
        view = self.view
        if view is not None:
            front.view = view[:length]
            self.view = view[length:]
        self.offset += length
        self.length -= length
        self.chain(front)
        return front

    def reset(self) -> None:
        """Forget everything; for the set it goes home to."""
        assert not self.hooks, f"{self!r} goes home while somebody waits to hear of its end"
        self.view = self.error = self.private = self.join = self.parent = self.share = None
        self.fua = False

    def fields(self) -> tuple[Any, ...]:
        """What a layer must leave as it was if it does nothing: for conformance tests."""
        return (
            self.op, self.offset, self.length, self.view, self.fua, self.error, self.private,
            self.join, self.parent, len(self.hooks),
        )  # fmt: skip

    def __repr__(self) -> str:
        state = f", {self.error!r}" if self.error is not None else ""
        return f"<Bio {self.op.value} {self.length} bytes at {self.offset}{state}>"


def refused(bio: Bio, name: str, why: str, number: int = errno.EINVAL) -> BlockError:
    """The error of a bio that a layer cannot carry out."""
    return BlockError(
        number,
        f"{bio.op.value} of {bio.length} bytes at offset {bio.offset} of {name}: {why}",
        offset=bio.offset,
    )


def corrupt(name: str, what: str, number: int, offset: int) -> BlockError:
    """What is said of data that came whole, and is not what was written."""
    return BlockError(
        errno.EIO,
        f"{what} {number} at offset {offset} of {name} is not what its digest says: it was changed",
        offset=offset,
    )


def untraced(error: E) -> E:
    """The same error as a new object that does not know where it was raised, nor from what.

    For what is kept and raised again: a traceback holds the views of buffers that its frames saw, and
    grows with every raise.
    """
    kind = type(error)
    fresh = kind.__new__(kind, *error.args)
    if isinstance(fresh, OSError):  # one with an `__init__` of its own sets nothing before that
        OSError.__init__(fresh, *error.args)
    fresh.__dict__.update(error.__dict__)
    return fresh


class Withdrawn(BlockError):
    """Whoever submitted the bio was cancelled before it was passed on, or while it was carried out.

    It says nothing about the device: others who want the same try again. (A device may say ECANCELED for
    ever, so the number alone does not tell.)
    """


def withdrawn(bio: Bio, name: str, why: str = "it was cancelled") -> Withdrawn:
    error = refused(bio, name, why, errno.ECANCELED)
    return Withdrawn(errno.ECANCELED, str(error.args[-1]), offset=error.offset)
