"""Who of a weak set is alive, asked while other threads add to it.

It keeps nothing. To iterate over such a set itself fails, in whatever the program does, if a thread adds meanwhile.
"""

from __future__ import annotations

import weakref
from typing import Any, TypeVar

T = TypeVar("T")


def living(some: weakref.WeakSet[T]) -> list[T]:
    """Those that are there now."""
    refs: set[Any] = some.data  # type: ignore[attr-defined]
    return [one for ref in list(refs) if (one := ref()) is not None]
