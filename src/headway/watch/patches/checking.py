"""headway's checker: while it runs code, nothing that this code does is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from headway.watch.hiding import hidden
from headway.watch.patches import Patcher

MODULE = "headway.checker.loading"


def install(patcher: Patcher) -> None:
    from headway.checker import loading

    ledger = patcher.ledger

    def refused(original: Any) -> Any:
        @contextmanager
        def refused(module: Any = None) -> Iterator[None]:
            with hidden(ledger), original(module):
                yield

        return refused

    patcher.replace(loading, "refused", refused)
