"""`headway check`: run a function's real code under every schedule, and say which sizes are safe."""

from __future__ import annotations

from typing import Annotated

import typer

from headway.cli import console
from headway.cli.app import Debug, Json
from headway.errors import UsageError


def command(
    target: Annotated[
        str, typer.Argument(metavar="FILE.py:FUNCTION", help="What to check; it takes no argument.")
    ],
    max_schedules: Annotated[
        int, typer.Option("--max-schedules", metavar="N", help="How many runs at most.")
    ] = 20_000,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="S", help="For the runs at random, if not all can be seen."),
    ] = None,
    replay: Annotated[
        str | None,
        typer.Option("--replay", metavar="SCHEDULE", help="Run one schedule, as a report gave it."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Find deadlocks, leaks and errors in code that uses pools: the shortest schedule, and the safe sizes.

    The function makes its pools and starts its tasks with hw.spawn(fn, *args). Exit status: 0 nothing
    found, 1 found something, 2 misuse.
    """
    from headway.checker import target as checking
    from headway.runtimes.scopes import made_for

    program = checking.load(target)
    if replay is not None:
        if seed is not None:
            raise UsageError(
                "--seed and --replay exclude each other: a replay leaves nothing to chance"
            )
        report = checking.replay(program, replay, target=target, ambient=made_for)
    else:
        report = checking.check(
            program, target=target, ambient=made_for, max_schedules=max_schedules, seed=seed
        )
    if as_json:
        console.print_json(report.json())
    else:
        console.say(report.text())
    return 0 if report.verdict == "ok" else 1
