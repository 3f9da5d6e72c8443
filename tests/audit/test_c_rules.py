"""Each C rule: what it finds, and the correct twin in which it finds nothing."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path

import pytest

from headway.audit.finding import Options
from headway.audit.scan import audit
from tests.audit.c_pools import ON_POOLS

# (rule, verdict found or "", the body of a C file)
SNIPPETS = [
    *ON_POOLS,
    ("gfp-flags", "conflicting-flags", """
void *get(size_t n)
{
	return kmalloc(n, GFP_KERNEL | GFP_NOFS);
}
"""),
    ("gfp-flags", "useless-flag", """
void *get(size_t n)
{
	return kmalloc(n, GFP_ATOMIC | __GFP_RETRY_MAYFAIL);
}
"""),
    ("gfp-flags", "", """
void *get(size_t n, bool wait)
{
	return kmalloc(n, (wait ? GFP_KERNEL : GFP_ATOMIC) | __GFP_NOWARN);
}
"""),
    ("nofail", "nofail-cannot-wait", """
void *get(size_t n)
{
	return kmalloc(n, GFP_NOWAIT | __GFP_NOFAIL);
}
"""),
    ("nofail", "nofail-high-order", """
struct page *get(void)
{
	return alloc_pages(GFP_KERNEL | __GFP_NOFAIL, 4);
}
"""),
    ("nofail", "nofail-tested", """
void *get(size_t n)
{
	void *p = kmalloc(n, GFP_KERNEL | __GFP_NOFAIL);

	if (!p)
		return NULL;
	return p;
}
"""),
    ("nofail", "", """
void *get(size_t n)
{
	void *p = kmalloc(n, GFP_KERNEL | __GFP_NOFAIL);

	use(p);
	return p;
}
"""),
    ("scopes", "scope-left-open", """
int sync_all(struct fs *fs)
{
	unsigned int flags = memalloc_nofs_save();
	int error = write_all(fs);

	if (error)
		return error;
	memalloc_nofs_restore(flags);
	return 0;
}
"""),
    ("scopes", "", """
int sync_all(struct fs *fs, bool inner)
{
	unsigned int flags;
	int error;

	if (inner)
		flags = memalloc_nofs_save();
	error = write_all(fs, kmalloc(8, GFP_KERNEL));
	if (inner)
		memalloc_nofs_restore(flags);
	return error;
}
"""),
    ("scopes", "redundant-in-scope", """
int sync_all(struct fs *fs)
{
	unsigned int flags = memalloc_nofs_save();

	fs->buffer = kmalloc(8, GFP_NOFS);
	memalloc_nofs_restore(flags);
	return 0;
}
"""),
    ("shrinker", "shrinker-allocates", """
static unsigned long cache_scan(struct shrinker *s, struct shrink_control *sc)
{
	void **batch = kmalloc(sc->nr_to_scan * sizeof(void *), GFP_KERNEL);

	if (!batch)
		return SHRINK_STOP;
	return drop(batch);
}
"""),
    ("shrinker", "", """
static unsigned long cache_scan(struct shrinker *s, struct shrink_control *sc)
{
	void **batch = kmalloc(sc->nr_to_scan * sizeof(void *), GFP_NOWAIT);

	return batch ? drop(batch) : SHRINK_STOP;
}
"""),
    ("worth-a-scope", "convert-to-scope", """
int log_two(struct log *l)
{
	l->a = kmalloc(1, GFP_NOFS);
	l->b = kmalloc(2, GFP_NOFS);
	return l->a && l->b ? 0 : -ENOMEM;
}
"""),
    ("worth-a-scope", "", """
int log_two(struct log *l)
{
	unsigned int flags = memalloc_nofs_save();

	l->a = kmalloc(1, GFP_KERNEL);
	l->b = kmalloc(2, GFP_NOFS);
	memalloc_nofs_restore(flags);
	return l->a && l->b ? 0 : -ENOMEM;
}
"""),
    ("noretry", "bug-missing-fallback", """
static bool remember(struct list *all, struct queue *q)
{
	struct note *n = kmalloc(sizeof(*n), GFP_NOIO | __GFP_NORETRY);

	if (!n)
		return false;
	add(n, all);
	return true;
}

void update_queues(struct set *s)
{
	if (!remember(&s->all, s->q))
		goto back;
	change(s);
back:
	thaw(s);
}
"""),
    ("noretry", "bug-keeps-flag", """
void *report_buffer(size_t size)
{
	void *buf;

	while (size >= SMALLEST) {
		buf = kvmalloc(size, GFP_KERNEL | __GFP_NORETRY);
		if (buf)
			return buf;
		size >>= 1;
	}
	return NULL;
}
"""),
    ("noretry", "useless-flag", """
int log_note(void)
{
	struct note *n = kmalloc(sizeof(*n), GFP_ATOMIC | __GFP_NORETRY);

	if (!n)
		return -ENOMEM;
	add(n);
	return 0;
}
"""),
    ("noretry", "readahead-only", """
void prefetch(struct dev *d)
{
	struct work *w = kmalloc(sizeof(*w), GFP_NOIO | __GFP_NORETRY);

	if (!w)
		return;
	queue(w);
}
"""),
]  # fmt: skip


def found_in(tmp_path: Path, text: str, rule: str) -> list[str]:
    (tmp_path / "a.c").write_text(text)
    with chdir(tmp_path):
        report = audit(["a.c"], Options(only=frozenset((rule,))))
    assert report.skipped == ()
    return [finding.verdict for finding in report.findings]


@pytest.mark.parametrize(
    ("rule", "verdict", "text"),
    SNIPPETS,
    ids=[f"{n}-{s[0]}-{s[1]}" for n, s in enumerate(SNIPPETS)],
)
def test_a_rule_finds_what_it_should_and_no_more(
    tmp_path: Path, rule: str, verdict: str, text: str
) -> None:
    found = found_in(tmp_path, text, rule)
    assert set(found) == ({verdict} if verdict else set())


def test_gfp_kernel_inside_a_scope_is_never_named(tmp_path: Path) -> None:
    text = next(t for r, v, t in SNIPPETS if (r, v) == ("scopes", "redundant-in-scope"))
    assert found_in(tmp_path, text.replace("GFP_NOFS", "GFP_KERNEL"), "scopes") == []
