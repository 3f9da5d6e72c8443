"""C snippets for the rules on results and pools: (rule, verdict or "", text); see `test_c_rules`."""

from __future__ import annotations

ON_POOLS = [
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
]  # fmt: skip
