/* Written for this test. */

#include "../include/drive.h"

static struct tracked *track_object(unsigned long ptr, size_t size, gfp_t gfp)
{
	struct tracked *object;

	object = kmem_cache_alloc(tracked_cache, gfp_of_tracker(gfp));
	if (!object) {
		pr_warn("cannot track\n");
		tracker_disable();
		return NULL;
	}
	object->pointer = ptr;
	return object;
}

static struct zpool *packed_pool_create(char *type, char *compressor)
{
	struct packed_pool *pool;
	gfp_t gfp = __GFP_NORETRY | __GFP_NOWARN | __GFP_KSWAPD_RECLAIM;

	pool = kzalloc(sizeof(*pool), GFP_KERNEL);
	if (!pool)
		return NULL;
	pool->zpool = zpool_create_pool(type, "packed", gfp, &ops);
	if (!pool->zpool)
		goto error;
	return pool;
error:
	kfree(pool);
	return NULL;
}

static int packed_frontswap_store(unsigned type, pgoff_t offset, struct page *page)
{
	unsigned long handle;
	int ret;

	ret = zpool_malloc(pool_now(), PAGE_SIZE / 2,
			   __GFP_NORETRY | __GFP_NOWARN | __GFP_KSWAPD_RECLAIM, &handle);
	if (ret == -ENOSPC) {
		rejected_size++;
		goto put;
	}
	if (ret) {
		rejected_alloc++;
		goto put;
	}
	keep_handle(handle);
put:
	put_cpu_var(buffer);
	return ret;
}

static struct page *file_alloc_hugepage(gfp_t gfp, struct info *info, pgoff_t index)
{
	struct page *page;

	page = alloc_pages_vma(gfp | __GFP_COMP | __GFP_NORETRY | __GFP_NOWARN, HPAGE_PMD_ORDER,
			       &info->vma, 0, numa_node_id(), true);
	if (page)
		prep_transhuge_page(page);
	return page;
}

static ssize_t hugetlb_pages_store(bool policy, struct hstate *h, unsigned long count)
{
	NODEMASK_ALLOC(nodemask_t, nodes_allowed, GFP_KERNEL | __GFP_NORETRY);

	if (!(policy && nodemask_of_policy(nodes_allowed))) {
		NODEMASK_FREE(nodes_allowed);
		nodes_allowed = &node_states[N_MEMORY];
	}
	h->max = set_max(h, count, nodes_allowed);
	return h->max;
}

void *kvmalloc_like(size_t size, gfp_t flags, int node)
{
	gfp_t kmalloc_flags = flags;
	void *ret;

	if ((flags & GFP_KERNEL) != GFP_KERNEL)
		return kmalloc_node(size, flags, node);
	if (size > PAGE_SIZE) {
		kmalloc_flags |= __GFP_NOWARN;
		if (!(kmalloc_flags & __GFP_RETRY_MAYFAIL))
			kmalloc_flags |= __GFP_NORETRY;
	}
	ret = kmalloc_node(size, kmalloc_flags, node);
	if (ret || size <= PAGE_SIZE)
		return ret;
	return __vmalloc_node_flags_caller(size, node, flags, caller());
}
