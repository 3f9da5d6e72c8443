"""Lockdep for the pools of programs that already exist: who took what while holding what, and can that hang.

One harmless run is enough. In a program: ``from headway import watch; watch.start()``, or in a block:

    with watch.watching() as session:
        serve_one_request()
    assert not session.findings()

From outside: ``headway watch -- python app.py``, ``pytest --headway-watch``. It patches the pools of the standard
library and of the libraries in `headway.watch.patches`; not started, it costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from headway.watch.finding import Finding
from headway.watch.session import Options, Session

__all__ = ["Finding", "Options", "Session", "start", "stop", "watching"]

_running: list[Session] = []


def start(options: Options | None = None) -> Session:
    """Watch this process from now on; the session that runs already, if one does."""
    if not _running:
        session = Session(options or Options())
        _running.append(session)
        session.start()
    return _running[0]


def stop() -> None:
    """Take all patches off. Objects made under watch go on to work, and tell nobody."""
    while _running:
        _running.pop().stop()


@contextmanager
def watching(options: Options | None = None) -> Iterator[Session]:
    """Watch during a block; afterwards the session can still be asked for its findings."""
    session = start(options)
    try:
        yield session
    finally:
        stop()
