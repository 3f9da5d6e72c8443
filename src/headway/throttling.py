"""The face of dirty throttling. It decides nothing: it chooses the runtime where none is passed."""

from __future__ import annotations

from headway.core.mm import dirty
from headway.core.plan import Runtime
from headway.runtimes.scopes import ambient
from headway.runtimes.threads import THREADS


class DirtyThrottle(dirty.DirtyThrottle):
    """Limits on data that was accepted and not written yet: each writer gets the speed of his device.

    `limit` is what may be dirty at one time, `background` from where on flushers are to write (half
    of it, if not given). Above the middle between them ``device.dirtied(size)`` pauses its caller;
    whoever wrote the data says ``device.cleaned(size)``. ``group(name, limit)`` makes a smaller domain.

    >>> throttle = DirtyThrottle("64MiB")
    >>> disk = throttle.device("disk")
    >>> disk.dirtied(4096)
    >>> disk.cleaned(4096)
    >>> disk.stats().dirty
    0

    Raises: UsageError if the limits are none.
    """

    __slots__ = ()

    def __init__(
        self,
        limit: int | str,
        background: int | str | None = None,
        *,
        pacing: dirty.Pacing = dirty.Pacing.POSITION,
        name: str = "dirty",
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__(
            limit, background, runtime=runtime or ambient() or THREADS, pacing=pacing, name=name
        )
