"""Each C rule: what it finds, and the correct twin in which it finds nothing."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path

import pytest

from headway.audit.finding import Options
from headway.audit.scan import audit

# (rule, verdict found or "", the body of a C file)
SNIPPETS = [
    ("unchecked", "unchecked-result", """
int grow(struct list *l)
{
	struct item *p = kmalloc(sizeof(*p), GFP_KERNEL);

	p->next = l->first;
	l->first = p;
	return 0;
}
"""),
    ("unchecked", "", """
int grow(struct list *l)
{
	struct item *p = kmalloc(sizeof(*p), GFP_KERNEL);

	if (NULL == p || l->closed)
		return -ENOMEM;
	p->next = l->first;
	return 0;
}
"""),
    ("unchecked", "", """
int grow(struct list *l)
{
	l->first = kzalloc(sizeof(*l->first), GFP_NOFS | __GFP_NOFAIL);
	l->first->next = NULL;
	return 0;
}
"""),
    ("unchecked", "", """
int grow(struct list *l)
{
	struct item *p = kmalloc(sizeof(*p), GFP_KERNEL);

	if (WARN_ON(!p))
		goto out;
	BUG_ON(l->first);
	p->next = NULL;
out:
	return l->error;
}
"""),
    ("unchecked", "unchecked-result", """
void fill(struct table *t, int n)
{
	int i;

	t->rows = kcalloc(n, sizeof(*t->rows), GFP_KERNEL);
	for (i = 0; i < n; i++)
		t->rows[i] = i;
}
"""),
    ("golden-rule", "takes-while-holding", """
static void bounce(struct bio *bio)
{
	struct page *page;

	bio_for_each_segment_all(vec, bio, iter) {
		page = mempool_alloc(&page_pool, GFP_NOIO);
		vec->page = page;
	}
	submit_bio(bio);
}
"""),
    ("golden-rule", "", """
static void bounce(struct bio *bio)
{
	struct page *page;

	while (more(bio)) {
		page = mempool_alloc(&page_pool, GFP_NOIO);
		submit_page(page);
	}
}
"""),
    ("golden-rule", "", """
static void bounce(struct bio *bio)
{
	mutex_lock(&bounce_lock);
	while (more(bio))
		add(bio, mempool_alloc(&page_pool, GFP_NOIO));
	mutex_unlock(&bounce_lock);
}
"""),
    ("golden-rule", "", """
static void bounce(struct bio *bio)
{
	while (more(bio))
		add(bio, mempool_alloc(&page_pool, GFP_NOWAIT));
}
"""),
    ("golden-rule", "takes-while-holding", """
static void *header(struct log *log)
{
	return mempool_alloc(log->pool, GFP_NOFS);
}

static void commit(struct log *log)
{
	void *body = mempool_alloc(log->pool, GFP_NOFS);
	void *head = header(log);

	write_both(log, head, body);
}
"""),
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
    ("mempool-result", "mempool-unchecked", """
void note(struct log *log)
{
	struct entry *e = mempool_alloc(log->pool, GFP_ATOMIC);

	e->at = now();
}
"""),
    ("mempool-result", "mempool-dead-test", """
int note(struct log *log)
{
	struct entry *e = mempool_alloc(log->pool, GFP_NOIO);

	if (!e)
		return -ENOMEM;
	e->at = now();
	return 0;
}
"""),
    ("mempool-result", "", """
int note(struct log *log, gfp_t gfp)
{
	struct entry *e = mempool_alloc(log->pool, gfp);

	if (!e)
		return -ENOMEM;
	e->at = now();
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
    ("golden-rule", "", """
static int fill(struct queue *q, int n)
{
	int i;

	for (i = 0; i < n; i++) {
		struct reply *r = mempool_alloc(q->replies, GFP_KERNEL);

		list_add_tail(&r->list, &q->free);
	}
	return 0;
}

static int start(struct queue *q)
{
	q->replies = mempool_create(q->credits, mempool_alloc_slab, mempool_free_slab, q->cache);
	return fill(q, q->credits);
}
"""),
    ("golden-rule", "takes-while-holding", """
static int fill(struct queue *q, int n)
{
	int i;

	for (i = 0; i < n; i++) {
		struct reply *r = mempool_alloc(q->replies, GFP_KERNEL);

		list_add_tail(&r->list, &q->free);
	}
	return 0;
}

static int start(struct queue *q)
{
	q->replies = mempool_create(4, mempool_alloc_slab, mempool_free_slab, q->cache);
	return fill(q, q->credits);
}
"""),
    ("golden-rule", "", """
static void fill(struct queue *q)
{
	int i;

	mempool_init_page_pool(&q->pages, 16, 0);
	for (i = 0; i < 16; i++)
		q->page[i] = mempool_alloc(&q->pages, GFP_NOIO);
}
"""),
    ("unchecked", "", """
int load(struct dev *d, void *from, int size)
{
	void *data = kmalloc(size, GFP_KERNEL);
	int ret;

	if (ret = -ENOMEM, !data)
		goto out;
	if (ret = -EFAULT, copy_from_user(data, from, size))
		goto out;
	ret = 0;
out:
	return ret;
}
"""),
    ("unchecked", "", """
int load(struct dev *d)
{
	d->table = kzalloc(sizeof(*d->table), GFP_KERNEL);

	MUST_HOLD_WITH_CODE((NULL != d->table), "no table", return -ENOMEM);
	memset(d->table, 1, sizeof(*d->table));
	return 0;
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
