"""What ``NAME,key=value,key=value`` asks for, and what one layer of a stack is given to be made of.

It does not know the layers. `Options` reads values with their units and refuses what nobody asked for,
so that a misspelt key is an error and not a silent default. A `Site` is one layer's place in a stack:
its runtime, and reserves that are its own and nobody else's (private pools per level). It keeps what it
has given out, so that a stack can be started, starved and closed as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

from headway.core.block.bioset import BIO_POOL_SIZE, BioSet
from headway.core.block.crypto import Crypto
from headway.core.block.layer import Layer
from headway.core.block.workqueue import Workqueue
from headway.core.mm.composite import Backend, Callables
from headway.core.mm.gfp import Gfp
from headway.core.mm.mempool import Mempool
from headway.core.mm.pools import BackedMempool
from headway.core.plan import Runtime
from headway.core.units import parse_size
from headway.errors import UsageError

Memory: TypeAlias = "Callable[[int, str], Backend]"  # buffers of so many bytes, for whom
Opener: TypeAlias = "Callable[[str, Site], Layer]"  # opens a device for whoever has that site

_YES: Final = {"yes": True, "on": True, "1": True, "no": False, "off": False, "0": False}


@final
class Options:
    """The ``key=value`` part of a layer's specification. A key may come several times."""

    __slots__ = ("_layer", "_left")

    def __init__(self, layer: str, pairs: list[tuple[str, str]]) -> None:
        self._layer = layer
        self._left = pairs

    def texts(self, key: str) -> list[str]:
        """Every value of `key`, in order."""
        found = [value for name, value in self._left if name == key]
        self._left = [pair for pair in self._left if pair[0] != key]
        return found

    def text(self, key: str, default: str) -> str:
        found = self.texts(key)
        if len(found) > 1:
            raise UsageError(
                f"layer {self._layer}: {key} is given {len(found)} times; give it once"
            )
        return found[0] if found else default

    def size(self, key: str, default: int) -> int:
        """Bytes, written like 64KiB."""
        text = self.text(key, "")
        return parse_size(text, f"layer {self._layer}: {key}") if text else default

    def number(self, key: str, default: int, least: int = 0) -> int:
        text = self.text(key, str(default))
        if not text.isascii() or not text.isdecimal() or int(text) < least:
            raise UsageError(
                f"layer {self._layer}: {key}={text}: a whole number from {least} is wanted"
            )
        return int(text)

    def seconds(self, key: str, default: float) -> float:
        text = self.text(key, str(default))
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value < 1e9:
            raise UsageError(f"layer {self._layer}: {key}={text}: seconds from 0 are wanted")
        return value

    def choice(self, key: str, default: str, choices: tuple[str, ...]) -> str:
        text = self.text(key, default)
        if text not in choices:
            raise UsageError(
                f"layer {self._layer}: {key}={text}: one of {', '.join(choices)} is wanted"
            )
        return text

    def flag(self, key: str, default: bool) -> bool:
        return _YES[self.choice(key, "yes" if default else "no", tuple(_YES))]

    def finish(self) -> None:
        """Raises: UsageError if there is a key that nobody has asked for."""
        if self._left:
            raise UsageError(
                f"layer {self._layer} has no option {self._left[0][0]!r}: see its page in the documentation"
            )


def parse(text: str) -> tuple[str, Options]:
    """The name and the options of ``NAME,key=value,...``.

    Raises: UsageError if it is not written so.
    """
    name, *rest = text.split(",")
    pairs = []
    for part in rest:
        key, equals, value = part.partition("=")
        if not key or not equals:
            raise UsageError(
                f"layer {text!r}: {part!r} is no option; write NAME,key=value,key=value"
            )
        pairs.append((key, value))
    if not name:
        raise UsageError(f"layer {text!r} has no name; write NAME,key=value,key=value")
    return name, Options(name, pairs)


@final
class Site:
    """What one layer is made with. Everything it gives belongs to that layer alone.

    `memory` makes backends of buffers (a zone's, where there is a limit); `opener` opens another device
    as a layer; `crypto` reads key files and makes ciphers; `deadline_s` is how long one may take for a
    request (None: its own default). With `starve` every allocation beyond the reserves fails. `create`: what
    has a format of its own writes it anew.
    """

    __slots__ = (
        "_crypto", "_memory", "_opener", "_starve", "create", "deadline_s", "lowest", "name", "pools",
        "queues", "runtime", "sets",
    )  # fmt: skip

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        *,
        memory: Memory | None = None,
        opener: Opener | None = None,
        crypto: Crypto | None = None,
        starve: bool = False,
        create: bool = False,
    ) -> None:
        self.runtime = runtime
        self.name = name
        self._memory = ordinary_memory if memory is None else memory
        self._opener = opener
        self._starve = starve
        self.deadline_s: float | None = None
        self._crypto = crypto
        self.create = create
        self.sets: list[BioSet] = []
        self.pools: list[Mempool[Any]] = []
        self.queues: list[Workqueue] = []
        self.lowest = 0  # how many layers are below the first that it makes

    def bios(self, what: str, min_count: int = BIO_POOL_SIZE, **options: Any) -> BioSet:
        """A set of bios; its minimum is what the layer's page says. Options as `BioSet`."""
        if self._starve:
            options["extra"] = 0
        bios = BioSet(self.runtime, f"{self.name} {what}", min_count=min_count, **options)
        self.sets.append(bios)
        return bios

    def pool(self, what: str, backend: Backend, min_count: int) -> Mempool[Any]:
        """A reserve over `backend`. Raises: NoMemory if it cannot be filled."""
        pool: Mempool[Any] = BackedMempool(
            backend, min_count=min_count, runtime=self.runtime, name=f"{self.name} {what}"
        )
        if self._starve:
            pool.inject(lambda: True)
        self.pools.append(pool)
        return pool

    def buffers(self, size: int) -> Backend:
        """Buffers of `size` bytes, from the stack's memory."""
        return self._memory(size, self.name)

    def workers(self, what: str, *, limit: int = 2, rescuer: bool = True) -> Workqueue:
        """A work queue; the stack starts and ends it."""
        name = f"{self.name} {what}"
        queue = Workqueue(self.runtime, name, limit=1 if self._starve else limit, rescuer=rescuer)
        self.queues.append(queue)
        return queue

    @property
    def crypto(self) -> Crypto:
        """Key files and ciphers. Raises: UsageError where there are none."""
        if self._crypto is None:
            raise UsageError(f"layer {self.name}: this stack was given no ciphers (crypto=)")
        return self._crypto

    def open(self, device: str) -> Layer:
        """Another device, as a layer. Raises: UsageError where devices cannot be opened."""
        if self._opener is None:
            raise UsageError(f"layer {self.name}: {device!r} cannot be opened here")
        return self._opener(device, self)


def same(size: int, options: Options) -> int:
    """The room that a layer needs below which neither hides nor adds anything."""
    return size


@final
@dataclass(frozen=True, slots=True)
class Recipe:
    """How a layer is made: ``make(below, options, site)``, and how much room one of `size` bytes needs
    below: ``room(size, options)``, for whoever makes the device to fit."""

    make: Callable[[Layer, Options, Site], Layer]
    room: Callable[[int, Options], int] = same


def ordinary_memory(size: int, name: str) -> Backend:
    """Buffers outside any limit."""

    def make(gfp: Gfp) -> memoryview | None:
        try:
            return memoryview(bytearray(size))
        except MemoryError:
            return None

    return Callables(make, lambda buffer: None, light=make)
