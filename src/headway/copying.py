"""Copies one device to another in a hard memory limit: the pieces below, joined.

It decides nothing of its own. `headway.core.block.copier` says how many frames there are and what
comes next, `headway.edge.copy` moves the bytes, `headway.edge.destination` makes the result appear;
this module gives them a zone and a pool of frames, and sums up in a `CopyReport`. It stands beside
`server`: both join a core object, the edge, and a face.

The bound: at most `memory` bytes of frames exist, whatever the size of the source. What CPython
needs for its own objects comes on top, and does not grow with the source.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import Any, final

from headway.core.block.copier import Capped, Sizing, size_frames
from headway.core.block.device import Device, Kind
from headway.core.block.stack import room
from headway.core.units import parse_size
from headway.devices import open_stack
from headway.edge import copy as engine
from headway.edge import pagecache
from headway.edge.destination import Destination, InPlace, open_destination
from headway.edge.files import FileDevice
from headway.edge.opening import is_in_memory, open_device
from headway.edge.passing import Moved
from headway.edge.passing import Progress as PassProgress
from headway.errors import BlockError, UsageError
from headway.threaded import Mempool, Zone

__all__ = ["CopyReport", "copy"]

Progress = Callable[[str, int, int], None]


@final
@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy did. Units: bytes and seconds, in the names or as said.

    `memory_peak` is the most bytes of frames leased at once, counted, never above `memory_limit`;
    `sha256` is None without hashing; `verified` is True if the destination was read back and is
    equal, None if that was not asked for.
    """

    bytes: int
    seconds: float
    memory_limit: int
    memory_peak: int
    reserve_uses: int
    waits: int
    longest_wait_s: float
    sha256: str | None
    verified: bool | None


def copy(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    memory: int | str | None = None,
    in_flight: int | None = None,
    request_size: int | str | None = None,
    verify: bool = False,
    hash: bool = True,
    starve: bool = False,
    preserve: bool = False,
    layers: Sequence[str] = (),
    source_layers: Sequence[str] = (),
    zone: Zone | None = None,
    progress: Progress | None = None,
) -> CopyReport:
    """Copy `src` to `dst`: paths, NBD URIs, `memory:SIZE`, `zero:SIZE`, `null:[SIZE]`.

    A destination file appears under its name only when complete and durable; after any failure the
    old one is untouched. `memory` (64MiB) is the limit of all frames, taken from `zone` if given,
    which several copies may share; used of it are `in_flight` (8) frames of `request_size` (1MiB), or
    4 of 512KiB where both sides are in memory. `starve` makes every allocation beyond the reserve
    fail: slower, never stuck. `verify` reads the destination back, in the same limit, before it
    appears. `layers` (``mirror,leg=PATH``) are put on the destination, and `source_layers` (``qcow2``)
    on the source, in the same limit, the outermost last. `preserve` keeps mode and times.
    `progress(stage, done, size)` is called here.

    Raises: UsageError if the request makes no sense (the source is the destination, a FIFO, a limit
    too small for one request); NoMemory if others hold so much of `zone` that two requests do not
    fit beside them now; BlockError, with the offset if known, if a device fails.
    Waits: for frames and devices; an exception in this thread (KeyboardInterrupt) ends it cleanly.
    """
    started_s = time.monotonic()
    request = None if request_size is None else parse_size(request_size, "request size")
    limit = _limit(memory, zone)
    size_frames(limit, request, in_flight)  # before anything is opened
    source_spec, target_spec = os.fspath(src), os.fspath(dst)
    with ExitStack() as opened:
        bottom = opened.enter_context(closing(open_device(source_spec)))
        status = _status(bottom, source_spec, preserve)
        source: Device = bottom
        held, apart = 0, [status] if status is not None else []
        if source_layers:
            if zone is None:
                zone = opened.enter_context(closing(Zone(limit, name="copy", min_free=0)))
            stack = open_stack(bottom, source_layers, memory=zone, starve=starve)
            source, held, apart = opened.enter_context(stack), stack.memory_bytes, [*stack.uses]
        destination = open_destination(target_spec, size=room(layers, source.size), apart=apart)
        try:
            _check_preservable(destination, target_spec, preserve)
            memory_only = is_in_memory(source) and is_in_memory(destination.device)
            sizing = size_frames(limit - held, request, in_flight, in_memory=memory_only)
            apart += _old_file(destination)
            job = _Job(source, destination, sizing, hash, verify, progress, layers, apart)
            stats, peak, digest = job.run(zone, limit - held, starve)
            destination.commit(status if preserve else None)
        except BaseException:
            destination.discard()
            raise
    return _report(source.size, started_s, limit, (stats, peak + held, digest), verify)


def _report(
    size: int, started_s: float, limit: int, ran: tuple[Any, int, str | None], verify: bool
) -> CopyReport:
    stats, peak, digest = ran
    return CopyReport(
        bytes=size,
        seconds=round(time.monotonic() - started_s, 6),
        memory_limit=limit,
        memory_peak=peak,
        reserve_uses=stats.reserve_uses,
        waits=stats.waits,
        longest_wait_s=stats.longest_wait_s,
        sha256=digest,
        verified=True if verify else None,
    )


def _check_preservable(destination: Destination, spec: str, preserve: bool) -> None:
    if preserve and isinstance(destination, InPlace):
        raise UsageError(f"{spec} is no file that could keep mode and times: leave --preserve out")


