/* Written for this test. */
#ifndef _DRIVE_H
#define _DRIVE_H

static unsigned long drive_dma_mem(unsigned long size)
{
	return __get_dma_pages(GFP_KERNEL | __GFP_NORETRY, get_order(size));
}

#define drive_buffer(size) drive_dma_mem(size)

#ifndef REBOOT_PAGES_GFP
#define REBOOT_PAGES_GFP (GFP_KERNEL | __GFP_NORETRY)
#endif

#define gfp_of_tracker(gfp) (((gfp) & (GFP_KERNEL | GFP_ATOMIC)) | \
			     __GFP_NORETRY | __GFP_NOMEMALLOC | __GFP_NOWARN)

#endif
