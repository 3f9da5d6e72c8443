/* Written for this test. */

static char *one_ring_page(unsigned long order)
{
	char *buffer;
	gfp_t gfp_flags = GFP_KERNEL | __GFP_COMP | __GFP_ZERO | __GFP_NOWARN | __GFP_NORETRY;

	buffer = (char *)__get_free_pages(gfp_flags, order);
	if (buffer)
		return buffer;
	buffer = vzalloc((1 << order) * PAGE_SIZE);
	if (buffer)
		return buffer;
	gfp_flags &= ~__GFP_NORETRY;
	buffer = (char *)__get_free_pages(gfp_flags, order);
	if (buffer)
		return buffer;
	return NULL;
}

struct packet *packet_with_pages(unsigned long len, int npages, int max_order, gfp_t gfp_mask)
{
	struct packet *skb = alloc_packet(len, GFP_KERNEL);
	struct page *page;
	int i;

	if (!skb)
		return NULL;
	for (i = 0; npages > 0; i++) {
		int order = max_order;

		while (order) {
			if (npages >= 1 << order) {
				page = alloc_pages((gfp_mask & ~__GFP_DIRECT_RECLAIM) | __GFP_COMP |
						   __GFP_NOWARN | __GFP_NORETRY, order);
				if (page)
					goto fill;
				order = 1;
				max_order = 0;
			}
			order--;
		}
		page = alloc_page(gfp_mask);
		if (!page)
			goto failure;
fill:
		add_page(skb, i, page, order);
		npages -= 1 << order;
	}
	return skb;
failure:
	free_packet(skb);
	return NULL;
}

static struct packet *message_trim(struct packet *skb, gfp_t allocation)
{
	int delta = skb->end - skb->tail;

	if (delta * 2 < skb->truesize)
		return skb;
	pskb_expand_head(skb, 0, -delta,
			 (allocation & ~__GFP_DIRECT_RECLAIM) | __GFP_NOWARN | __GFP_NORETRY);
	return skb;
}

static struct buffer *new_buffer(struct group *lgr, int bufsize)
{
	struct buffer *desc;

	desc = kzalloc(sizeof(*desc), GFP_KERNEL);
	if (!desc)
		return ERR_PTR(-ENOMEM);
	desc->order = get_order(bufsize);
	desc->pages = alloc_pages(GFP_KERNEL | __GFP_NOWARN | __GFP_NOMEMALLOC | __GFP_COMP |
				  __GFP_NORETRY | __GFP_ZERO, desc->order);
	if (!desc->pages) {
		kfree(desc);
		return ERR_PTR(-EAGAIN);
	}
	return desc;
}

static int connection_buffer(struct connection *conn, int wanted)
{
	struct buffer *desc = ERR_PTR(-ENOMEM);
	int size_now, bufsize;

	for (size_now = compress(wanted); size_now >= 0; size_now--) {
		bufsize = uncompress(size_now);
		desc = buffer_from_list(conn, size_now);
		if (desc)
			break;
		desc = new_buffer(conn->lgr, bufsize);
		if (PTR_ERR(desc) == -ENOMEM)
			break;
		if (IS_ERR(desc))
			continue;
		add_to_list(conn, desc);
		break;
	}
	if (IS_ERR(desc))
		return -ENOMEM;
	conn->buffer = desc;
	return 0;
}
