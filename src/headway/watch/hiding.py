"""What a checker runs is none of watch's business: all its schedules, in one thread, would look like one program.

It decides what counts as under check: all that runs in the context of `hidden`'s body, or in a copy of that (so do
simulated tasks). Only while there is such a body is the ledger asked by way of here; else hiding costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from headway.watch.classes import Holding, Owner, Pool, PoolClass, Wait
from headway.watch.ledger import Ledger

_hiding: ContextVar[bool] = ContextVar("headway_watch_hiding", default=False)
_owner: Final = Owner(0, "code under check", lambda: True)
_pool: Final = Pool(PoolClass("lock", "code under check", (), False), None)
_holding: Final = Holding((_pool, _owner, (), 0.0, None))


def _no_pool(kind: str, label: str, size: int | None, **_: Any) -> Pool:
    return Pool(PoolClass(kind, label, (), False), size)


def _no_wait(what: str, *_: Any, **__: Any) -> Wait:
    return Wait(_owner, None, what, (), 0.0, None)


# What is answered instead, to who tells the ledger something. What was told outside may end in here.
_INSTEAD: Final[dict[str, Callable[..., Any]]] = {
    "pool": _no_pool,
    "wait": _no_wait,
    **dict.fromkeys(("enter", "grant", "renew"), lambda *_, **__: _holding),
    "ask": lambda *_, **__: _owner,
    **dict.fromkeys(("connect", "joined", "note_wait", "release", "sight"), lambda *_, **__: None),
}


@contextmanager
def hidden(ledger: Ledger) -> Iterator[None]:
    """Nothing of the body is told to the ledger."""
    token = _hiding.set(True)
    if not ledger.hidden:
        for name, instead in _INSTEAD.items():
            setattr(ledger, name, _asking(getattr(ledger, name), instead))
    ledger.hidden += 1
    try:
        yield
    finally:
        _hiding.reset(token)
        ledger.hidden -= 1
        if not ledger.hidden:
            for name in _INSTEAD:
                delattr(ledger, name)


def _asking(told: Callable[..., Any], instead: Callable[..., Any]) -> Callable[..., Any]:
    def ask(*args: Any, **options: Any) -> Any:
        return (instead if _hiding.get() else told)(*args, **options)

    return ask
