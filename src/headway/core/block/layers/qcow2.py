"""The disk in a qcow2 image, to be read: each cluster from where the image's tables say that it is.

What is at hand in the tables (`clusters`) is passed on; a worker reads what is not, and unpacks what is
packed. What is nowhere comes from `backing`, a raw device, or reads as zeros. What an image names is never
opened unasked: whoever wrote it does not choose what is read here.
Reserves: 1 buffer of a slice and 1 of a packed cluster, 1 bio for them, 2 to split with; workers with a rescuer.
It falls back to reading a slice for each request.

Source: QEMU, ``docs/interop/qcow2``.
"""

from __future__ import annotations

import errno
from typing import Final

from headway.core.block.bio import FLUSH, READ, Bio, refused
from headway.core.block.clusters import Clusters, opened
from headway.core.block.device import Extent
from headway.core.block.layer import Layer
from headway.core.block.limits import Limits
from headway.core.block.line import Line, submit
from headway.core.block.qcow2format import Image, Place, Where
from headway.core.block.spec import Options, Site
from headway.core.plan import Plan

_TOLD: Final = 8192  # clusters that are looked at for one extent
_EMPTY: Final = (Where.ZEROS, Where.BELOW)


class Qcow2(Layer):
    """`below` is the file, `backing` what the image stands on."""

    read_only = True

    def __init__(
        self, below: Layer, backing: Layer | None, image: Image, site: Site, cache: int
    ) -> None:
        self.name = f"qcow2 on {below.name}"
        self.below = (below,) if backing is None else (below, backing)
        self.size, self._size = image.size, image.cluster
        self.limits, self.splits = Limits(boundary=image.cluster), site.bios("splits")
        self.clusters, self._backing = Clusters(below, image, site, cache), backing
        self._workers, self.tells = site.workers("tables"), self._told

    def submit_now(self, bio: Bio) -> bool:
        if bio.op is FLUSH or not bio.length:
            return self.below[0].submit_now(bio)
        if bio.op is not READ:
            bio.error = refused(bio, self.name, "it cannot be written", errno.EROFS)
            return True
        cluster, rest = divmod(bio.offset, self._size)
        place = self.clusters.known(cluster) if rest + bio.length <= self._size else None
        if place is None or place.where is Where.PACKED:
            return False
        layer, offset = self._aim(bio, place)
        if layer is None:
            return True
        if offset + bio.length > layer.size:
            return False
        before, bio.offset = bio.offset, offset
        done = layer.submit_now(bio)
        bio.offset = before
        return done

    def submit(self, bio: Bio, line: Line) -> None:
        if bio.op is FLUSH or not bio.length:
            line.send(bio, self.below[0])
        elif bio.op is not READ:
            bio.complete(refused(bio, self.name, "it cannot be written", errno.EROFS))
        else:
            place = self.clusters.known(bio.offset // self._size)
            if place is None or place.where is Where.PACKED:
                self._workers.queue(self._fetch, bio)
            elif (layer := self._ready(bio, place)) is not None:
                line.send(bio, layer)

    def _aim(self, bio: Bio, place: Place) -> tuple[Layer | None, int]:
        """Whose bytes a read is of, and which; None: it is done, with zeros or an error."""
        if place.where is Where.HERE:
            offset = place.offset + bio.offset % self._size
            if offset + bio.length <= self.below[0].size:
                return self.below[0], offset
            bio.error = self.clusters.after_the_end(bio.offset // self._size, place.offset)
        elif place.where is Where.BELOW and self._backing and bio.offset < self._backing.size:
            return self._backing, bio.offset
        elif bio.view is not None:
            bio.view[:] = bytes(bio.length)
        return None, 0

    def _ready(self, bio: Bio, place: Place) -> Layer | None:
        """Aim the bio at the device it is to be sent to; None: it is complete."""
        layer, offset = self._aim(bio, place)
        if layer is None:
            bio.complete(bio.error)
            return None
        bio.push(_as_it_was)
        bio.offset = offset
        if bio.end > layer.size and bio.view is not None:  # the rest is zeros
            short = layer.size - offset
            bio.view[short:] = bytes(bio.length - short)
            bio.view, bio.length = bio.view[:short], short
        return layer

    def _fetch(self, bio: Bio) -> Plan[None]:
        """On a worker: what had to be read first."""
        cluster, rest = divmod(bio.offset, self._size)
        try:
            place = yield from self.clusters.find(cluster)
            if place.where is Where.PACKED and bio.view is not None:
                found = yield from self.clusters.unpack(place, cluster, rest + bio.length)
                bio.view[:] = found[rest:]
                bio.complete()
                return
        except Exception as error:
            bio.complete(error)
            return
        if (layer := self._ready(bio, place)) is not None:
            yield from submit(layer, bio)

    def _told(self, offset: int) -> Plan[Extent]:
        """As far as is known without reading more."""
        cluster, size, backing = offset // self._size, self._size, self._backing
        place = yield from self.clusters.find(cluster)
        if place.where is Where.BELOW and backing is not None and offset < backing.size:
            found = yield from backing.extent(offset)
            return Extent(min(found.end, (cluster + 1) * size), found.hole)
        hole, end = place.where in _EMPTY, cluster + 1
        while end * size < self.size and end - cluster < _TOLD:
            after = self.clusters.known(end)
            below = after is not None and after.where is Where.BELOW and backing is not None
            if after is None or below or (after.where in _EMPTY) != hole:
                break
            end += 1
        return Extent(end * size, hole)

    def close(self) -> None:
        self.clusters.close()

    def stats(self) -> dict[str, int]:
        return self.clusters.stats()


def _as_it_was(bio: Bio) -> None:
    """A hook that hears nothing: range and memory are given back as they were."""


def make(below: Layer, options: Options, site: Site) -> Layer:
    image, backing = opened(below, options, site)
    return Qcow2(below, backing, image, site, options.number("cache", 64))
