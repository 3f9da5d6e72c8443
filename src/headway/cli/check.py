"""`headway check`: run a function's real code, or a model, under every schedule, and say which sizes are safe."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headway.cli import console
from headway.cli.app import FLAG, Dask, Debug, Interrupted, Jobs, Json
from headway.errors import UsageError

if TYPE_CHECKING:
    from headway.checker.crew import Crew
    from headway.checker.report import Report
    from headway.checker.sampling import Odds

_Cancel = Annotated[
    int,
    typer.Option(
        "--cancel",
        metavar="N",
        min=0,
        help="Cancel asynchronous tasks where they wait, N times in a run.",
    ),
]
_Runs = Annotated[
    int | None,
    typer.Option(
        "--odds", metavar="RUNS", min=1, help="Also say how many of RUNS timed runs stall."
    ),
]
_Spread = Annotated[
    float,
    typer.Option(
        "--spread", metavar="T", min=0, help="For --odds: tasks begin within T mean steps."
    ),
]
_Page = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Draw the report as a page, too."),
]
_Complete = Annotated[
    bool,
    typer.Option(
        "--complete", metavar=FLAG, help="Exit 1, too, if nothing was found and not all was seen."
    ),
]
_Seed = Annotated[
    int | None,
    typer.Option("--seed", metavar="S", help="For the runs at random, if not all can be seen."),
]
_Schedule = Annotated[
    str | None,
    typer.Option("--replay", metavar="SCHEDULE", help="Run one schedule, as a report gave it."),
]


def command(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="What to check: FILE.py:FUNCTION, without arguments, or MODEL.toml.",
        ),
    ],
    max_schedules: Annotated[
        int,
        typer.Option(
            "--max-schedules",
            metavar="N",
            help="How many runs at most; of a model, 50 states each.",
        ),
    ] = 20_000,
    seed: _Seed = None,
    cancel: _Cancel = 0,
    replay: _Schedule = None,
    odds: _Runs = None,
    spread: _Spread = 0.0,
    html: _Page = None,
    complete: _Complete = False,
    jobs: Jobs = None,
    dask: Dask = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Find deadlocks, livelocks, starvation, leaks and errors in code that uses pools, and the safe sizes.

    The function makes its pools and starts its tasks with hw.spawn(fn, *args). Exit status: 0 nothing
    found, 1 found something, 2 misuse.
    """
    if replay is not None and seed is not None:
        raise UsageError(
            "--seed and --replay exclude each other: a replay leaves nothing to chance"
        )
    if spread and odds is None:
        raise UsageError("--spread is for --odds: add --odds RUNS")
    # A program may make coroutines that are never run; the report says what is wrong, with its line.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    from headway.checker.crew import Crew

    with Crew(jobs, dask) as crew:
        if target.endswith(".toml"):
            report = _model(target, max_schedules, replay, crew)
        else:
            report = _code(target, max_schedules, seed, replay, cancel, crew)
        sampled = None if odds is None else _odds(target, odds, seed or 0, spread, crew)
    if as_json:
        console.print_json(report.json() | ({"odds": sampled.json()} if sampled else {}))
    else:
        console.say(report.text(), *([sampled.text()] if sampled else []))
    if html is not None:  # last: a page that cannot be written does not cost the report
        from headway.checker.page import html as drawn

        console.write_page(html, drawn(report))
    if report.verdict != "ok":
        return 1
    return 1 if complete and report.is_undecided else 0


@contextmanager
def _told() -> Iterator[None]:
    """A bar on a terminal; and an interrupt says what was known by then."""
    from headway.checker.telling import listening

    with console.counting() as show, listening(show) as told:
        try:
            yield
        except Interrupted as interrupt:
            if known := told.text():
                interrupt.args = (f"{interrupt}; {known}",)
            raise


@_told()
def _code(
    target: str,
    max_schedules: int,
    seed: int | None,
    replay: str | None,
    cancels: int,
    crew: Crew,
) -> Report:
    from headway.checker import target as checking
    from headway.checker.loading import load

    program = load(target)
    if replay is not None:
        return checking.replay(program, replay, target=target)
    return checking.check(
        program,
        target=target,
        max_schedules=max_schedules,
        seed=seed,
        cancels=cancels,
        crew=crew,
    )


@_told()
def _model(target: str, max_schedules: int, replay: str | None, crew: Crew) -> Report:
    """A model is searched, never sampled: a seed changes nothing."""
    from headway.checker import recurring
    from headway.checker.model import load

    model = load(target)
    if replay is not None:
        return recurring.replay(model, replay, target=target)
    if max_schedules < 1:
        raise UsageError(f"--max-schedules is {max_schedules}; the least is 1")
    return recurring.check(model, target=target, max_schedules=max_schedules, crew=crew)


def _odds(target: str, runs: int, seed: int, spread: float, crew: Crew) -> Odds:
    from headway.checker import model, sampling
    from headway.checker import target as checking
    from headway.checker.loading import load

    if target.endswith(".toml"):
        return sampling.of_model(model.load(target), runs, seed, spread, crew)
    return checking.sampled(load(target), runs, seed, spread, crew=crew)
