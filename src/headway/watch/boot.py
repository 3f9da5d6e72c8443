"""What a program started by `headway watch` does in itself: watch, publish, explain on a key, report at the end.

The setting is one JSON object in an environment variable, which children inherit: the folder for
reports (one file for each process), when silence is a hang, and the options of the session.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from headway import watch
from headway.watch import explain
from headway.watch.station import Station

VARIABLE = "HEADWAY_WATCH"


def setting(
    folder: str,
    *,
    stall_s: float,
    concurrency: int | None = None,
    profile: bool = False,
    breaks: bool = False,
) -> str:
    """The value of the environment variable."""
    told = {"concurrency": concurrency, "profile": profile, "breaks": breaks}
    return json.dumps({"folder": folder, "stall_s": stall_s, "options": told})


def start(told: str) -> None:
    """Watch this process as the setting says."""
    wanted = json.loads(told)
    session = watch.start(watch.Options(**wanted["options"]))
    station = Station(session, wanted["folder"], wanted["stall_s"])
    station.open()
    atexit.register(station.close)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=station.reopen)
    _listen(session)


def _listen(session: watch.Session) -> None:
    """Explain on SIGQUIT (the key Ctrl-\\ on a terminal), where the program has no use for it itself."""
    quit_signal: Any = getattr(signal, "SIGQUIT", None)
    if quit_signal is None or threading.current_thread() is not threading.main_thread():
        return

    def show(number: int, frame: FrameType | None) -> None:
        sys.stderr.write(explain.snapshot_text(explain.snapshot(session.ledger)) + "\n")

    if signal.getsignal(quit_signal) is signal.SIG_DFL:
        signal.signal(quit_signal, show)
