"""What happens when nothing is left and nothing can be reclaimed: a policy, chosen by the user.

It does not look for memory (`headway.core.mm.slowpath` has done that). There is no policy that loops
in silence: each either fails the request, or makes somebody give back and says for how long it waits.

Source: Linux ``mm/oom_kill.c`` (6.12). Departures: one process cannot kill a part of itself, so a
victim is asked; and who may not wait for code above us is failed, not looped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias, final

from headway.core.mm.gfp import Gfp

GRACE_S: Final = 1.0  # how long what a victim gave back, or what others hold, is awaited


class Oom(Enum):
    """What a request gets when the zone is out of memory."""

    FAIL = "fail"  # None
    RAISE = "raise"  # NoMemory
    REFUSE = "refuse"  # others wait for it: newcomers get None at once until there is room again


@final
@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """What a victim callback is told. Units: bytes."""

    zone: str
    who: str  # the requester: a thread or a task
    user: str  # for which buffers
    size: int
    free: int
    reclaimable: int
    gfp: Gfp


#: Asked to make somebody give back; True if it did. Then the request goes on for a while.
Victim: TypeAlias = Callable[[OutOfMemory], bool]
