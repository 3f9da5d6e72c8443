"""From a function to a report: search, replay, size.

It decides nothing about schedules, nor how a function is loaded (`loading`): only what is tried in which order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from headway.checker.branched import branched
from headway.checker.chance import INSTALLED, SEEDED, STANDS_STILL
from headway.checker.counted import counted
from headway.checker.crew import Crew
from headway.checker.explore import Result, Search
from headway.checker.guided import in_turn
from headway.checker.learn import NotPlain
from headway.checker.loading import undisturbed
from headway.checker.properties import judge, suspects
from headway.checker.raw import REFUSED
from headway.checker.report import Report
from headway.checker.rounds import judged
from headway.checker.sampling import Odds, of_code
from headway.checker.schedule import parse, render
from headway.checker.sizing import smallest_sizes
from headway.checker.trial import Ambient, Diverged, Settings, Trial
from headway.checker.trials import partial
from headway.errors import UsageError
from headway.runtimes.scopes import made_for

MAX_SCHEDULES = 20_000


def check(
    program: Callable[[], Any],
    *,
    target: str = "",
    ambient: Ambient = made_for,
    max_schedules: int = MAX_SCHEDULES,
    seed: int | None = None,
    sizes: bool = True,
    threads: bool = False,
    by_counts: bool = True,
    cancels: int = 0,
    leaks: bool = True,
    crew: Crew | None = None,
) -> Report:
    """Search the schedules of `program`, and repeat on the real code what was found.

    By counts of alike tasks if `by_counts` and the code allows it, or over all the ways each task can go, else
    schedule by schedule. At most `cancels` waits of asynchronous tasks are cancelled in one run. `crew` does the runs.
    Without `leaks`, units that never come home are no finding, and the search goes on.
    Raises: UsageError if `max_schedules` is below 1, or if there is nothing to judge: no pool, device or task.
    """
    if max_schedules < 1:
        raise UsageError(f"--max-schedules is {max_schedules}; the least is 1")
    settings = Settings(ambient=ambient, threads=threads, cancels=cancels, leaks=leaks)
    with undisturbed(program):
        report = _settled(
            _searched(program, settings, target, max_schedules, seed, sizes, by_counts, crew)
        )
        if report.verdict == "ok" and not report.counts:
            return replace(report, reason=_examined(program, settings, target))
    return report


def _settled(report: Report) -> Report:
    """The report with what its runs noted of chance, clocks and raw primitives in its place.

    Code that catches its refusal goes on where no production run would: no verdict of that is worth anything.
    """
    refused = [note.removeprefix(REFUSED) for note in report.notes if note.startswith(REFUSED)]
    taken = [note for note in report.notes if note in (STANDS_STILL, SEEDED, INSTALLED)]
    rest = (note for note in report.notes if not note.startswith(REFUSED) and note not in taken)
    report = replace(report, notes=tuple(rest), assumed=(*report.assumed, *taken))
    if report.verdict != "ok" or not refused:
        return report
    return replace(report, verdict="error", reason=refused[0], complete=False, min_reserve={})


def _searched(
    program: Callable[[], Any],
    settings: Settings,
    target: str,
    max_schedules: int,
    seed: int | None,
    sizes: bool,
    by_counts: bool,
    crew: Crew | None,
) -> Report:
    why = ""
    if by_counts:
        for how in (branched,) if settings.cancels else (counted, branched):
            try:
                return how(
                    program, settings, target=target, sizes=sizes, runs=max_schedules, crew=crew
                )
            except NotPlain as reason:
                why = str(reason)
    report = _by_schedules(program, settings, target, max_schedules, seed, sizes, crew)
    return replace(report, method="schedules", why=why)


def _examined(program: Callable[[], Any], settings: Settings, target: str) -> str:
    """What was judged of a program that makes no pool: its errors, if it starts tasks or asks devices.

    Raises: UsageError if it does neither: nothing was judged, and that is not to be taken for a verdict.
    """
    _, trial = in_turn(program, settings)
    tasks, asked = len(trial.simulator.tasks) - 1, len(trial.ledger.trace)
    trial.close()
    if not tasks and not asked:
        raise UsageError(
            f"check {target or getattr(program, '__name__', 'of a function')}: it makes no pool or budget, "
            "asks no device and starts no task, so there is nothing to judge (of a zone, a slab, a cache or a "
            "reservation, what tasks do with it is judged); give a function that makes its pools and starts tasks "
            "with hw.spawn(fn, *args)"
        )
    who = (
        f"its {tasks} tasks touch" if tasks > 1 else "its 1 task touches" if tasks else "it touches"
    )
    return (
        f"{who} no pool or budget: no schedule raises an error, or has one wait for ever for a reservation, a zone "
        "or a slab, and more is not claimed"
    )


def _by_schedules(
    program: Callable[[], Any],
    settings: Settings,
    target: str,
    max_schedules: int,
    seed: int | None,
    sizes: bool,
    crew: Crew | None,
) -> Report:
    """Run schedule after schedule, the shortest first; then at random what there are runs left for."""
    result = Search(program, settings, max_schedules, seed, crew=crew).run()
    least: dict[str, int | None] = {}
    finding = result.finding
    if sizes and (result.complete or (finding is not None and finding.verdict == "deadlock")):
        least = smallest_sizes(program, settings, result, max_schedules, crew)
    if finding is None:
        return replace(_report(result, target), min_reserve=least)
    if result.diverged:  # there is no one run to show
        return replace(_report(result, target), verdict="error", reason=finding.reason)
    again = _replayed(program, settings, render(result.schedule), target)
    if (again.verdict, again.stuck) != (finding.verdict, finding.stuck):
        return replace(
            again, verdict="error", reason=f"the function does not repeat itself: {finding.reason}"
        )
    return replace(
        _report(result, target),
        verdict=finding.verdict,
        reason=finding.reason,
        stuck=finding.stuck,
        release=finding.release,
        trace=again.trace,
        replay=render(result.schedule),
        min_reserve=least,
    )


def replay(
    program: Callable[[], Any],
    schedule: str,
    *,
    target: str = "",
    ambient: Ambient = made_for,
) -> Report:
    """Run one schedule, and say what it led to.

    Raises: UsageError if the text is no schedule, or not one of this program.
    """
    settings = Settings(ambient=ambient, cancels=schedule.count("x"))
    stem, tilde, cycle = schedule.partition("~")
    with undisturbed(program):
        if tilde:
            return _went_round(program, settings, stem, cycle, target)
        return _replayed(program, settings, schedule, target)


def _replayed(program: Callable[[], Any], settings: Settings, schedule: str, target: str) -> Report:
    trial = Trial(program, settings)
    try:
        options = trial.follow(parse(schedule), halt=suspects)
        found = judge(trial, not options) or partial(program, settings, trial)
    except Diverged as error:
        raise UsageError(str(error)) from error
    finally:
        trace = tuple(trial.ledger.trace)
        taken = render(trial.taken)
        trial.close()
    report = Report(
        target, "ok", "this schedule ends well" if not options else "this schedule stops half-way",
        schedules=1, states=1, trace=trace, replay=taken,
    )  # fmt: skip
    if found is None:
        return report
    return replace(
        report, verdict=found.verdict, reason=found.reason, stuck=found.stuck, release=found.release
    )


def sampled(
    program: Callable[[], Any],
    runs: int,
    seed: int = 0,
    spread: float = 0.0,
    ambient: Ambient = made_for,
    crew: Crew | None = None,
) -> Odds:
    """How many of `runs` timed runs of the real code stall; see `headway.checker.odds`."""
    with undisturbed(program):
        return of_code(program, Settings(ambient=ambient), runs, seed, spread, crew)


def _went_round(
    program: Callable[[], Any], settings: Settings, stem: str, cycle: str, target: str
) -> Report:
    try:
        found, trace, lines = judged(program, settings, parse(stem), parse(cycle))
    except Diverged as error:
        raise UsageError(str(error)) from error
    report = Report(
        target, "ok", "this round ends, or lets everybody get on", schedules=1, states=1, trace=trace,
        replay=f"{stem}~{cycle}", repeats=lines,
    )  # fmt: skip
    if found is None:
        return report
    return replace(report, verdict=found.verdict, reason=found.reason, stuck=found.stuck)


def _report(result: Result, target: str) -> Report:
    seen = (
        "no schedule"
        if result.complete
        else f"none of the {result.schedules} schedules run, and there are more,"
    )
    return Report(
        target, "ok", f"{seen} leads to a deadlock, a leak or an error", complete=result.complete,
        schedules=result.schedules, states=result.states, notes=tuple(result.notes), counts=dict(result.counts),
        in_bytes=tuple(result.in_bytes),
    )  # fmt: skip
