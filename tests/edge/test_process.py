"""T2.6: the real prctl, with the capability and without it."""

from __future__ import annotations

import ctypes
import logging
import subprocess
import sys

import pytest

import headway as hw
from headway.edge import process
from headway.runtimes import scopes

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")

CAP_SYS_RESOURCE = 24
PR_CAPBSET_DROP = 24
NOBODY = 65534

WITHOUT = f"""
import ctypes, logging, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if os.getuid() == 0:  # what root runs keeps every capability but those dropped here, until it is nobody
    import headway  # while its files can still be read
    zero = ctypes.c_ulong(0)
    libc.prctl({PR_CAPBSET_DROP}, ctypes.c_ulong({CAP_SYS_RESOURCE}), zero, zero, zero)
    os.setgid({NOBODY})
    os.setuid({NOBODY})
import headway as hw
logging.basicConfig(format="%(message)s")
with hw.io_flusher() as flusher:
    print(flusher.kernel, flusher.reason)
    print(hw.effective(hw.Gfp.KERNEL) == hw.Gfp.NOIO)
try:
    with hw.io_flusher(required=True):
        print("entered")
except hw.UsageError as error:
    print(error)
print(hw.effective(hw.Gfp.KERNEL) == hw.Gfp.KERNEL)
"""


def kernel_says() -> int:
    answer, failed = process._prctl(process.PR_GET_IO_FLUSHER)
    return -failed or answer


def privileged() -> bool:
    return sys.platform.startswith("linux") and kernel_says() >= 0


@linux
def test_t2_6_without_the_capability_it_says_so_and_opens_the_scope() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    why = "it needs the capability CAP_SYS_RESOURCE; run with it, or as root of the host"
    assert done.stdout.splitlines() == [
        f"False {why}",
        "True",
        f"io_flusher: the kernel was not told: {why}",
        "True",
    ]
    assert done.stderr.count("the kernel was not told") == 1


@linux
def test_t2_6_with_the_capability_the_kernel_knows_inside_and_only_there() -> None:
    if not privileged():
        pytest.skip("needs the capability CAP_SYS_RESOURCE")
    assert kernel_says() == 0
    with hw.io_flusher(required=True) as outer:
        assert outer.kernel and outer.reason is None and kernel_says() == 1
        with hw.io_flusher():
            assert kernel_says() == 1
        assert kernel_says() == 1
    assert kernel_says() == 0


def test_t2_6_the_scope_is_open_whatever_the_kernel_says(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "headway"), hw.io_flusher() as flusher:
        assert scopes.effective() == hw.Gfp.NOIO
        assert flusher.kernel is (flusher.reason is None)
        assert len(caplog.records) == (0 if flusher.kernel else 1)
        assert ("known" in repr(flusher)) is flusher.kernel
    assert scopes.effective() == hw.Gfp.KERNEL and not flusher.kernel


@linux
def test_the_answer_of_the_kernel_is_the_kernels() -> None:
    """The wrapper is no stub: an option that does not exist is refused by the real call."""
    assert process._prctl(0x7FFFFFFF) == (0, 22) and ctypes.get_errno() == 22
