"""Metrics of pools, zones, caches and budgets for Prometheus: one collector over the snapshot of ``headway top``.

It decides nothing, and looks only when it is scraped. A metric has one label, the thing's name: things that share
a name are added up (of their longest waits the longest counts), so give names to what you want to tell apart.

    from prometheus_client import REGISTRY
    from headway.integrations.prometheus import Collector

    REGISTRY.register(Collector())

Source: the naming rules of Prometheus (base units, ``_total`` for what only grows).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from headway import snapshots
from headway.errors import MissingExtra

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector as Collecting
except ImportError as error:
    raise MissingExtra("the collector for Prometheus", "metrics") from error

__all__ = ["Collector"]


class _Metric(NamedTuple):
    kind: str  # of the snapshot
    field: str
    name: str
    says: str
    counts: bool = False  # it only grows
    join: Callable[[float, float], float] = lambda one, other: one + other


_METRICS: Final = (
    _Metric("pools", "min_count", "reserve_size", "Elements that the reserve should have."),
    _Metric("pools", "reserve_count", "reserve", "Elements in the reserve."),
    _Metric("pools", "outstanding", "outstanding", "Elements that are out."),
    _Metric("pools", "waiters", "waiting", "Requests that wait now."),
    _Metric("pools", "alloc_count", "allocations", "Elements ever given out.", True),
    _Metric("pools", "reserve_uses", "reserve_uses", "Allocations that the reserve had to serve.", True),
    _Metric("pools", "waits", "waits", "Requests that had to wait, and have ended.", True),
    _Metric("pools", "timeouts", "timeouts", "Waits that ended at their time limit.", True),
    _Metric("pools", "longest_wait_s", "longest_wait_seconds", "The longest wait so far.", False, max),
    _Metric("zones", "size", "size_bytes", "Bytes of the arena."),
    _Metric("zones", "held", "held_bytes", "Bytes of buffers that are out."),
    _Metric("zones", "clean", "clean_bytes", "Bytes charged to caches that can be dropped."),
    _Metric("zones", "dirty", "dirty_bytes", "Bytes charged to caches that must be written first."),
    _Metric("zones", "free", "free_bytes", "Bytes that are free."),
    _Metric("zones", "low", "low_bytes", "Below this the background reclaimer works."),
    _Metric("zones", "reclaimed", "reclaimed_bytes", "Bytes that gave way.", True),
    _Metric("zones", "direct_reclaims", "direct_reclaims", "Requests that reclaimed by themselves.", True),
    _Metric("zones", "background_reclaims", "background_reclaims", "Rounds of the reclaimer.", True),
    _Metric("zones", "throttled", "throttled", "Requests that waited for the reclaimer.", True),
    _Metric("zones", "heavy_refusals", "refusals", "Tries that found no memory.", True),
    _Metric("zones", "oom_count", "out_of_memory", "Requests that found nothing, even by reclaim.", True),
    _Metric("caches", "count", "objects", "Objects kept."),
    _Metric("caches", "used", "used_bytes", "Bytes of the objects kept."),
    _Metric("caches", "charged", "charged_bytes", "Bytes of the zone charged for them."),
    _Metric("caches", "dirty", "dirty_bytes", "Bytes that are not written back yet."),
    _Metric("caches", "hits", "hits", "Looks that found a value.", True),
    _Metric("caches", "misses", "misses", "Looks that found none.", True),
    _Metric("caches", "evicted", "evicted", "Objects that gave way.", True),
    _Metric("caches", "refused", "refused", "Values not kept, for want of room.", True),
    _Metric("caches", "write_errors", "write_errors", "Objects that could not be written back.", True),
    _Metric("budgets", "capacity", "capacity", "Units that may be out."),
    _Metric("budgets", "reserve", "reserve", "Units only for entitled requests."),
    _Metric("budgets", "used", "used", "Units that are out."),
    _Metric("budgets", "waiters", "waiting", "Requests that wait now."),
    _Metric("budgets", "reserve_uses", "reserve_uses", "Grants that drew on the reserve.", True),
    _Metric("budgets", "waits", "waits", "Requests that had to wait, and have ended.", True),
    _Metric("budgets", "timeouts", "timeouts", "Waits that ended at their time limit.", True),
    _Metric("budgets", "longest_wait_s", "longest_wait_seconds", "The longest wait so far.", False, max),
)  # fmt: skip


class Collector(Collecting):
    """Register it once: ``REGISTRY.register(Collector())``. Metrics are called ``headway_pool_waiting`` and so on.

    `read` gives the snapshot: of this process, or ``Published(pid).snapshot`` (`headway.published`) of another.
    """

    def __init__(self, read: Callable[[], Mapping[str, Any]] = snapshots.snapshot) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registry that asks for names takes no snapshot."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """One family for each metric. Waits: as the snapshot does."""
        found = self._read()
        longest = self._longest_now(found)
        for metric in _METRICS:
            what = metric.kind.removesuffix("s")
            make = CounterMetricFamily if metric.counts else GaugeMetricFamily
            family = make(f"headway_{what}_{metric.name}", metric.says, labels=[what])
            values: dict[str, float] = {}
            for row in found[metric.kind]:
                name, value = str(row["name"]), float(row[metric.field])
                values[name] = metric.join(values[name], value) if name in values else value
            for name, value in values.items():
                family.add_metric([name], value)
            yield family
        yield longest

    def _longest_now(self, found: Mapping[str, Any]) -> Metric:
        """The one metric that shows a freeze: a wait that has not ended is in no other."""
        family = GaugeMetricFamily(
            "headway_oldest_wait_seconds",
            "For how long the oldest request has waited that still waits.",
            labels=["kind", "name"],
        )
        oldest: dict[tuple[str, str], float] = {}
        for wait in found["waits"]:
            key = (str(wait["kind"]), str(wait["name"]))
            oldest[key] = max(oldest.get(key, 0.0), float(wait["for_s"] or 0.0))
        for labels, value in oldest.items():
            family.add_metric(list(labels), value)
        return family
