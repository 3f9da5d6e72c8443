/* Written for this test. */

void *flash_buffer_up_to(const struct flash *flash, size_t *size)
{
	gfp_t flags = __GFP_NOWARN | __GFP_DIRECT_RECLAIM | __GFP_NORETRY;
	size_t least = max_t(size_t, flash->writesize, PAGE_SIZE);
	void *buf;

	while (*size > least) {
		buf = kmalloc(*size, flags);
		if (buf)
			return buf;
		*size >>= 1;
		*size = ALIGN(*size, flash->writesize);
	}
	return kmalloc(*size, GFP_KERNEL);
}

static void write_back(struct cache *wc, struct list *wbl)
{
	struct write *wb;
	unsigned max_pages;

	while (wbl->size) {
		max_pages = contiguous(wbl);
		wb = next_write(wc, max_pages);
		if (max_pages <= INLINE_PAGES ||
		    unlikely(!(wb->list = kmalloc_array(max_pages, sizeof(struct entry *),
							GFP_NOIO | __GFP_NORETRY |
							__GFP_NOMEMALLOC | __GFP_NOWARN)))) {
			wb->list = wb->list_inline;
			max_pages = INLINE_PAGES;
		}
		fill(wb, max_pages);
		wbl->size--;
	}
}

static void check_tags(struct work_struct *w)
{
	struct tags *ic = tags_of(w);
	char *sums;
	char sums_onstack[MAX_TAG];

	sums = kmalloc(sector_count(ic) * ic->tag_size, GFP_NOIO | __GFP_NORETRY | __GFP_NOWARN);
	if (!sums)
		sums = sums_onstack;
	do {
		sum_sector(ic, sums);
	} while (more(ic) && sums != sums_onstack);
	if (likely(sums != sums_onstack))
		kfree(sums);
}

static int client_pages(struct client *kc, unsigned int nr, struct page_list **pages)
{
	struct page_list *pl;

	*pages = NULL;
	do {
		pl = alloc_pl(__GFP_NOWARN | __GFP_NORETRY | __GFP_KSWAPD_RECLAIM);
		if (unlikely(!pl)) {
			pl = kc->pages;
			if (unlikely(!pl))
				goto out_of_memory;
			kc->pages = pl->next;
			kc->nr_free--;
		}
		pl->next = *pages;
		*pages = pl;
	} while (--nr);
	return 0;
out_of_memory:
	if (*pages)
		put_pages(kc, *pages);
	return -ENOMEM;
}

struct vec *vectors(gfp_t gfp_mask, int nr, unsigned long *idx, mempool_t *pool)
{
	struct vec *bvl;

	if (*idx == LARGEST) {
fallback:
		bvl = mempool_alloc(pool, gfp_mask);
	} else {
		struct vec_slab *slab = slabs + *idx;
		gfp_t limited = gfp_mask & ~(__GFP_DIRECT_RECLAIM | __GFP_IO);

		limited |= __GFP_NOMEMALLOC | __GFP_NORETRY | __GFP_NOWARN;
		bvl = kmem_cache_alloc(slab->cache, limited);
		if (unlikely(!bvl && (gfp_mask & __GFP_DIRECT_RECLAIM))) {
			*idx = LARGEST;
			goto fallback;
		}
	}
	return bvl;
}
