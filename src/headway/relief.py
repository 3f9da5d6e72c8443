"""A zone that gives way to the rest of the machine: pressure from outside, carried to its balloon and back.

It decides nothing: `headway.core.mm.balloon` says how far, `headway.edge.pressure_signal` says when, and
`headway.edge.pressure` how much is left. One thread waits for the signal, or for `look_s` at most, so
that limits without any signal (cgroups of version 1, a kernel without PSI) are seen as well.

Bound: a look reads a few small files, and moves at most what is free in the zone and in its caches.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

from headway.core.mm.balloon import CALM_S, Pace
from headway.core.units import format_size, parse_size
from headway.edge.pressure import Memory, read_memory
from headway.edge.pressure_signal import STALL_MS, WINDOW_MS, PressureSignal
from headway.edge.zone import Zone
from headway.errors import UsageError

__all__ = ["Relief", "ReliefStats"]

LOOK_S: Final = 1.0
MARGIN_PART: Final = 16  # of the limit outside
LEAST_MARGIN: Final = 16 << 20

log = logging.getLogger("headway")


@final
@dataclass(frozen=True, slots=True)
class ReliefStats:
    """A snapshot. Units: bytes, except the counts."""

    how: str  # systemd, trigger, polling, off
    looks: int
    pressed: int  # how often a signal, or too little room, was found
    given: int  # in all
    taken: int  # in all
    margin: int


@final
class Relief:
    """Have `zone` give free pages to the system under pressure, and take them again after it.

    `margin`: so much is to stay free outside (below the tightest limit; None: a sixteenth of it, at
    least 16 MiB). `look_s`: how often to look where nothing tells. `root` and `environ` say where the
    system's files and systemd's variables are. It works while its ``with`` block runs, or until
    `close`; the zone's floors and its mark `high` always stay.

    >>> from headway import Zone
    >>> with Zone("8MiB", min_free=0) as zone, Relief(zone) as relief:
    ...     relief.stats().how in ("systemd", "trigger", "polling", "off")
    True

    Raises: UsageError if the arguments make no sense, or systemd's variables cannot be understood.
    """

    __slots__ = ("_ending", "_pace", "_root", "_signal", "_tally", "_thread", "zone")

    def __init__(
        self,
        zone: Zone,
        *,
        margin: int | str | None = None,
        look_s: float = LOOK_S,
        calm_s: float = CALM_S,
        stall_ms: int = STALL_MS,
        window_ms: int = WINDOW_MS,
        root: str | os.PathLike[str] = "/",
        environ: Mapping[str, str] | None = None,
        thread: bool = True,
    ) -> None:
        if look_s <= 0 or calm_s < 0:
            raise UsageError(
                f"relief of zone {zone.name!r}: look_s={look_s}, calm_s={calm_s}; the first must be "
                "more than 0, the second 0 or more"
            )
        self.zone = zone
        self._root = root
        if margin is None:
            limit = read_memory(root).limit or 0
            margin = max(LEAST_MARGIN, limit // MARGIN_PART)
        self._pace = Pace(parse_size(margin, f"margin of zone {zone.name!r}"), calm_s)
        self._tally = {"looks": 0, "pressed": 0, "given": 0, "taken": 0}
        self._signal = PressureSignal(
            root=root, environ=environ, stall_ms=stall_ms, window_ms=window_ms
        )
        self._ending = threading.Lock()
        self._thread: threading.Thread | None = None
        if thread:
            self._thread = threading.Thread(
                target=self._watch, args=(look_s,), name=f"relief of {zone.name}", daemon=True
            )
            self._thread.start()

    def look(self, pressed: bool = False) -> int:
        """Look once, now: what was given to the system (positive) or taken back (negative).

        `pressed` says that a signal came. This is what the thread does; without one (``thread=False``)
        call it from wherever suits. Waits: for caches that are asked to make room.
        """
        memory = read_memory(self._root)
        stats = self.zone.stats()
        move = self._pace.move(
            pressed=pressed,
            headroom=memory.headroom,
            spare=self.zone.spare + stats.clean,
            out=stats.given_back,
            now_s=time.monotonic(),
        )
        tally = self._tally
        tally["looks"] += 1
        if move > 0:
            tally["pressed"] += 1
            return self._give(move, memory)
        if move < 0:
            taken = self.zone.take_back(-move)
            tally["taken"] += taken
            return -taken
        return 0

    def _give(self, move: int, memory: Memory) -> int:
        given = self.zone.give_back(move)
        _trim_heap()  # what the caches dropped is free for malloc, which keeps it
        self._tally["given"] += given
        if given:
            log.info("zone %r gave back %s: %s", self.zone.name, format_size(given), memory)
        return given

    def _watch(self, look_s: float) -> None:
        while True:
            pressed = self._signal.wait(look_s)
            if self._signal.stopped:
                return
            try:
                self.look(pressed)
            except Exception:  # a cache's write-back, say: the next look is another chance
                log.exception("relief of zone %r: a look failed", self.zone.name)

    def stats(self) -> ReliefStats:
        return ReliefStats(how=self._signal.how, margin=self._pace.margin, **self._tally)

    def close(self) -> None:
        """Stop watching; what was given back stays so until the zone asks. Waits: for a look under way."""
        with self._ending:
            if self._signal.stopped:
                return
            self._signal.stop()
        if self._thread is not None:
            self._thread.join()
        self._signal.close()

    def __enter__(self) -> Relief:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        stats = self.stats()
        return (
            f"<Relief of zone {self.zone.name!r} by {stats.how}: {format_size(stats.given)} given, "
            f"{format_size(stats.taken)} taken again, in {stats.looks} looks>"
        )


def _trim_heap() -> None:
    """Have the C library give free memory to the system, where it is one that can."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        pass
