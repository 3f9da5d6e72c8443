"""The face of caches that give way: a mapping, and a decorator in the place of ``functools.lru_cache``.

It decides nothing: `headway.core.mm.cache` charges, keeps and drops; this chooses the runtime, the
usual cost, and makes the keys of calls.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Hashable
from typing import Any, Generic, NamedTuple, ParamSpec, Protocol, TypeVar, cast

from headway.core.mm import budget as core_budget
from headway.core.mm import cache as core
from headway.core.mm.dirtied import WriteBack
from headway.core.mm.domain import Domain
from headway.core.mm.shrinker import SEEKS
from headway.core.plan import Runtime
from headway.core.units import parse_size
from headway.edge.zone import Zone
from headway.errors import UsageError
from headway.roster import ROSTER
from headway.runtimes.scopes import ambient
from headway.runtimes.threads import THREADS

__all__ = ["CacheInfo", "ShrinkableCache"]

K = TypeVar("K")
V = TypeVar("V")
P = ParamSpec("P")
R = TypeVar("R", covariant=True)

_KEYWORDS = object()  # stands between positional and keyword arguments in a key


class CacheInfo(NamedTuple):
    """What ``cache_info()`` gives: the fields of `functools.lru_cache`; `maxsize` is in bytes."""

    hits: int
    misses: int
    maxsize: int | None
    currsize: int


class Cached(Protocol[P, R]):
    """A decorated function."""

    __wrapped__: Callable[..., Any]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
    def cache_info(self) -> CacheInfo: ...
    def cache_clear(self) -> None: ...
    def cache_parameters(self) -> dict[str, Any]: ...


class ShrinkableCache(core.ShrinkableCache[K, V], Generic[K, V]):
    """Objects by key, charged to a zone by their cost in bytes; dropped when others need the room.

    `cost` says what a value costs (`sys.getsizeof`, which does not look inside: give your own for
    what holds other objects). `max_size` limits this cache alone; without it, what the zone has free
    is the limit. The lower `seeks`, what a value costs to have again, the sooner it goes. With
    `write_back(key, value)`, values may be put in `dirty`, and are written before they are dropped.
    What may be dirty at one time is limited for all caches of the zone; `group`, of
    ``zone.dirty_limits().group(name, limit)``, is a limit for some of them.

    With `budget` the cache belongs to one of a tree of budgets (in bytes), as the page cache of a memory
    cgroup does to it: what it keeps is charged there and to all above, in whole pages, and dropped when
    that budget, or one above, would have a request wait or fail, be it for another cache. A fifth of it, and
    of each above, may be dirty, unless `group` says otherwise. Close the cache before its budget.

    >>> from headway import Zone
    >>> zone = Zone("1MiB")
    >>> pages = ShrinkableCache(zone, cost=len, name="pages")
    >>> pages["a"] = bytes(5000)
    >>> len(pages["a"]), pages.get("b"), pages.stats().charged
    (5000, None, 8192)

    As a decorator it stands in for `functools.lru_cache`, arguments and all, for plain functions:

    >>> @ShrinkableCache(zone, cost=len)
    ... def double(text: str) -> str:
    ...     return text * 2
    >>> double("ab"), double("ab"), double.cache_info()
    ('abab', 'abab', CacheInfo(hits=1, misses=1, maxsize=None, currsize=1))
    >>> zone.close()

    Raises: UsageError if the arguments make no cache.
    """

    __slots__ = ("_typed",)

    def __init__(
        self,
        zone: Zone,
        *,
        cost: Callable[[V], int] = sys.getsizeof,
        name: str = "cache",
        max_size: int | str | None = None,
        seeks: int = SEEKS,
        write_back: WriteBack[K, V] | None = None,
        group: Domain | None = None,
        budget: Any = None,
        typed: bool = False,
        runtime: Runtime | None = None,
    ) -> None:
        self._typed = typed
        super().__init__(
            zone.slow_path(),
            runtime=runtime or ambient() or THREADS,
            cost=cost,
            name=name,
            seeks=seeks,
            max_bytes=None if max_size is None else parse_size(max_size, f"max_size of {name!r}"),
            write_back=write_back,
            group=group,
            budget=_budget(budget, name),
        )
        zone.adopt(self)
        ROSTER.enter(self)

    def __call__(self, function: Callable[P, R]) -> Cached[P, R]:
        """Decorate: calls with equal arguments are answered from the cache, as far as it has room.

        Raises: UsageError for a coroutine function, whose coroutines can be awaited only once.
        """
        if inspect.iscoroutinefunction(function):
            raise UsageError(
                f"cache {self.name!r} around {function!r}: a coroutine can be awaited only once; "
                "use the cache as a mapping inside it"
            )
        return _decorated(self, function, self._typed)


def _budget(budget: Any, name: str) -> core_budget.Budget | None:
    """The core's budget, also of one with the face for asyncio."""
    budget = getattr(budget, "budget", budget)
    if budget is None or isinstance(budget, core_budget.Budget):
        return budget
    raise UsageError(f"cache {name!r}: budget is {budget!r}; give a Budget, in bytes")


def _decorated(cache: Any, function: Callable[P, R], typed: bool) -> Cached[P, R]:
    look, put, key_of = cache.get, cache.put, _typed_key if typed else _key
    missing: Any = object()

    def answer(*args: P.args, **kwargs: P.kwargs) -> R:
        key = key_of(args, kwargs) if kwargs or typed else args
        found: R = look(key, missing)
        if found is missing:
            found = function(*args, **kwargs)
            put(key, found)
        return found

    cached: Any = functools.update_wrapper(answer, function)
    cached.cache_info = lambda: _info(cache)
    cached.cache_clear = lambda: _clear(cache)
    cached.cache_parameters = lambda: {"maxsize": cache.max_bytes, "typed": typed}
    return cast("Cached[P, R]", cached)


def _key(args: tuple[Hashable, ...], kwargs: dict[str, Any]) -> Hashable:
    key: tuple[Any, ...] = args
    if kwargs:
        key = (*key, _KEYWORDS)
        for item in kwargs.items():
            key += item
    return key


def _typed_key(args: tuple[Hashable, ...], kwargs: dict[str, Any]) -> Hashable:
    types = (*map(type, args), *map(type, kwargs.values()))
    return _key(args, kwargs), types


def _info(cache: core.ShrinkableCache[Any, Any]) -> CacheInfo:
    return CacheInfo(cache.hits, cache.misses, cache.max_bytes, len(cache))


def _clear(cache: core.ShrinkableCache[Any, Any]) -> None:
    cache.clear()
    cache.hits = cache.misses = 0
