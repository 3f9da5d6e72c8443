"""Reads what was vouched for, or fails: every block is checked against a hash tree when it is read.

The tree is on a device of its own, in the format of veritysetup; its root is given. A block of the tree
is checked before it is believed, from the root down. One buffer is enough to go down: the digest that
is wanted is copied out before the next block is read into it. What was checked is kept while memory
allows, up to `cache` blocks; reading ahead in the tree is skipped when it would need the reserve.
With ``create=yes`` nothing is checked, and each flush makes the tree of what is there.
Reserves: 1 buffer of one hash block, and 1 bio; a worker with a rescuer checks what came.

Source: Linux ``drivers/md/dm-verity-target.c`` (6.12).
"""

from __future__ import annotations

import errno

from headway.core.block.bio import FLUSH, READ, Bio, corrupt, refused
from headway.core.block.hashtree import Tree, first_wrong
from headway.core.block.layer import Layer
from headway.core.block.limits import Limits
from headway.core.block.line import Line
from headway.core.block.spec import Options, Site
from headway.core.block.treemaking import Making, asked_for, block_size
from headway.core.block.treewalk import Walker
from headway.core.block.workqueue import Workqueue
from headway.core.plan import Plan


class Verity(Layer):
    """Its bytes are what `walker` vouches for."""

    read_only = True

    def __init__(self, below: Layer, tree: Tree, walker: Walker, workers: Workqueue) -> None:
        self.name = f"verity on {below.name}"
        self.below = (below,)
        self.tree, self.walker = tree, walker
        self.size = tree.data_blocks * tree.data_size
        self.limits = Limits(alignment=tree.data_size)
        self._workers = workers
        self.checked = self.corrupt = 0

    def submit_now(self, bio: Bio) -> bool:
        if bio.op is FLUSH or not bio.length:
            return self.below[0].submit_now(bio)
        if bio.op is not READ:
            bio.error = refused(bio, self.name, "it cannot be written", errno.EROFS)
            return True
        if not self.limits.aligned(bio.offset, bio.length):
            return False
        wanted = self.walker.known(bio.offset, bio.end)
        if wanted is None or not self.below[0].submit_now(bio):
            return False
        if bio.error is None:
            self._compare(bio, bio.offset, bio.view, wanted)
        return True

    def submit(self, bio: Bio, line: Line) -> None:
        if bio.op is READ and bio.length:
            bio.push(self._came)
            self.walker.read_ahead(bio.offset)
        elif bio.op is not FLUSH and bio.length:
            bio.complete(refused(bio, self.name, "it cannot be written", errno.EROFS))
            return
        line.send(bio, self.below[0])

    def _came(self, bio: Bio) -> bool:
        if bio.error is not None:
            return False
        wanted = self.walker.known(bio.offset, bio.end)
        if wanted is None:  # the tree must be read, which a completion does not wait for
            self._workers.queue(self._check, bio)
            return True
        self._compare(bio, bio.offset, bio.view, wanted)
        return False

    def _check(self, bio: Bio) -> Plan[None]:
        tree, view = self.tree, bio.view
        assert view is not None
        error: BaseException | None = None
        try:
            for leaf, first, count in self.walker.leaves(bio.offset, bio.end):
                wanted = yield from self.walker.walk(leaf, first, count)
                offset = (leaf * tree.per_block + first) * tree.data_size
                start = offset - bio.offset
                self._compare(bio, offset, view[start : start + count * tree.data_size], wanted)
        except BaseException as raised:
            error = raised
            if not isinstance(raised, Exception):
                raise
        finally:
            bio.complete(error)

    def _compare(self, bio: Bio, offset: int, view: memoryview | None, wanted: list[bytes]) -> None:
        assert view is not None
        self.checked += len(wanted)
        wrong = first_wrong(self.tree, view, wanted)
        if wrong is not None and bio.error is None:
            self.corrupt += 1
            at = offset + wrong * self.tree.data_size
            bio.error = corrupt(self.below[0].name, "block", at // self.tree.data_size, at)

    def close(self) -> Plan[None]:
        return self.walker.close()

    def stats(self) -> dict[str, object]:
        wrong = self.corrupt + self.walker.corrupt
        return {"checked": self.checked, "corrupt": wrong, "read_ahead": self.walker.ahead}


def make(below: Layer, options: Options, site: Site) -> Layer:
    cache = options.number("cache", 64)
    asked = asked_for(below, options, site)
    if isinstance(asked, Making):
        return asked
    tree, root, hashes = asked
    workers = site.workers("checks")
    return Verity(below, tree, Walker(tree, root, hashes, site, workers, cache), workers)


def room(size: int, options: Options) -> int:
    """Whole blocks."""
    block = block_size(options)
    return -(-size // block) * block
