"""Who can make room in a budget: a callback of its owner's, or a cache that is charged to it.

It does not decide whom to ask, or when (`headway.core.mm.charging` does). A callback is given a number of
units and says how many it freed. A cache is a plan, and is asked twice: to look at so many units' worth and
drop what is idle, and *hard*, for that many of whatever may be dropped, if all those asked together have
too little that is idle. Each works on behalf of the requester, under his scope, and never asks for room
itself. It may fail: then it is not asked again in this run, and its owner is told.

Source: Linux ``mm/vmscan.c``, ``shrink_node_memcgs``: each group below the one that is over, in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias, final

from headway.core.mm.gfp import Gfp, Scope
from headway.core.mm.raised import Raised
from headway.core.plan import Plan, offload

Reclaim: TypeAlias = Callable[[int], int | None]
#: units, mask, scope, hard -> units freed
Give: TypeAlias = Callable[[int, int, int, bool], Plan[int]]

STOP: Final = -1  # it raised
_FS, _NORECLAIM = int(Gfp.FS), int(Scope.NORECLAIM)


@final
class Giver:
    """Something whose units come home to `account`. It is code above us (FS), unless it is a cache."""

    __slots__ = ("_call", "_give", "account", "name", "raised")

    def __init__(
        self, account: Any, name: str, call: Reclaim | None, give: Give | None = None
    ) -> None:
        self.account = account  # a level (`headway.core.mm.account`, which stands on this)
        self.name = name
        self.raised = Raised()
        self._call = call
        self._give = give

    @property
    def is_callback(self) -> bool:
        """Whether it belongs to the budget itself, and ends with it."""
        return self._call is not None

    def may_be_asked(self, mask: int, hard: bool) -> bool:
        """Whether a request with this mask may ask it; a callback knows no harder way."""
        return self._give is not None or (bool(mask & _FS) and not hard)

    def ask(self, units: int, mask: int, scope: int, hard: bool) -> Plan[int]:
        """Have it free `units`; how many it says it freed, or STOP. Asks: Offload, Park."""
        freed: int | None
        try:
            if self._give is not None:
                freed = yield from self._give(units, mask, scope | _NORECLAIM, hard)
            else:
                assert self._call is not None
                freed = yield from offload(self._call, units, scope=scope | _NORECLAIM)
            return max(freed or 0, 0)
        except Exception as error:
            self.raised.note(
                self.account.runtime, f"budget {self.account.name!r}: {self.name}", error
            )
            return STOP
