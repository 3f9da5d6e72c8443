"""aiohttp's client: a response keeps its connection until it is read to the end or closed.

A connector has a limit for all, and may have one for each host. A request takes of both in one event, and waits for the
one that has no more: so there are two pools, and no order between them.
"""

from __future__ import annotations

from typing import Any, Final

from headway.watch.classes import Pool
from headway.watch.ledger import Ledger
from headway.watch.patches import Patcher, pool_of
from headway.watch.patches.checkout import made, take_async
from headway.watch.places import keep_quiet

MODULE = "aiohttp.connector"
_HOSTS: Final = (
    "_headway_hosts"  # the pools of the hosts that have connections out, by aiohttp's key
)


def install(patcher: Patcher) -> None:
    import aiohttp
    from aiohttp.connector import BaseConnector

    keep_quiet(aiohttp)
    ledger = patcher.ledger

    def init(original: Any) -> Any:
        def __init__(self: Any, *args: Any, **options: Any) -> None:
            original(self, *args, **options)
            made(ledger, self, "aiohttp connector", self.limit)
            setattr(self, _HOSTS, {})

        return __init__

    def connect(original: Any) -> Any:
        async def connect(self: Any, request: Any, traces: Any, timeout: Any) -> Any:
            total, connection = pool_of(self), None
            if total is None:
                return await original(self, request, traces, timeout)

            async def get() -> Any:
                nonlocal connection
                connection = await original(self, request, traces, timeout)
                return connection.protocol

            async def of_host() -> Any:
                host = _host(ledger, self, request.connection_key, total)
                try:
                    return await take_async(ledger, host, timeout.connect, get)
                finally:
                    _forget(self, request.connection_key)

            take = of_host if self.limit_per_host else get
            if total.size is None:
                await take()
            else:
                await take_async(ledger, total, timeout.connect, take)
            return connection

        return connect

    def back(original: Any) -> Any:
        def _release_acquired(self: Any, key: Any, protocol: Any) -> None:
            try:
                for pool in (getattr(self, _HOSTS, {}).get(key), pool_of(self)):
                    if pool is not None and any(h.element is protocol for h in list(pool.out)):
                        ledger.release(pool, protocol)
                _forget(self, key)
            finally:
                original(self, key, protocol)

        return _release_acquired

    patcher.replace(BaseConnector, "__init__", init)
    patcher.replace(BaseConnector, "connect", connect)
    patcher.replace(BaseConnector, "_release_acquired", back)


def _host(ledger: Ledger, connector: Any, key: Any, total: Pool) -> Pool:
    hosts: dict[Any, Pool] = getattr(connector, _HOSTS)
    host = hosts.get(key)
    if host is None:
        label, at = "aiohttp connections to one host", total.cls.made
        host = ledger.pool("connections", label, connector.limit_per_host, made=at, of=connector)
        host.within = total
        hosts[key] = host
    return host


def _forget(connector: Any, key: Any) -> None:
    """Forget the pool of a host that nobody has a connection to, nor comes for one."""
    hosts: dict[Any, Pool] = getattr(connector, _HOSTS, {})
    host = hosts.get(key)
    if host is not None and not host.out and not host.taking:
        del hosts[key]
