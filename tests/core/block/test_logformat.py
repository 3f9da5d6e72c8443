"""A write cache's superblocks: the newer one, from where it can be."""

from __future__ import annotations

import pytest

from headway.core.block import logformat


@pytest.mark.parametrize("block", [1024, 2048, 4096])
def test_what_users_write_is_never_taken_for_a_superblock(block: int) -> None:
    """With blocks of 512 bytes the ring begins where larger ones would have their second superblock."""
    form, state = logformat.fit(1 << 16, 1 << 16, 512, 5), logformat.State(4, 3, 60, 9, 2)
    raw = form.superblock(state) + form.superblock(state._replace(generation=3))
    raw = raw.ljust(block, b"?")
    for forged in (form, logformat.fit(1 << 16, 1 << 16, block, 5)):
        fake = forged.superblock(logformat.State(99, 1, 0, 1, 0)).ljust(512)
        whole = (raw + fake).ljust(8192, b"?")
        assert logformat.parse(whole, 1 << 16, 1 << 16) == (form, state)
