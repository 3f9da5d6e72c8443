"""From ``FILE.py:FUNCTION`` to a report: load the function, search, replay, size.

It decides nothing about schedules. Loading runs the file as a module of its own, which is not left in
`sys.modules`; whatever is wrong with a target is a `UsageError` of one line.
"""

from __future__ import annotations

import importlib.util
import inspect
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from headway.checker.branched import branched
from headway.checker.counted import counted
from headway.checker.crew import Crew
from headway.checker.explore import Result, Search
from headway.checker.learn import NotPlain
from headway.checker.properties import judge, suspects
from headway.checker.raw import refused
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


def load(target: str) -> Callable[[], Any]:
    """The function a target names.

    Raises: UsageError if the target is not ``FILE.py:FUNCTION``, or the function needs arguments.
    """
    name, colon, function = target.rpartition(":")
    if not colon or not name.endswith(".py") or not function.isidentifier():
        raise UsageError(f"target {target!r}: write FILE.py:FUNCTION, as in demo.py:main")
    path = Path(name)
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise UsageError(f"target {target!r}: {name} {what}; give the path of a Python file")
    module = _execute(path, target)
    found = getattr(module, function, None)
    if found is None:
        names = [
            n
            for n, v in vars(module).items()
            if inspect.isfunction(v) and v.__module__ == module.__name__
        ]
        have = f"it has {', '.join(names)}" if names else "it has no functions"
        raise UsageError(f"target {target!r}: {name} has no {function}; {have}")
    if not callable(found) or inspect.isclass(found):
        raise UsageError(
            f"target {target!r}: {function} is a {type(found).__name__}, not a function"
        )
    if inspect.isgeneratorfunction(found) or inspect.isasyncgenfunction(found):
        raise UsageError(
            f"target {target!r}: {function} is a generator: calling it runs none of its lines; "
            "wrap it in a function that runs it"
        )
    needed = [
        p.name
        for p in inspect.signature(found).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if needed:
        raise UsageError(
            f"target {target!r}: {function} needs {', '.join(needed)}; "
            "what is checked takes no argument: wrap it in a function that calls it"
        )
    checked: Callable[[], Any] = found
    return checked


def _execute(path: Path, target: str) -> ModuleType:
    name = f"_headway_check_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        with redirect_stdout(sys.stderr):  # standard output is the report's
            spec.loader.exec_module(module)
    except SyntaxError as error:
        place = f"line {error.lineno}" if error.lineno else "it"
        raise UsageError(f"target {target!r}: {place} is not Python: {error.msg}") from error
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())
        raise UsageError(
            f"target {target!r}: loading {path.name} raised {type(error).__name__}: {said}"
        ) from error
    finally:
        sys.path.pop(0)
        del sys.modules[name]
    return module


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
    crew: Crew | None = None,
) -> Report:
    """Search the schedules of `program`, and repeat on the real code what was found.

    By counts of alike tasks if `by_counts` and the code allows it, or over all the ways each task can go, else
    schedule by schedule. At most `cancels` waits of asynchronous tasks are cancelled in one run. `crew` does the runs.
    Raises: UsageError if `max_schedules` is below 1.
    """
    if max_schedules < 1:
        raise UsageError(f"--max-schedules is {max_schedules}; the least is 1")
    settings = Settings(ambient=ambient, threads=threads, cancels=cancels)
    why = ""
    with undisturbed(program):
        if by_counts:
            for how in (branched,) if cancels else (counted, branched):
                try:
                    return how(
                        program, settings, target=target, sizes=sizes, runs=max_schedules, crew=crew
                    )
                except NotPlain as reason:
                    why = str(reason)
        report = _by_schedules(program, settings, target, max_schedules, seed, sizes, crew)
    return replace(report, method="schedules", why=why)


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
    seen = "no schedule" if result.complete else f"none of the {result.schedules} schedules run"
    return Report(
        target, "ok", f"{seen} leads to a deadlock, a leak or an error", complete=result.complete,
        schedules=result.schedules, states=result.states, notes=tuple(result.notes), counts=dict(result.counts),
    )  # fmt: skip


@contextmanager
def undisturbed(program: Callable[[], Any]) -> Iterator[None]:
    """Raw threads and locks are refused in here, and what the code prints goes nowhere."""
    module = inspect.getmodule(program) or _namespace(program)
    with refused(module), redirect_stdout(_Nowhere()):
        yield


class _Nowhere(io.TextIOBase):
    """Where code under check prints to: it runs thousands of times."""

    def write(self, text: str) -> int:
        return len(text)


def _namespace(program: Callable[[], Any]) -> Any:
    """Something whose attributes are the program's globals, although it is no module any more."""

    class Globals:
        def __init__(self) -> None:
            self.__dict__ = getattr(program, "__globals__", {})

    return Globals()
