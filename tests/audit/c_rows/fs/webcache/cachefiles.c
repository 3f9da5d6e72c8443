/* Written for this test. */

#define cachefiles_mask (__GFP_RECLAIM | __GFP_NORETRY | __GFP_NOMEMALLOC)

static struct object *cachefiles_object(struct cache *cache)
{
	struct lookup *lookup;

	lookup = kmalloc(sizeof(*lookup), cachefiles_mask);
	if (!lookup)
		goto nomem;
	lookup->auxdata = cache;
	return &lookup->object;
nomem:
	return ERR_PTR(-ENOMEM);
}

int fscache_consistent(struct cookie *cookie)
{
	struct operation *op;

	op = kzalloc(sizeof(*op), GFP_NOIO | __GFP_NOMEMALLOC | __GFP_NORETRY);
	if (!op)
		return -ENOMEM;
	start(cookie, op);
	return 0;
}
