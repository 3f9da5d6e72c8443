/* Written for this test. */

#define QUIETLY (__GFP_NORETRY | __GFP_NOWARN)
#define AT_LENGTH (__GFP_RETRY_MAYFAIL | __GFP_NOWARN)

static int object_pages(struct object *obj, struct address_space *mapping)
{
	struct page *page;
	gfp_t first, gfp;
	int tries = 2;

	first = mapping_gfp_constraint(mapping, ~__GFP_RECLAIM);
	first |= __GFP_NORETRY | __GFP_NOWARN;
	gfp = first;
	do {
		page = shmem_read_mapping_page_gfp(mapping, obj->index, gfp);
		if (likely(!IS_ERR(page)))
			break;
		if (!tries--)
			return PTR_ERR(page);
		shrink_objects(obj);
		gfp = first | __GFP_RETRY_MAYFAIL;
	} while (1);
	obj->page = page;
	return 0;
}

static int table_of_buffers(struct submission *eb)
{
	unsigned int size = eb->wanted;

	do {
		gfp_t flags = GFP_KERNEL;

		if (size > 1)
			flags |= __GFP_NORETRY | __GFP_NOWARN;
		eb->buckets = kzalloc(sizeof(struct hlist_head) << size, flags);
		if (eb->buckets)
			break;
	} while (--size);
	if (unlikely(!size))
		return -ENOMEM;
	eb->size = size;
	return 0;
}

static int internal_pages(struct object *obj, unsigned int npages, int max_order, gfp_t gfp)
{
	do {
		int order = min(fls(npages) - 1, max_order);
		struct page *page;

		do {
			page = alloc_pages(gfp | (order ? QUIETLY : AT_LENGTH), order);
			if (page)
				break;
			if (!order--)
				goto err;
			max_order = order;
		} while (1);
		add_page(obj, page, order);
		npages -= 1 << order;
	} while (npages);
	return 0;
err:
	drop_pages(obj);
	return -ENOMEM;
}

int state_text_init(struct state_text *text, size_t count)
{
	text->size = count + 1 > PAGE_SIZE ? count + 1 : PAGE_SIZE;
	text->buf = kmalloc(text->size, GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN);
	if (text->buf == NULL) {
		text->size = PAGE_SIZE;
		text->buf = kmalloc(text->size, GFP_KERNEL);
	}
	if (text->buf == NULL) {
		text->size = 128;
		text->buf = kmalloc(text->size, GFP_KERNEL);
	}
	if (text->buf == NULL)
		return -ENOMEM;
	return 0;
}

static int pool_pages(struct page **pages, unsigned int npages, int zero, gfp_t gfp_flags)
{
	struct page *p = NULL;
	unsigned int i = 0, j;

	if (zero)
		gfp_flags |= __GFP_ZERO;
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
	while (npages >= HPAGE_PMD_NR) {
		gfp_t large = gfp_flags;

		large |= GFP_TRANSHUGE_LIGHT | __GFP_NORETRY | __GFP_KSWAPD_RECLAIM;
		large &= ~__GFP_MOVABLE;
		p = alloc_pages(large, HPAGE_PMD_ORDER);
		if (!p)
			break;
		for (j = 0; j < HPAGE_PMD_NR; ++j)
			pages[i++] = p++;
		npages -= HPAGE_PMD_NR;
	}
#endif
	while (npages) {
		p = alloc_page(gfp_flags);
		if (!p)
			return -ENOMEM;
		pages[i++] = p;
		--npages;
	}
	return 0;
}

static gfp_t device_pool_flags(u32 flags, bool large)
{
	gfp_t gfp_flags = (flags & NEEDS_DMA32) ? GFP_USER | GFP_DMA32 : GFP_HIGHUSER;

	if (large) {
		gfp_flags |= GFP_TRANSHUGE_LIGHT | __GFP_NORETRY | __GFP_KSWAPD_RECLAIM;
		gfp_flags &= ~__GFP_MOVABLE;
	}
	return gfp_flags;
}

static struct dma_pool *device_pool_for(struct device *dev, u32 flags, bool large)
{
	gfp_t gfp_flags = device_pool_flags(flags, large);
	struct dma_pool *pool = dma_pool_create_with(dev, gfp_flags, flags);

	if (!pool)
		return NULL;
	return pool;
}

static gfp_t large_flags = (GFP_HIGHUSER | __GFP_ZERO | __GFP_NOWARN | __GFP_NORETRY) &
			   ~__GFP_RECLAIM;
static gfp_t small_flags = GFP_HIGHUSER | __GFP_ZERO;
static const unsigned int orders[] = { 8, 4, 0 };

static int heap_pools(struct page_pool **pools)
{
	int i;

	for (i = 0; i < NUM_ORDERS; i++) {
		struct page_pool *pool;
		gfp_t flags = small_flags;

		if (orders[i] > 4)
			flags = large_flags;
		pool = page_pool_alloc(flags, orders[i]);
		if (!pool)
			goto fail;
		pools[i] = pool;
	}
	return 0;
fail:
	drop_pools(pools);
	return -ENOMEM;
}
