"""Passing one's own bio to a layer, at once if that can be, and hearing of its end either way.

It does not decide what is asked for. Whoever sends has pushed a hook, which is called exactly once: when the
bio is complete, or could not be passed on, or its sender was cancelled first. So what the bio's memory
belongs to is settled by the hook, and the sender need not be there any more.

Source: own.
"""

from __future__ import annotations

from typing import Any, Protocol

from headway.core.block import line
from headway.core.block.bio import Bio, Withdrawn, withdrawn
from headway.core.block.layer import Layer
from headway.core.plan import Call, Offload, Plan, Ticket, park


class Sender(Protocol):
    """Who sends: to which layer; `offloads`: moving bytes may take long, so no loop may do it itself."""

    @property
    def name(self) -> str: ...
    @property
    def layer(self) -> Layer: ...
    @property
    def offloads(self) -> bool: ...


def send(sender: Sender, bio: Bio, scope: int = 0) -> Plan[None]:
    """Pass a bio on; its hook hears of its end, which may be before this returns.

    Asks: Call, or Offload where it may take long; and what the layers ask. `scope` is in force for it.
    """
    try:
        if sender.offloads:
            done = yield Offload(
                _at_once, (sender, bio), scope, lambda done: _unsent(sender, bio, done)
            )
        else:
            done = yield Call(_at_once, (sender, bio), scope)
    except Exception as error:  # no worker could be started
        bio.complete(error)
        return
    if not done:
        yield from line.submit(sender.layer, bio)


def carry_out(sender: Sender, bio: Bio, home: Any, who: str, scope: int = 0) -> Plan[None]:
    """Pass a bio on and wait for its end; ``home(bio)`` is called then, whatever becomes of us.

    Raises: what the bio failed with.
    """
    ended: list[BaseException | None] = []
    ticket = Ticket(who)

    def over(bio: Bio) -> bool:
        ended.append(bio.error)
        home(bio)
        ticket.wake()
        return True

    bio.push(over)
    yield from send(sender, bio, scope)
    if not ended:
        yield from park(ticket)
    if ended[0] is not None:
        raise ended[0]


def _at_once(sender: Sender, bio: Bio) -> bool:
    try:
        if not sender.layer.submit_now(bio):
            return False
    except Exception as error:
        bio.error = bio.error or error
    except BaseException:
        bio.complete(_cancelled(sender, bio))
        raise
    bio.complete()
    return True


def _unsent(sender: Sender, bio: Bio, done: bool) -> None:
    if not done:
        bio.complete(_cancelled(sender, bio))


def _cancelled(sender: Sender, bio: Bio) -> Withdrawn:
    return withdrawn(bio, sender.name)
