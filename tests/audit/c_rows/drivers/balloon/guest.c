/* Written for this test. */

static long guest_take_pages(long wanted)
{
	struct page_list *list, *fresh;
	unsigned long addr;

	while (wanted) {
		addr = __get_free_page(GFP_NOIO | __GFP_NOWARN | __GFP_NORETRY | __GFP_NOMEMALLOC);
		if (!addr)
			break;
		list = taken;
		if (!list || list->used >= PER_LIST) {
			fresh = (struct page_list *)__get_free_page(
				GFP_NOIO | __GFP_NOWARN | __GFP_NORETRY | __GFP_NOMEMALLOC);
			if (!fresh) {
				free_page(addr);
				break;
			}
			fresh->next = list;
			taken = fresh;
		}
		remember(addr);
		wanted--;
	}
	return wanted;
}

static unsigned int host_take_pages(struct host *dm, unsigned int wanted, int unit)
{
	unsigned int i;
	struct page *pg;

	for (i = 0; i * unit < wanted; i++) {
		pg = alloc_pages(GFP_HIGHUSER | __GFP_NORETRY | __GFP_NOMEMALLOC | __GFP_NOWARN,
				 get_order(unit << PAGE_SHIFT));
		if (!pg)
			return i * unit;
		dm->taken += unit;
	}
	return i * unit;
}

#define GFP_INFLATE \
	(GFP_HIGHUSER | __GFP_NOWARN | __GFP_NORETRY | __GFP_NOMEMALLOC)

static enum state shrink_guest(unsigned long pages, gfp_t gfp)
{
	struct page *page = alloc_page(gfp);

	if (page == NULL)
		return WAIT_AGAIN;
	append(page);
	return DONE;
}

static void inflate_work(struct work_struct *work)
{
	enum state state = DONE;
	long credit;

	do {
		credit = credit_now();
		if (credit < 0)
			state = shrink_guest(-credit, GFP_INFLATE);
		state = update(state);
	} while (credit && state == DONE);
}
