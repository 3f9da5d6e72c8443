"""The face for threads: what it adds to the parts it joins."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import headway as hw


@pytest.mark.parametrize("shift", [0, 1, 511])
def test_direct_io_with_memory_that_is_not_aligned_bounces(tmp_path: Path, shift: int) -> None:
    path = tmp_path / "data"
    data = os.urandom(3 << 20)
    path.write_bytes(data)
    device = hw.open_device(str(path), direct=True)
    try:
        memory = memoryview(bytearray((1 << 20) + shift))[shift:]
        device.pread_into(memory, 1 << 20)
        assert memory == data[1 << 20 : 2 << 20]
    finally:
        device.close()


def test_what_is_no_backend_is_refused_at_once() -> None:
    with pytest.raises(hw.UsageError, match=r"backend has alloc and free.*Mempool\.of"):
        hw.Mempool(5)  # type: ignore[arg-type]
