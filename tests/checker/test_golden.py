"""The golden numbers of pools that users got stuck on: the same from models and from real code."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import headway as hw
from headway.checker.loading import load
from headway.checker.model import parse
from headway.checker.modelled import sizes
from headway.checker.target import check
from tests.house import tree


def checks_out(pool: Any, count: int) -> None:
    held = [pool.alloc() for _ in range(count)]
    for element in held:
        pool.free(element)


def nested(tasks: int, units: int, size: int) -> Callable[[], None]:
    def main() -> None:
        pool = hw.Mempool.of(range(size), name="connections")
        for _ in range(tasks):
            hw.spawn(checks_out, pool, units)

    return main


@pytest.mark.parametrize("units", [2, 3, 4])
@pytest.mark.parametrize("tasks", [2, 3, 4, 5])
def test_nested_checkout_of_real_code(tasks: int, units: int) -> None:
    """n tasks that take m one by one are safe from n(m - 1) + 1 on."""
    edge = tasks * (units - 1) + 1
    for size in (1, edge - 1, edge, edge + 1):
        report = check(nested(tasks, units, size))
        assert report.verdict == ("ok" if size >= edge else "deadlock")
        assert report.complete == (size >= edge)
        assert report.min_reserve == {"connections": edge}


def long(blocks: Any) -> None:
    held = blocks.alloc_bulk(4)
    held.append(blocks.alloc())
    blocks.free_bulk(held)


def short(blocks: Any) -> None:
    held = blocks.alloc_bulk(3)
    held.append(blocks.alloc())
    blocks.free_bulk(held)


def at_once(blocks: Any, count: int) -> None:
    blocks.free_bulk(blocks.alloc_bulk(count))


def server(size: int, wake: hw.Wake, together: bool) -> Callable[[], None]:
    def main() -> None:
        blocks = hw.Mempool.of(range(size), name="blocks", wake=wake)
        if together:
            hw.spawn(at_once, blocks, 5)
            hw.spawn(at_once, blocks, 4)
        else:
            hw.spawn(long, blocks)
            hw.spawn(short, blocks)

    return main


@pytest.mark.parametrize(
    ("wake", "together", "safe"),
    [
        ("any_fit", False, [5, 6, 8, 9, 10]),
        ("fifo", False, [8, 9, 10]),
        ("any_fit", True, [5, 6, 7, 8, 9, 10]),
        ("fifo", True, [5, 6, 7, 8, 9, 10]),
    ],
)
def test_the_hole_at_seven_blocks(wake: str, together: bool, safe: list[int]) -> None:
    steps = {
        "A": ["+kv 5", "-kv 5"] if together else ["+kv 4", "+kv 1", "-kv 5"],
        "B": ["+kv 4", "-kv 4"] if together else ["+kv 3", "+kv 1", "-kv 4"],
    }
    actors = {name: {"steps": found} for name, found in steps.items()}
    model = parse({"wake": wake.replace("_", "-"), "pools": {"kv": 1}, "actors": actors})
    assert list(sizes(model, "kv", 10).safe) == safe
    verdicts = {
        size: check(server(size, hw.Wake(wake), together), sizes=False) for size in range(5, 11)
    }
    assert [size for size, report in verdicts.items() if report.verdict == "ok"] == safe
    for report in verdicts.values():
        assert report.complete == (report.verdict == "ok")
        assert report.verdict in ("ok", "deadlock")


REMEDIES = ("sized", "unwinding", "private", "submitting_first")


def test_the_incident_is_found_replayed_and_sized() -> None:
    report = check(load(str(tree.ROOT / "examples/bounce.py") + ":two_mappers"))
    assert (report.verdict, report.min_reserve) == ("deadlock", {"bounce": 3})
    assert len(report.trace) == 4


@pytest.mark.parametrize("name", REMEDIES)
def test_each_remedy_is_ok_and_complete(name: str) -> None:
    report = check(load(f"{tree.ROOT}/examples/bounce.py:{name}"))
    assert (report.verdict, report.complete) == ("ok", True)


def test_every_remedy_of_the_example_is_tried() -> None:
    text = Path(tree.ROOT, "examples/bounce.py").read_text(encoding="utf-8")
    said = text[text.index("REMEDIES = {") :]
    assert re.findall(r": (\w+),", said) == list(REMEDIES)
