"""A device behind a host, seen as a layer: each bio is one command, with a deadline.

It does not know the device's language: a command is ``(op, offset, length)``, and the host's transport
makes of it what it likes. The device never sees the memory of whoever is above, but buffers of this
layer's own: if it does not answer, the bio fails with `DeviceTimeout` and its memory is its owner's
again at once, while the buffer is quarantined. So a mirror drops a leg whose peer freezes, and goes on.
Reserves: the buffers' pool, whose elements are `size` bytes, and 2 bios to split with.

Bound: a bio that has its buffer ends within the host's timeout.

Source: own; Linux ``drivers/block/nbd.c`` for time-outs of a remote device.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from headway.core.block.bio import READ, WRITE, Bio
from headway.core.block.bioset import BioSet
from headway.core.block.command import Completion
from headway.core.block.host import Host
from headway.core.block.layer import Layer
from headway.core.block.limits import Limits
from headway.core.block.line import Line
from headway.core.mm.mempool import Mempool
from headway.core.plan import Plan, spawn


class Hosted(Layer):
    """The lowest layer, over `host`; `device_bytes` is what the device has, `alignment` its block.

    Its timekeeper runs from `start` to `close`. The host is closed with it.
    """

    def __init__(
        self,
        host: Host,
        device_bytes: int,
        buffers: Mempool[memoryview],
        buffer_bytes: int,
        splits: BioSet,
        *,
        alignment: int = 1,
    ) -> None:
        self.name = host.name
        self.size = device_bytes
        self.limits = Limits(alignment, buffer_bytes // alignment * alignment)
        self.splits = splits
        self.host = host
        self._buffers = buffers

    def submit(self, bio: Bio, line: Line) -> Plan[None] | None:
        if bio.op is READ or bio.op is WRITE:
            return self._with_buffer(bio, line)
        command = (bio.op, bio.offset, bio.length)
        self.host.execute(command, (), partial(self._ended, bio, None))
        return None

    def _with_buffer(self, bio: Bio, line: Line) -> Plan[None]:
        pool = self._buffers
        [buffer] = yield from line.take(pool)
        assert bio.view is not None
        if bio.op is WRITE:
            buffer[: bio.length] = bio.view
        pool.hand_over(buffer)
        command = (bio.op, bio.offset, bio.length)
        try:
            self.host.execute(command, (buffer,), partial(self._ended, bio, buffer), home=pool)
        except BaseException:  # the host is closed
            pool.free(buffer)
            raise

    def _ended(self, bio: Bio, buffer: memoryview | None, completion: Completion) -> None:
        if completion.sg and buffer is not None:  # else it is quarantined
            if bio.op is READ and completion.error is None and bio.view is not None:
                bio.view[:] = buffer[: bio.length]
            self._buffers.free(buffer)
        bio.complete(completion.error)

    def start(self) -> Plan[None]:
        yield from spawn(self.host.keep_time(), f"{self.name} timekeeper")

    def close(self) -> None:
        self.host.close()

    def stats(self) -> dict[str, Any]:
        stats = self.host.stats()
        return {"in_flight": stats.in_flight, "timeouts": stats.timeouts, "late": stats.late,
                "quarantined": stats.quarantined, "spare_uses": stats.spare_uses}  # fmt: skip
