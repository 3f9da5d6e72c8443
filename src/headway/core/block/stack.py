"""Layers on a device, from specifications: built, started, used as one, and closed with all home.

It decides the order (outermost last) and nothing about bytes. A bio from outside enters at the top: its
range is checked here and nowhere else, then `submit_now` is tried where the caller likes, then the plan.
`carry_out` is both. What goes in must come back: closing asserts that every set and pool has all its
elements again.

Bound: a stack holds its layers' reserves and one set of `in_flight` bios at the top, for ever.

Source: device-mapper tables, one line for each target.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from headway.core.block import line
from headway.core.block.bio import Bio, Op, refused
from headway.core.block.bioset import BioSet
from headway.core.block.crypto import Crypto
from headway.core.block.layer import Layer, combined, each, needs_stable
from headway.core.block.layers import LAYERS
from headway.core.block.spec import Memory, Opener, Recipe, Site, parse
from headway.core.block.workqueue import Workqueue
from headway.core.mm.mempool import Mempool
from headway.core.plan import Plan, Runtime
from headway.errors import BlockError, HeadwayError, UsageError


@final
class Stack:
    """A device with layers on it.

    `specs` are texts like ``mirror,leg=b.img``, the outermost last; `layers` are the recipes by name
    (`LAYERS` and one's own). `memory` and `opener` are what layers get buffers and other devices from;
    `crypto` where they get keys and ciphers; with `create` those that have a format of their own write
    it anew; with `any_bytes` one that takes whole blocks alone gets `ebs` on
    top; with `starve` every reserve is at its minimum and every allocation beyond it fails. `ground` is
    what `bottom` was made with, if it has workers. With `steady_bytes` those who submit may change memory
    while it is written: where a layer needs it stable, a `bounce` for writes goes on top, with buffers of
    so many bytes.

    Raises: UsageError if a specification names no layer, or one cannot be made of it; NoMemory if a
    reserve cannot be filled.
    """

    __slots__ = ("_number", "_offers", "bios", "limits", "runtime", "sites", "top")

    def __init__(
        self,
        runtime: Runtime,
        bottom: Layer,
        specs: Sequence[str] = (),
        *,
        in_flight: int = 16,
        memory: Memory | None = None,
        opener: Opener | None = None,
        layers: Mapping[str, Recipe] = LAYERS,
        starve: bool = False,
        crypto: Crypto | None = None,
        create: bool = False,
        any_bytes: bool = False,
        steady_bytes: int = 0,
        ground: Site | None = None,
    ) -> None:
        self.runtime = runtime
        self.sites: list[Site] = [] if ground is None else [ground]
        offers: dict[str, Any] = {
            "memory": memory,
            "opener": opener,
            "crypto": crypto,
            "starve": starve,
        }
        self._offers, self._number = {**offers, "create": create}, 0
        top = bottom
        try:
            for spec in specs:
                top = self._put_on(top, spec, layers)
            if any_bytes and combined(top).alignment > 1:
                top = self._put_on(top, "ebs", layers)
            if steady_bytes and needs_stable(top):
                reserve = 1 if starve else 2
                spec = f"bounce,reads=no,buffer={steady_bytes},reserve={reserve}"
                top = self._put_on(top, spec, LAYERS)
        except BaseException:
            self.give_back()
            raise
        self.top = top
        self.limits = combined(top)
        count = 1 if starve else in_flight
        self.bios = BioSet(runtime, f"bios of {top.name}", min_count=count)

    def _put_on(self, top: Layer, spec: str, layers: Mapping[str, Recipe]) -> Layer:
        name, options = parse(spec)
        recipe = _recipe(name, layers)
        self._number += 1
        site = Site(self.runtime, f"{name} {self._number}", **self._offers)
        site.lowest = len(list(each(top)))
        self.sites.append(site)
        layer = recipe.make(top, options, site)
        options.finish()
        return layer

    @property
    def name(self) -> str:
        return self.top.name

    @property
    def size(self) -> int:
        return self.top.size

    # -- bios --------------------------------------------------------------------------------------

    def submit_now(self, bio: Bio) -> bool:
        """Carry a bio out here and now: True if done, `bio.error` says how; False: nothing was done."""
        if bio.offset < 0 or bio.offset + bio.length > self.top.size:
            bio.error = self._outside(bio)
            return True
        return self.top.submit_now(bio)

    def submit(self, bio: Bio) -> Plan[None]:
        """Take a bio over; its hooks hear of its end. Waits: for the reserves of layers."""
        if bio.offset < 0 or bio.offset + bio.length > self.top.size:
            bio.complete(self._outside(bio))
            return
        yield from line.submit(self.top, bio)

    def carry_out(self, bio: Bio) -> Plan[None]:
        """Submit a bio and wait for its end; `bio.error` says how it ended. If that is interrupted, it goes home."""
        try:
            done = self.submit_now(bio)
        except BaseException:
            if bio.home is not None:
                bio.home.free(bio)  # as `line.carry_out` does
            raise
        if not done:
            yield from line.carry_out(self.top, bio)

    def request(self, op: Op, offset: int, view: memoryview | None, length: int) -> Plan[None]:
        """One request in a bio of the stack's own. Raises: BlockError if it failed."""
        bio = yield from self.bios.make(op, offset, view, length)
        yield from self.carry_out(bio)
        self.bios.settle(bio)

    def _outside(self, bio: Bio) -> BlockError:
        return refused(bio, self.top.name, f"it has {self.top.size} bytes", errno.EINVAL)

    # -- its life ----------------------------------------------------------------------------------

    def start(self) -> Plan[None]:
        """Start the work queues and the layers' tasks, the lowest first. If one cannot be started, those
        that were end again, and what it raised is raised."""
        queues: list[Workqueue] = []
        layers: list[Layer] = []
        try:
            for site in self.sites:
                for queue in site.queues:
                    yield from queue.start()
                    queues.append(queue)
            for layer in each(self.top):
                plan = layer.start()
                if plan is not None:
                    yield from plan
                layers.append(layer)
        except GeneratorExit:  # nobody would carry out what ending asks for
            raise
        except BaseException:
            yield from self._end(layers, queues)
            raise

    def close(self) -> Plan[None]:
        """End it, top first, when nothing is in flight.

        All of it ends, whatever fails. Raises: the first of what layers could not finish; else PoolBusy if
        something did not come home.
        """
        queues = [queue for site in self.sites for queue in site.queues]
        failures = yield from self._end(list(each(self.top)), queues)
        failures += _shut([self.bios.close, *self._shutters()])
        del failures[1:]
        if failures:
            raise failures.pop()  # held by no frame of its own: what it holds goes with it

    def give_back(self) -> None:
        """Give the reserves of layers back: of a stack that could not be made, or was not started.

        Raises: PoolBusy if something of one did not come home; the others are given back all the same.
        """
        failures = _shut(self._shutters())
        del failures[1:]
        if failures:
            raise failures.pop()

    def _end(self, layers: list[Layer], queues: Sequence[Workqueue]) -> Plan[list[Exception]]:
        """End those, top first; what failed. Whatever does, the rest ends as well."""
        failures: list[Exception] = []
        for site in reversed(self.sites):
            while len(layers) > site.lowest:
                failures += yield from _ended(layers.pop())
            for queue in reversed(site.queues):  # what is in one may need those made before it
                if queue in queues:
                    yield from queue.close()
        while layers:
            failures += yield from _ended(layers.pop())
        return failures

    def _shutters(self) -> list[Callable[[], object]]:
        shutters: list[Callable[[], object]] = []
        for site in reversed(self.sites):
            shutters += [bios.close for bios in site.sets]
            shutters += [pool.close for pool in site.pools]
        return shutters

    def pools(self) -> list[Mempool[Any]]:
        """Every reserve of the stack: its own, and those of its layers, the lowest first."""
        layers = [
            pool
            for site in self.sites
            for pool in (*(bios.pool for bios in site.sets), *site.pools)
        ]
        return [self.bios.pool, *layers]

    def stats(self) -> dict[str, Mapping[str, Any]]:
        """By layer, the lowest first."""
        return {layer.name: layer.stats() for layer in each(self.top)}

    def __repr__(self) -> str:
        layers = sum(site.lowest > 0 for site in self.sites)
        return f"<Stack {self.top.name}: {self.top.size} bytes, {layers} layers>"


def room(specs: Sequence[str], size: int, layers: Mapping[str, Recipe] = LAYERS) -> int:
    """How many bytes a device must have so that a stack of `specs` on it has `size`.

    Raises: UsageError if a specification is none.
    """
    for spec in reversed(specs):
        name, options = parse(spec)
        size = _recipe(name, layers).room(size, options)
    return size


def _recipe(name: str, layers: Mapping[str, Recipe]) -> Recipe:
    recipe = layers.get(name)
    if recipe is None:
        known = ", ".join(sorted(layers))
        raise UsageError(f"layer {name!r} is not known; there are {known}")
    return recipe


def _ended(layer: Layer) -> Plan[list[Exception]]:
    """Close it; what it raised, if it did."""
    try:
        plan = layer.close()
        if plan is not None:
            yield from plan
    except Exception as error:
        return [error]
    return []


def _shut(shutters: Sequence[Callable[[], object]]) -> list[Exception]:
    """Call all of them; what they raised."""
    failures: list[Exception] = []
    for shut in shutters:
        try:
            shut()
        except HeadwayError as error:
            failures.append(error)
    return failures
