/* Written for this test. */

#include "../include/drive.h"

static struct page *reboot_control_pages(struct image *image, unsigned int order)
{
	struct page *pages;

	do {
		pages = image_alloc_pages(REBOOT_PAGES_GFP, order);
		if (!pages)
			break;
		if (in_the_way(image, pages))
			pages = NULL;
	} while (!pages);
	if (pages)
		keep(image, pages);
	return pages;
}

int reboot_load(struct image *image)
{
	image->control = reboot_control_pages(image, get_order(CONTROL_SIZE));
	if (!image->control)
		return -ENOMEM;
	return 0;
}

void *map_area(size_t size, int node)
{
	/* the killer of processes must not run for this */
	const gfp_t flags = __GFP_NOWARN | __GFP_NORETRY | __GFP_ZERO;
	void *area;

	if (size <= COSTLY) {
		area = kmalloc_node(size, GFP_USER | flags, node);
		if (area != NULL)
			return area;
	}
	return __vmalloc_node_flags_caller(size, node, GFP_KERNEL | flags, caller());
}

struct groups *groups_of(int count)
{
	struct groups *gi;
	unsigned int len = sizeof(struct groups) + sizeof(gid_t) * count;

	gi = kmalloc(len, GFP_KERNEL_ACCOUNT | __GFP_NOWARN | __GFP_NORETRY);
	if (!gi)
		gi = __vmalloc(len, GFP_KERNEL_ACCOUNT, PAGE_KERNEL);
	if (!gi)
		return NULL;
	gi->count = count;
	return gi;
}

void *ring_read_page(struct ring *ring, int cpu)
{
	struct page *page;

	if (!cpumask_test_cpu(cpu, ring->mask))
		return ERR_PTR(-ENODEV);
	page = alloc_pages_node(cpu_to_node(cpu), GFP_KERNEL | __GFP_NORETRY, 0);
	if (!page)
		return ERR_PTR(-ENOMEM);
	return page_address(page);
}

static int image_write(void *buf, sector_t offset, struct batch *hb)
{
	void *src;
	int ret;

	if (hb) {
		src = (void *)__get_free_page(GFP_NOIO | __GFP_NOWARN | __GFP_NORETRY);
		if (src) {
			copy_page(src, buf);
		} else {
			ret = wait_for_writes(hb);
			if (ret)
				return ret;
			src = (void *)__get_free_page(GFP_NOIO | __GFP_NOWARN | __GFP_NORETRY);
			if (src) {
				copy_page(src, buf);
			} else {
				WARN_ON_ONCE(1);
				hb = NULL;
				src = buf;
			}
		}
	} else {
		src = buf;
	}
	return submit(offset, src, hb);
}

static struct table *table_of(struct hash *ht, size_t buckets, gfp_t gfp)
{
	struct table *tbl = NULL;
	size_t size = sizeof(*tbl) + buckets * sizeof(tbl->buckets[0]);

	if (gfp != GFP_KERNEL)
		tbl = kzalloc(size, gfp | __GFP_NOWARN | __GFP_NORETRY);
	else
		tbl = kvzalloc(size, gfp);
	if (tbl == NULL)
		return NULL;
	tbl->size = buckets;
	return tbl;
}

int hash_grow(struct hash *ht, bool now)
{
	struct table *new_tbl;

	if (now)
		new_tbl = table_of(ht, ht->size * 2, GFP_ATOMIC);
	else
		new_tbl = table_of(ht, ht->size * 2, GFP_KERNEL);
	if (new_tbl == NULL)
		return -ENOMEM;
	publish(ht, new_tbl);
	return 0;
}

static int digest_pages(size_t max_size, size_t *got, int last_warn, void **out)
{
	void *ptr;
	int order = max_order;
	gfp_t gfp_mask = __GFP_RECLAIM | __GFP_NOWARN | __GFP_NORETRY;

	for (; order; order--) {
		ptr = (void *)__get_free_pages(gfp_mask, order);
		if (ptr)
			goto found;
	}
	gfp_mask = GFP_KERNEL;
	if (!last_warn)
		gfp_mask |= __GFP_NOWARN;
	ptr = (void *)__get_free_pages(gfp_mask, 0);
	if (!ptr)
		return -ENOMEM;
found:
	*got = PAGE_SIZE << order;
	*out = ptr;
	return 0;
}
