"""What users rely on changes only on purpose: the public names, and the requests of a plan."""

from __future__ import annotations

import importlib
import typing
from pathlib import Path

from headway.core import plan
from tests.house import tree
from tests.house.surface import surface

SNAPSHOT = Path(__file__).with_name("public_surface.txt")


def test_the_public_surface_is_the_recorded_one() -> None:
    now, then = set(surface()), set(SNAPSHOT.read_text().split("\n")) - {""}
    said = [f"new: {row}" for row in sorted(now - then)]
    said += [f"gone: {row}" for row in sorted(then - now)]
    remedy = f"if meant: python -m tests.house.surface > {tree.name(SNAPSHOT)}, and a fragment"
    assert not said, "\n".join([*said, remedy])


def test_every_public_name_exists() -> None:
    for row in surface():
        module, name = row.split(": ")
        assert hasattr(importlib.import_module(module), name), (
            f"{module}.__all__ names {name}: define it"
        )


def test_the_request_vocabulary_is_closed() -> None:
    requests = {request.__name__ for request in typing.get_args(plan.Request)}
    assert requests == {"Call", "Offload", "Park", "Unpark", "Now", "Spawn"}, (
        "a seventh request is a word every driver must learn: supersede decision 0002 first"
    )


def test_the_wheel_says_it_is_typed() -> None:
    assert (tree.PACKAGE / "py.typed").exists()
