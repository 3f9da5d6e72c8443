"""How a subcommand shows things: JSON or text on standard output, the rest on standard error."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def say(*lines: str) -> None:
    """Print lines on standard output, and see that they arrive.

    Raises: OSError that names standard output, where a full disk would be read as the copy's.
    """
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except OSError as error:
        drop_output()
        raise OSError(error.errno, error.strerror, "standard output") from error


def drop_output() -> None:
    """What is left in the buffer goes nowhere: flushed at the exit, it would fail again, with status 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def write_page(path: Path, text: str) -> None:
    """Write a file that was asked for, and say so on standard error.

    Raises: OSError that names the file, also where it was opened and could not be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    print(f"wrote {path}", file=sys.stderr)


def print_json(report: Any) -> None:
    """Print a frozen dataclass, or a mapping, as one JSON object on one line."""
    is_value = dataclasses.is_dataclass(report) and not isinstance(report, type)
    found = dataclasses.asdict(report) if is_value else report
    say(json.dumps(found, ensure_ascii=False))


def bytes_text(size: float) -> str:
    """Binary units, three digits: ``1.50 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000 or (unit == "GiB" and size < 1024000):
            break
        size /= 1024
    else:
        unit = "TiB"
        size /= 1024
    if unit == "B":
        return f"{size:.0f} B"
    return f"{size:.{2 if size < 10 else 1 if size < 100 else 0}f} {unit}"


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar on standard error, if that is a terminal; what it yields takes (stage, done, size)."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Task as Row
    from rich.text import Text

    class Speed(ProgressColumn):
        """In the units of the sizes beside it; rich's own is decimal."""

        def render(self, task: Row) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{bytes_text(speed)}/s", "progress.data.speed")

    stages: dict[str, TaskID] = {}
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        Speed(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
    ) as bar:

        def show(stage: str, done: int, size: int) -> None:
            task = stages.get(stage)
            if task is None:
                task = stages[stage] = bar.add_task(stage, total=size)
            bar.update(task, completed=done, refresh=True)

        yield show


@contextmanager
def counting() -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar over things that are counted, on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(stage: str, done: int, size: int) -> None:
            bar.update(task, description=stage, completed=done, total=size)

        yield show
