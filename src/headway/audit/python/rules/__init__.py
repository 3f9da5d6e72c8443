"""The Python rules, one file each; each has a page under `docs/audit/`. They do not know each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from headway.audit.finding import Finding, Rule
from headway.audit.python.program import Program
from headway.audit.python.rules import (
    blocking_in_async,
    nested_take,
    opposite_order,
    own_worker,
    take_in_finaliser,
    unbounded_queue,
    unmanaged_take,
    untimed_wait,
)


class _RuleFile(Protocol):
    @property
    def RULE(self) -> Rule: ...

    @property
    def find(self) -> Callable[[Program], Iterator[Finding]]: ...


FILES: tuple[_RuleFile, ...] = (
    unmanaged_take,
    nested_take,
    blocking_in_async,
    take_in_finaliser,
    untimed_wait,
    opposite_order,
    own_worker,
    unbounded_queue,
)
