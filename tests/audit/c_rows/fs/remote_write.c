/* Written for this test. */

struct commit *commit_alloc(bool never_fail)
{
	struct commit *p;

	if (never_fail)
		p = mempool_alloc(commit_pool, GFP_NOIO);
	else {
		p = mempool_alloc(commit_pool, GFP_NOWAIT);
		if (!p)
			p = kmem_cache_alloc(commit_cache, GFP_NOIO | __GFP_NOWARN | __GFP_NORETRY);
		if (!p)
			return NULL;
	}
	memset(p, 0, sizeof(*p));
	return p;
}
