"""`headway top`: what the pools, zones, caches and budgets of a running program are doing."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from headway.cli import console
from headway.cli.app import FLAG, Debug, Interrupted, Json
from headway.errors import HeadwayError, MissingExtra, UsageError

_WIDTH: Final = 120  # of a page that no terminal shows
_SAVED: Final = 64 << 20  # bytes: no snapshot is larger

_Target = Annotated[
    str | None,
    typer.Argument(metavar="[PID|FILE]", help="A process that publishes, or a snapshot of one."),
]
_Once = Annotated[
    bool, typer.Option("--once", metavar=FLAG, help="Show it once; so also without a terminal.")
]
_Interval = Annotated[
    float, typer.Option("--interval", metavar="SECONDS", min=0.1, help="How often to look (1).")
]


def command(
    target: _Target = None,
    once: _Once = False,
    interval_s: _Interval = 1.0,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Show the pools, zones, caches, budgets and waits of a program that publishes.

    It publishes if it calls hw.publish(), or is started with HEADWAY_PUBLISH=1. Without an argument: the only one
    there is, or a list. FILE is what --json printed. The live view ends with q or Ctrl-C.
    """
    from headway import published

    if target is None:
        pids = published.processes()
        if len(pids) != 1:
            return _list(pids, as_json)
        target = str(pids[0])
    if not target.isdecimal():
        return _show(_saved(target), as_json)
    with published.Published(int(target)) as process:
        try:
            first = process.snapshot()
        except EOFError as error:
            raise HeadwayError(str(error)) from None
        if once or as_json or not (sys.stdout.isatty() and sys.stdin.isatty()):
            return _show(first, as_json)
        return _watch(process, first, interval_s)


def _saved(name: str) -> dict[str, Any]:
    from headway import snapshots

    with Path(name).open("rb") as file:
        return snapshots.read(file.read(_SAVED), name)


def _list(pids: list[int], as_json: bool) -> int:
    from headway import published

    found = []
    for pid in pids:
        try:
            with published.Published(pid) as process:
                found.append(process.snapshot())
        except (HeadwayError, EOFError) as error:
            print(f"headway: {error}", file=sys.stderr)
    if as_json:
        console.print_json(
            {"programs": [{"pid": one["pid"], "program": one["program"]} for one in found]}
        )
    elif not pids:
        console.say(
            "no program publishes: call hw.publish() in one, or start it with HEADWAY_PUBLISH=1"
        )
    else:
        console.say(_text(_panels().listing(found)))
    return 0


def _show(found: dict[str, Any], as_json: bool) -> int:
    if as_json:
        console.print_json(found)
    else:
        try:
            page = _panels().page(found)
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"the snapshot lacks what it should have: {error!r}") from error
        console.say(_text(page))
    return 0


def _panels() -> Any:
    try:
        from headway.cli import panels
    except ImportError as error:
        raise MissingExtra("the view", "cli") from error
    return panels


def _text(page: Any) -> str:
    """A page as text: coloured on a terminal, and of a fixed width elsewhere."""
    from rich.console import Console

    width = (
        None if sys.stdout.isatty() else max(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns)
    )
    shown = Console(width=width)
    with shown.capture() as captured:
        shown.print(page)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _watch(process: Any, first: dict[str, Any], interval_s: float) -> int:
    """Look again and again, until somebody has seen enough or the program has ended."""
    from rich.live import Live

    panels = _panels()
    before, found = None, first
    ended = None
    try:
        with _keys() as pressed, Live(panels.page(found), screen=True, auto_refresh=False) as live:
            live.refresh()
            while not pressed(interval_s):
                try:
                    before, found = found, process.snapshot()
                except EOFError as error:
                    ended = error
                    break
                live.update(panels.page(found, before), refresh=True)
    except KeyboardInterrupt:
        pass
    except Interrupted as interrupt:
        if str(interrupt) != signal.Signals.SIGINT.name:
            raise
    console.say(_text(panels.page(found, before)))
    if ended is not None:
        print(f"headway: {ended}", file=sys.stderr)
    return 0


@contextmanager
def _keys() -> Iterator[Any]:
    """What it yields waits so many seconds, and says whether q was pressed, or the terminal has gone."""
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def pressed(timeout_s: float) -> bool:
        if not select.select([descriptor], [], [], timeout_s)[0]:
            return False
        return os.read(descriptor, 1) in (b"q", b"Q", b"")

    try:
        tty.setcbreak(descriptor)
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
