"""Making a hash tree: a layer that passes everything on, and writes the tree when it is flushed.

It checks nothing: what is read may have been written a moment ago, and is vouched for by nobody yet.
Each flush reads all data again, and says the new root, which is the one thing to be kept safe.
Reserves: two blocks to work in (a data block, or a hash block; and one more hash block), 1 bio, one worker.

Source: own; the format is veritysetup's.
"""

from __future__ import annotations

from headway.core.block.at_rest import AtRest
from headway.core.block.bio import FLUSH, READ, WRITE, Bio
from headway.core.block.hashtree import ALGORITHMS, SIZES, Tree, first_block, parse
from headway.core.block.layer import Layer
from headway.core.block.limits import Limits
from headway.core.block.line import Line
from headway.core.block.spec import Options, Site
from headway.core.plan import Plan
from headway.errors import UsageError


class Making(Layer):
    """Passes everything on, and makes the tree when flushed. `root` is that of the last flush."""

    def __init__(self, below: Layer, hashes: Layer, tree: Tree, offset: int, site: Site) -> None:
        self.name = f"verity on {below.name}"
        self.below = (below,)
        self.size = tree.data_blocks * tree.data_size
        self.tree, self._hashes, self._offset = tree, hashes, offset
        self.limits = Limits(alignment=tree.data_size)
        self.root = b""
        self._runtime, self._workers = site.runtime, site.workers("tree", limit=1, rescuer=False)
        self._bios = site.bios("tree", 1)
        self._memory = memoryview(bytearray(max(tree.data_size, tree.hash_size) + tree.hash_size))

    def submit_now(self, bio: Bio) -> bool:
        return bio.op is not FLUSH and self.below[0].submit_now(bio)

    def submit(self, bio: Bio, line: Line) -> None:
        if bio.op is FLUSH:
            bio.push(self._flushed)
        line.send(bio, self.below[0])

    def _flushed(self, bio: Bio) -> bool:
        if bio.error is None:
            self._workers.queue(self._make, bio)
        return bio.error is None

    def _make(self, bio: Bio) -> Plan[None]:
        error: BaseException | None = None
        try:
            root = yield from self._build()
            if root != self.root:
                self.root = root
                self._runtime.report(f"{self.name}: the root hash is {root.hex()}; keep it")
        except Exception as raised:
            error = raised
        bio.complete(error)

    def _build(self) -> Plan[bytes]:
        """Read all data, write the tree and then the superblock; the root. Raises: BlockError."""
        tree, hashes, ask = self.tree, self._hashes, self._bios.ask
        part, out = self._memory[: -tree.hash_size], self._memory[-tree.hash_size :]
        source, size, count, base = self.below[0], tree.data_size, tree.data_blocks, 0
        root = b""
        for start, blocks in tree.levels() or [(0, 0)]:
            for number in range(count):
                block = part[:size]
                yield from ask(source, READ, (base + number) * size, block)
                root = tree.digest(block)
                slot = number % tree.per_block
                if slot == 0:
                    out[:] = bytes(len(out))
                out[slot * tree.step : slot * tree.step + tree.width] = root
                if blocks and (slot == tree.per_block - 1 or number == count - 1):
                    at = start + number // tree.per_block
                    yield from ask(hashes, WRITE, at * tree.hash_size, out)
                    root = tree.digest(out)
            source, size, count, base = hashes, tree.hash_size, blocks, start
        yield from ask(hashes, FLUSH)
        yield from ask(hashes, WRITE, self._offset, memoryview(bytearray(tree.superblock())))
        yield from ask(hashes, FLUSH)
        return root

    def stats(self) -> dict[str, object]:
        return {"root": self.root.hex()}


def asked_for(below: Layer, options: Options, site: Site) -> Making | tuple[Tree, bytes, Layer]:
    """What makes a tree, or the tree that is there, its root and its device. Raises: UsageError."""
    where, offset = options.text("hash", ""), options.size("hash-offset", 0)
    text, create = options.text("root", ""), options.flag("create", site.create)
    algorithm = options.choice("algorithm", ALGORITHMS[0], ALGORITHMS)
    size = block_size(options)
    options.finish()
    if not where or bool(text) == create:
        raise UsageError("layer verity: write hash=DEVICE,root=HEX, or hash=DEVICE,create=yes")
    hashes = site.open(where)
    if create:
        blocks, start = below.size // size, first_block(offset, size)
        tree = Tree(
            algorithm, site.crypto.random(32), size, size, blocks, start, site.crypto.random(16)
        )
    else:
        raw = AtRest(hashes, "layer verity").read(offset, 512)
        tree = parse(raw, offset, hashes.name)
    if (
        below.size < tree.data_blocks * tree.data_size
        or hashes.size < tree.end()
        or not tree.data_blocks
    ):
        raise UsageError(
            f"layer verity: {tree.data_blocks} blocks of {tree.data_size} need {tree.end()} bytes of hashes; "
            f"{below.name} has {below.size} bytes, {hashes.name} has {hashes.size}"
        )
    if create:
        return Making(below, hashes, tree, offset, site)
    try:
        root = bytes.fromhex(text)
    except ValueError:
        root = b""
    if len(root) != tree.width:
        raise UsageError(
            f"layer verity: root={text}: {2 * tree.width} hexadecimal digits are wanted"
        )
    return tree, root, hashes


def block_size(options: Options) -> int:
    return int(options.choice("block", "4096", tuple(map(str, SIZES))))
