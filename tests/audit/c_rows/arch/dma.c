/* Written for this test; each function keeps the shape of one row of the 2018 audit. */

static const unsigned int orders_tried[] = { 9, 8, 4, 0 };

struct page **mapped_pages(struct device *dev, int count, gfp_t gfp, int first)
{
	struct page **pages;
	int i = 0, step = first;

	pages = kcalloc(count, sizeof(*pages), GFP_KERNEL);
	if (!pages)
		return NULL;
	gfp |= __GFP_NOWARN | __GFP_HIGHMEM;
	while (count) {
		int order = orders_tried[step];

		if (fls(count) < order) {
			step++;
			continue;
		}
		if (order) {
			pages[i] = alloc_pages(gfp | __GFP_NORETRY, order);
			if (!pages[i]) {
				step++;
				continue;
			}
		} else {
			pages[i] = alloc_pages(gfp, 0);
			if (!pages[i])
				goto out_of_pages;
		}
		clear_run(pages[i], order);
		i += 1 << order;
		count -= 1 << order;
	}
	return pages;
out_of_pages:
	while (i--)
		if (pages[i])
			__free_pages(pages[i], 0);
	kfree(pages);
	return NULL;
}

static gfp_t board_flags(const struct device *dev, gfp_t gfp)
{
	gfp_t zone;

	gfp &= ~(__GFP_DMA | __GFP_DMA32);
#ifdef CONFIG_SMALL_ZONE
	if (dev == NULL)
		zone = __GFP_DMA;
	else
#endif
		zone = 0;
	/* keep the killer of processes away */
	gfp |= __GFP_NORETRY;
	return gfp | zone;
}

static void *board_alloc_coherent(struct device *dev, size_t bytes, dma_addr_t *at, gfp_t gfp)
{
	struct page *page = NULL;

	gfp = board_flags(dev, gfp);
	if (gfpflags_allow_blocking(gfp))
		page = from_contiguous(dev, bytes);
	if (!page)
		page = alloc_pages(gfp, get_order(bytes));
	if (!page)
		return NULL;
	*at = address_of(dev, page);
	return page_address(page);
}

struct page **io_pages(struct device *dev, unsigned int count, unsigned long sizes, gfp_t gfp)
{
	struct page **pages = kvcalloc(count, sizeof(*pages), GFP_KERNEL);
	unsigned int i = 0, order_size;

	if (!pages)
		return NULL;
	while (count) {
		struct page *page = NULL;

		for (sizes &= mask_below(count); sizes; sizes &= ~order_size) {
			unsigned int order = __fls(sizes);

			order_size = 1U << order;
			page = alloc_pages((sizes - order_size) ? gfp | __GFP_NORETRY : gfp, order);
			if (page)
				break;
		}
		if (!page) {
			free_io_pages(pages, i);
			return NULL;
		}
		count -= order_size;
		while (order_size--)
			pages[i++] = page++;
	}
	return pages;
}
