"""Who asks again when something comes back: the callers that an allocator turned away.

It knows neither what was asked for nor how much came. The allocator *publishes, then looks*: `look_again`
sets `due`, and has it look once more before it says no; whoever gives back *stores, then looks* at `due`.
So no return between the two is missed, and one that nobody was refused for costs a single test.

Source: the store-then-look of Linux ``mm/mempool.c``, ``mempool_free``; the register is our own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, final

T = TypeVar("T")


@final
class Refused:
    """Calls (a pool's `kick`) to make, without any lock, once for each time that `due` was set."""

    __slots__ = ("calls", "due")

    def __init__(self) -> None:
        # A dictionary for its order, and because one step adds or drops, whoever else does.
        self.calls: dict[Callable[[], object], None] = {}
        self.due = False

    def add(self, call: Callable[[], object]) -> None:
        """Make `call` too, from the next refusal on."""
        self.calls[call] = None

    def drop(self, call: Callable[[], object]) -> None:
        """Do not make `call` any more; nothing if it was never added."""
        self.calls.pop(call, None)

    def look_again(self, look: Callable[..., T | None], *args: Any) -> T | None:
        """Before a no: publish that there is one, then `look`; None at once where nobody wants to hear of it.

        `look` raises what else has to be up for who gives back to come here, and tries once more.
        """
        if not self.calls:
            return None
        self.due = True
        return look(*args)

    def tell(self) -> None:
        """Something came back: make the calls, if anybody was refused since the last time."""
        for call in self.take():
            call()

    def take(self) -> tuple[Callable[[], object], ...]:
        """The calls that `tell` would make, for who holds a lock now and makes them after it."""
        if not self.due:  # not written unless it is set: somebody may be about to
            return ()
        self.due = False
        return tuple(self.calls)


def register(backend: Any, call: Callable[[], object]) -> None:
    """Have `call` made when `backend` has what it refused, if it can tell."""
    on_room = getattr(backend, "on_room", None)
    if on_room is not None:
        on_room(call)


def unregister(backend: Any, call: Callable[[], object]) -> None:
    """Undo `register`."""
    off_room = getattr(backend, "off_room", None)
    if off_room is not None:
        off_room(call)