def _old_file(destination: Destination) -> list[os.stat_result]:
    """The old destination, which is whole until the end: no layer may write to it."""
    if not isinstance(destination, InPlace):
        with suppress(OSError, ValueError):
            return [os.stat(destination.device.name)]
    return []


def _limit(memory: int | str | None, zone: Zone | None) -> int:
    if memory is not None:
        return parse_size(memory, "memory")
    return parse_size("64MiB") if zone is None else zone.size


def _status(source: Device, spec: str, preserve: bool) -> os.stat_result | None:
    if source.kind is Kind.NULL and source.capacity is None:
        raise UsageError(
            "null: holds nothing to copy: use zero:SIZE for zeros, null:SIZE for a hole"
        )
    if isinstance(source, FileDevice):
        return os.fstat(source.fd)
    if preserve:
        raise UsageError(f"{spec} has no mode and times to preserve: leave --preserve out")
    return None


@final
class _Job:
    """One copy between open devices."""

    def __init__(
        self,
        source: Device,
        destination: Destination,
        sizing: Sizing,
        hashing: bool,
        verify: bool,
        progress: Progress | None,
        layers: Sequence[str],
        apart: Sequence[os.stat_result],
    ) -> None:
        if verify and destination.device.kind is Kind.NULL:
            raise UsageError(
                f"{destination.device.name} keeps nothing that could be verified: leave --verify out"
            )
        self._source = source
        self._target: Device = destination.device
        self._layers = layers
        self._apart = apart
        self._sizing = sizing
        self._hashing = hashing
        self._verify = verify
        self._progress = progress

    def run(self, zone: Zone | None, limit: int, starve: bool) -> tuple[Any, int, str | None]:
        """The pool's statistics, the peak in bytes, and the digest."""
        sizing = self._sizing
        size = limit if self._layers else sizing.in_flight * sizing.frame_size
        own = Zone(size, name="copy", min_free=0) if zone is None else None
        try:
            used = own if zone is None else zone
            assert used is not None
            if not self._layers:
                return self._with_buffers(used, starve)
            return self._through_layers(used, limit, starve)
        finally:
            if own is not None:
                own.close()

    def _through_layers(self, zone: Zone, limit: int, starve: bool) -> tuple[Any, int, str | None]:
        """With the layers' reserves taken from the zone first: they are needed, frames only help."""
        sizing = self._sizing
        with open_stack(
            self._target,
            self._layers,
            memory=zone,
            writable=True,
            in_flight=sizing.in_flight,
            starve=starve,
            create=True,
            private=True,
            apart_from=self._apart,
        ) as stacked:
            if stacked.size < self._source.size:
                raise UsageError(
                    f"{self._target.name} through its layers has {stacked.size} bytes; "
                    f"{self._source.name} has {self._source.size}: choose a larger destination"
                )
            self._target = stacked
            left = limit - stacked.memory_bytes
            self._sizing = size_frames(left, sizing.request_size, sizing.in_flight)
            stats, peak, digest = self._with_buffers(zone, starve)
            stacked.flush()
            return stats, peak + stacked.memory_bytes, digest

    def _with_buffers(self, zone: Zone, starve: bool) -> tuple[Any, int, str | None]:
        buffers = zone.buffers(self._sizing.request_size, name="copy")
        try:
            return self._with_frames(buffers, starve)
        finally:
            buffers.close()

    def _with_frames(self, buffers: Any, starve: bool) -> tuple[Any, int, str | None]:
        frames: Mempool[memoryview] = Mempool(
            Capped(buffers, self._sizing.in_flight),
            min_count=self._sizing.reserve,
            name="copy frames",
        )
        try:
            if starve:
                frames.inject(lambda: True)
            peak, digest = self._passes(frames, starve)
            return frames.stats(), peak, digest
        finally:
            frames.close()

    def _passes(self, frames: Mempool[memoryview], starve: bool) -> tuple[int, str | None]:
        sizing = self._sizing
        moved = Moved(None, 0)
        if self._hashing or starve or not self._cloned():
            moved = engine.transfer(
                self._source,
                self._target,
                frames,
                hashing=self._hashing,
                progress=self._stage("copy"),
                sizing=sizing,
            )
        if not self._verify:
            return moved.peak, moved.digest
        self._target.flush()
        stage = self._stage("verify")
        if not self._hashing:
            again = engine.compare(
                self._source,
                self._target,
                frames,
                sizing=sizing,
                progress=stage,
            )
            return max(moved.peak, again.peak), None
        again = engine.digest_of(
            self._target,
            self._source.size,
            frames,
            progress=stage,
            sizing=sizing,
        )
        if again.digest != moved.digest:
            raise BlockError(
                5,
                f"{self._target.name} differs from {self._source.name}: read back it has "
                f"sha256 {again.digest}, what was written had {moved.digest}",
            )
        return max(moved.peak, again.peak), moved.digest

    def _cloned(self) -> bool:
        """Share the blocks instead of moving bytes, where the file system can."""
        source, target = self._source, self._target
        return (
            isinstance(source, FileDevice)
            and isinstance(target, FileDevice)
            and source.kind is target.kind is Kind.FILE
            and pagecache.clone(source.fd, target.fd, source.size)
        )

    def _stage(self, name: str) -> PassProgress | None:
        progress = self._progress
        if progress is None:
            return None
        return lambda done, size: progress(name, done, size)
