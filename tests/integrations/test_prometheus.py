"""The collector, scraped by prometheus-client as a server would: over HTTP, of this process and of another."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

import headway as hw
from headway.integrations.prometheus import Collector


@pytest.fixture
def scrape() -> Iterator[Any]:
    """What a real scrape of the given collector says: ``{(metric, labels): value}``."""
    ends = []

    def get(collector: Collector) -> dict[tuple[str, tuple[str, ...]], float]:
        registry = CollectorRegistry()
        registry.register(collector)
        server, thread = start_http_server(0, "127.0.0.1", registry)
        ends.append((server, thread))
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as answer:
            text = answer.read().decode()
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = (sample.name, tuple(sample.labels.values()))
                assert key not in found, "a sample was told twice: the scrape would be refused"
                found[key] = sample.value
        return found

    yield get
    for server, thread in ends:
        server.shutdown()
        server.server_close()
        thread.join()


def test_pools_zones_caches_and_budgets_are_told_in_base_units(scrape: Any) -> None:
    with hw.Zone("1MiB", min_free=0, name="prom zone") as zone:
        slots = hw.Mempool.of(range(3), name="prom slots")
        units = hw.Budget("64KiB", name="prom units")
        cache = hw.ShrinkableCache(zone, cost=len, name="prom cache")
        cache["a"] = bytes(5000)
        assert cache.get("a") and cache.get("b") is None
        elements = slots.alloc_bulk(3)
        units.alloc(4096)
        waiter = threading.Thread(target=slots.alloc)
        waiter.start()
        while not slots.waiters:
            pass
        found = scrape(Collector())
        assert found["headway_pool_outstanding", ("prom slots",)] == 3
        assert found["headway_pool_waiting", ("prom slots",)] == 1
        assert found["headway_pool_allocations_total", ("prom slots",)] == 3
        assert found["headway_oldest_wait_seconds", ("pool", "prom slots")] >= 0
        assert found["headway_zone_size_bytes", ("prom zone",)] == 1 << 20
        assert found["headway_zone_clean_bytes", ("prom zone",)] == 8192
        assert found["headway_cache_used_bytes", ("prom cache",)] == 5000
        assert found["headway_cache_hits_total", ("prom cache",)] == 1
        assert found["headway_budget_used", ("prom units",)] == 4096
        slots.free(elements[0])
        waiter.join(60)
        found = scrape(Collector())
        assert found["headway_pool_waits_total", ("prom slots",)] == 1
        assert ("headway_oldest_wait_seconds", ("pool", "prom slots")) not in found


def test_things_of_one_name_are_one_sample(scrape: Any) -> None:
    pools = [hw.Mempool.of(range(size), name="prom twins") for size in (2, 3)]
    assert scrape(Collector())["headway_pool_reserve_size", ("prom twins",)] == 5
    assert len(pools) == 2


def test_a_saved_snapshot_or_another_process_is_collected_the_same_way(scrape: Any) -> None:
    from headway.snapshots import snapshot

    pool = hw.Mempool.of(range(2), name="prom told")
    told = snapshot()
    pool.close()
    assert scrape(Collector(lambda: told))["headway_pool_reserve", ("prom told",)] == 2
    assert ("headway_pool_reserve", ("prom told",)) not in scrape(Collector())


def test_registering_takes_no_snapshot() -> None:
    def read() -> dict[str, Any]:
        raise AssertionError("looked at before it is scraped")

    CollectorRegistry().register(Collector(read))
