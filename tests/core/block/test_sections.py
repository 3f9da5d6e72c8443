"""The journal of two sections, on a device that fails: what it keeps of that, and what it does not."""

from __future__ import annotations

import errno
import gc
import traceback

import pytest

import headway as hw
from headway.core.block.bio import untraced
from headway.edge.memory_devices import MemoryDevice
from headway.errors import BlockError, DeviceTimeout


class Failing(MemoryDevice):
    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.bad = False

    def pwrite(self, view: memoryview, offset: int) -> None:
        if self.bad:
            raise BlockError(errno.EIO, "the disk has died", offset=offset)
        super().pwrite(view, offset)


@pytest.mark.parametrize("spec", ["integrity,create=yes", "thin,create=yes,extent=64KiB"])
def test_a_failure_that_is_kept_holds_no_buffer_and_no_traceback_that_grows(spec: str) -> None:
    """Nor is memory given back only when somebody collects garbage."""
    disk, told = Failing(1 << 20), []
    gc.disable()
    try:
        with hw.Zone("2MiB", min_free=0) as zone:
            stack = hw.open_stack(disk, [spec], memory=zone, writable=True)
            stack.pwrite(memoryview(bytes(8192)), 0)
            disk.bad = True
            for _ in range(3):
                with pytest.raises(BlockError, match="has died") as caught:
                    stack.flush()
                told.append(caught.value)
            stack.close()
    finally:
        gc.enable()
    assert [error.errno for error in told] == [errno.EIO] * 3
    assert len({len(list(traceback.walk_tb(error.__traceback__))) for error in told}) == 1


def test_an_error_without_its_traceback_says_all_the_same() -> None:
    late = DeviceTimeout(errno.ETIMEDOUT, "no answer", offset=7, timeout_s=2.5)
    for error in (late, BlockError(5, "bad", offset=9), RuntimeError("no thread"), OSError(5, "x")):
        try:
            raise error from ValueError("why")
        except Exception as caught:
            fresh = untraced(caught)
        assert type(fresh) is type(error) and fresh is not error
        assert (str(fresh), fresh.args, vars(fresh)) == (str(error), error.args, vars(error))
        assert getattr(fresh, "errno", None) == getattr(error, "errno", None)
        assert (fresh.__traceback__, fresh.__cause__, fresh.__context__) == (None, None, None)
