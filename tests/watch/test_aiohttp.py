"""aiohttp's connectors (item 13 of the collection), with a limit for all and one for each host."""

import asyncio
import socket

import pytest

from headway import watch
from tests.watch import freezing, servers


@pytest.fixture
def session():
    with watch.watching(watch.Options(breaks=True)) as session:
        yield session


def found(session):
    return [(f.kind, f.severity, f.hangs_from) for f in session.findings(final=True)]


@pytest.fixture(scope="module")
def site():
    with servers.http_server() as address:
        yield address


@pytest.mark.parametrize("nested", [True, False])
def test_aiohttp(session, site, nested):
    aiohttp = pytest.importorskip("aiohttp")

    async def main():
        connector = aiohttp.TCPConnector(limit=2)
        async with aiohttp.ClientSession(connector=connector, read_bufsize=1024) as http:
            async with http.get(site) as response:
                if nested:
                    async with http.get(site) as other:
                        await other.read()
                await response.read()
            async with http.get(site) as response:
                await response.read()

    asyncio.run(main())
    assert found(session) == ([("nested", "warning", 2)] if nested else [])
    if nested:
        assert "aiohttp connector of 2 made at" in session.findings()[0].pool


@pytest.mark.parametrize("limit", [0, 2, 100])
@pytest.mark.parametrize("other", [False, True])
def test_aiohttp_with_a_limit_for_each_host(session, site, limit, other):
    """Nested to one host it hangs by the host's limit; to another, only if those of the first may fill the whole."""
    aiohttp = pytest.importorskip("aiohttp")

    async def main():
        connector = aiohttp.TCPConnector(limit=limit, limit_per_host=2)
        async with aiohttp.ClientSession(connector=connector, read_bufsize=1024) as http:
            async with http.get(site) as response:
                async with http.get(
                    site.replace("127.0.0.1", "localhost") if other else site
                ) as more:
                    await more.read()
                await response.read()
        assert connector._headway_hosts == {}

    asyncio.run(main())
    of_host, of_all = ("nested", "warning", 2), ("nested", "risk", 2)
    expected = ([] if other else [of_host]) + ([of_all] if limit == 2 else [])
    assert sorted(found(session), reverse=True) == expected
    assert session.ledger.current().held == []


def test_aiohttp_forgets_a_host_that_nobody_reached(session):
    aiohttp = pytest.importorskip("aiohttp")

    async def main():
        with socket.socket() as taken:  # bound, and nobody listens
            taken.bind(("127.0.0.1", 0))
            connector = aiohttp.TCPConnector(limit_per_host=2)
            async with aiohttp.ClientSession(connector=connector) as http:
                with pytest.raises(aiohttp.ClientConnectorError):
                    await http.get(f"http://127.0.0.1:{taken.getsockname()[1]}/")
                assert connector._headway_hosts == {}

    asyncio.run(main())
    assert session.ledger.out == []


@pytest.mark.parametrize("per_host", [False, True])
def test_aiohttp_frozen(session, site, per_host):
    aiohttp = pytest.importorskip("aiohttp")

    async def tasks():
        connector = aiohttp.TCPConnector(limit=100 if per_host else 2, limit_per_host=2 * per_host)
        timeout = aiohttp.ClientTimeout(total=None)
        http = aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=1024)
        meet = asyncio.Barrier(2)

        async def run(last):
            try:
                await freezing.nest_task(meet, lambda: http.get(site), lambda one: one.close())
            finally:
                ended.append(last)
                if len(ended) == 2:
                    await http.close()

        ended = []
        return [run(number) for number in range(2)]

    hang = freezing.hung_tasks(session, tasks)
    name = "aiohttp connections to one host of 2" if per_host else "aiohttp connector of 2"
    held = {name} | ({"aiohttp connector of 100"} if per_host else set())
    assert freezing.names(hang) == ({name}, held)
    assert hang["release"]["frees"] == 2
