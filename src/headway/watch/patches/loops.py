"""A thread's wait that stops an event loop: any of the patches may see one."""

from __future__ import annotations

import asyncio
from types import FrameType

from headway.watch.ledger import Ledger
from headway.watch.places import far


def stops_loop(ledger: Ledger, what: str, frame: FrameType) -> None:
    """A thread is about to wait: is it the one that has an event loop to run?"""
    if asyncio._get_running_loop() is not None:
        ledger.sight("blocking-in-loop", None, what, far(frame))
