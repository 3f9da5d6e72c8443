"""The rule noretry beside Coccinelle: the semantic patch says what it should, and findings are counted rightly."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench import audit_peer

SOURCE = """
int start(struct device *d)
{
	d->table = kmalloc(d->size, GFP_KERNEL | __GFP_NORETRY);
	if (!d->table)
		return -ENOMEM;
	return 0;
}

void *by_variable(struct device *d)
{
	gfp_t mask = GFP_KERNEL | __GFP_NORETRY;
	void *p;

	p = kmalloc(d->size, mask);
	if (!p)
		goto out;
	use(p);
out:
	return p;
}

void *twice(struct device *d)
{
	void *p = kmalloc(d->size, GFP_KERNEL);

	if (!p)
		return NULL;
	return p;
}
"""


@pytest.mark.skipif(shutil.which("spatch") is None, reason="Coccinelle is not installed")
def test_the_semantic_patch_names_what_gives_up_early(tmp_path: Path) -> None:
    (tmp_path / "drivers").mkdir()
    (tmp_path / "drivers" / "a.c").write_text(SOURCE)
    rows = audit_peer.rows(tmp_path, ".", [("drivers/a.c", "start")], 1.0)
    assert [row.case for row in rows[:1]] == ["noretry, cold, beside Coccinelle"]
    found = audit_peer._found(shutil.which("spatch") or "", tmp_path, ".")
    assert found == {("drivers/a.c", "start"), ("drivers/a.c", "by_variable")}


def test_precision_and_recall_are_of_what_was_read() -> None:
    ours = frozenset(
        {("mm/zswap.c", "zswap_pool_create"), ("net/smc/smc_loopback.c", "smc_lo_register_dmb")}
    )
    theirs = frozenset({("block/blk-mq.c", "blk_mq_alloc_hctx"), ("never/read.c", "f")})
    precision, recall, missed = audit_peer._judged(ours, theirs)
    assert (precision.value, precision.goal) == (0.5, 1.0)
    assert recall.value == recall.goal == pytest.approx(1 / 19)
    assert missed.value == 1 and missed.met is False
    assert "1 named here were not read" in missed.note
