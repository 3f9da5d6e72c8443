"""How much of a file or a block device is given back at once: what discards should be multiples of.

It decides nothing, and asks once for each open file. A file system gives back its blocks, and writes zeros into
what a hole has of others; a block device refuses what is no whole logical block, and ignores what is no whole
unit of its discards.

Source: sysfs-block(5) on ``queue/discard_granularity``; Linux ``block/fops.c`` (``blkdev_fallocate``, 6.12).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

_SECTOR: Final = 512
_KEYS: Final = ("logical_block_size", "discard_granularity")


def granularity_of(fd: int, found: os.stat_result, sysfs: str = "/sys/dev/block") -> int:
    """Bytes: 1 if nobody can say."""
    if stat.S_ISBLK(found.st_mode):
        return _of_block_device(Path(sysfs), found.st_rdev)
    try:
        return max(1, os.fstatvfs(fd).f_frsize)
    except (AttributeError, OSError):
        return 1


def _of_block_device(sysfs: Path, device: int) -> int:
    place = sysfs / f"{os.major(device)}:{os.minor(device)}"
    most = _SECTOR
    for key in _KEYS:
        for queue in (
            place / "queue",
            place.resolve().parent / "queue",
        ):  # of a partition: its disk's
            try:
                most = max(most, int((queue / key).read_text()))
                break
            except (OSError, ValueError):
                continue
    return most
