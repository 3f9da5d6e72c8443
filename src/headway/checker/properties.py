"""What can be wrong with a state: an error, a deadlock, a lost wake-up, a leak.

It does not search and claims nothing about states it was not shown. Nothing is said of livelock and
starvation: no verdict here means neither.

A task is stuck *for certain* when nothing can happen any more. While others still run, tasks are
suspects: those whose pools could not serve them even if everybody outside the circle gave back all it
holds and all that is in flight came home. That is graph reduction, and it trusts that a unit is given
back by whoever holds it; so a suspicion is confirmed by running the others to their end.

Source: Banker's graph reduction (Dijkstra 1965; Holt 1972); partial deadlock as in Go's LeakProf.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any, final

from headway.checker.budgets import Units, could_serve
from headway.checker.ledger import Local
from headway.checker.raw import RawPrimitive
from headway.checker.trial import Diverged, Trial
from headway.core.mm.ladder import Wake
from headway.runtimes.simulator import Task


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict on one state; `release` names the single returns that would free somebody."""

    verdict: str
    reason: str
    stuck: tuple[str, ...] = ()
    release: tuple[str, ...] = ()


def judge(trial: Trial, ended: bool) -> Finding | None:
    """What is wrong with the state of a trial; `ended` says that nothing can happen any more."""
    for task, failure in trial.failures():
        return _error(task, failure)
    if not ended:
        return None
    if stuck := trial.simulator.stuck():
        return deadlock(trial, stuck)
    return _leak(trial) if trial.leaks else None


def _error(task: Task, failure: BaseException) -> Finding:
    if isinstance(failure, RawPrimitive | Diverged):
        return Finding("error", str(failure))
    place = ""
    trace = failure.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        if not module.startswith("headway."):
            place = f" at line {trace.tb_lineno} of {trace.tb_frame.f_code.co_name}"
        trace = trace.tb_next
    said = f": {failure}" if str(failure) else ""
    return Finding("error", f"{task.name} raised {type(failure).__name__}{said}{place}")


def _leak(trial: Trial) -> Finding | None:
    out = []
    pools = trial.ledger.pools
    for pool, name in zip(pools, trial.ledger.names, strict=True):
        count = pool.stats().outstanding - sum(_stored(other, pool) for other in pools)
        if count > 0:
            out.append(f"{count} of {name}")
    if not out:
        return None
    holders = [
        task.name
        for task, local in trial.pairs()
        if any(count > 0 for count in local.held.values())
    ]
    who = (
        f"; last held by {', '.join(holders)}" if holders else "; handed over, and never completed"
    )
    return Finding("leak", f"every task ended, and units never came home: {', '.join(out)}{who}")


def _stored(pool: Any, below: Any) -> int:
    """How many elements of the pool `below` lie in the reserve of a pool that stands on it."""
    backend = getattr(pool, "_backend", None)
    parts = getattr(backend, "parts", (backend,))
    return sum(1 for part in parts if part is below) * int(pool.stats().reserve_count)


def deadlock(trial: Trial, tasks: list[Task], ended: bool = True) -> Finding:
    """Say who of `tasks` waits for what; `ended` if nobody else runs any more."""
    stuck = [(task, trial.ledger.locals[task.number - 1]) for task in tasks]
    stuck.sort(key=lambda pair: pair[1].arrived)
    names = tuple(task.name for task, _ in stuck)
    heads = _heads(trial)
    for task, local in stuck:
        if any(local is head for head in heads) and (lost := _lost(trial, local)) is not None:
            return Finding(
                "deadlock", f"lost wake-up: {task.name} waits for ever although {lost}", names
            )
    waits = "; ".join(_grouped([(t.name, _describe(trial, t, local)) for t, local in stuck]))
    later = len(trial.simulator.stuck()) - len(stuck)
    rest = f"; {later} more will, behind them" if ended and later else ""
    if not ended:
        rest = "; the others run on, and hold nothing that would free them"
    reason = f"{len(stuck)} tasks wait for ever: {waits}{rest}"
    if len(stuck) == 1:
        reason = f"1 task waits for ever: {waits}{rest}"
    return Finding("deadlock", reason, names, _releases(trial, stuck))


def _grouped(told: list[tuple[str, str]]) -> list[str]:
    """Each name with what is said of it; where it is the same of many in a row, once."""
    found = []
    for words, group in groupby(told, lambda pair: pair[1]):
        names = [name for name, _ in group]
        if len(names) <= 2:
            found += [f"{name} {words}" for name in names]
            continue
        shown = names if len(names) <= 4 else [names[0], names[1], f"... {names[-1]}"]
        found.append(f"each of {', '.join(shown)} {words}")
    return found


def _describe(trial: Trial, task: Task, local: Local) -> str:
    held = [
        f"{_shown(trial, i, n)} of {trial.ledger.names[i]}"
        for i, n in sorted(local.held.items())
        if n > 0
    ]
    holds = f"holds {', '.join(held)} and " if held else ""
    if local.pending is None:
        what = task.ticket.who if task.ticket else "nothing known"
        return f"{holds}waits for {what}"
    waits = []
    for index, count in local.wants:
        size = trial.ledger.pools[index].min_count
        only = f", which has only {_shown(trial, index, size)}" if count > size else ""
        waits.append(f"{_shown(trial, index, count)} more of {trial.ledger.names[index]}{only}")
    return f"{holds}waits for {' and '.join(waits)}"


def _shown(trial: Trial, index: int, count: int) -> str:
    pool = trial.ledger.pools[index]
    return pool.show(count) if isinstance(pool, Units) else str(count)


def _heads(trial: Trial) -> list[Local]:
    """Who waits longest for each pool."""
    found: dict[int, Local] = {}
    for _, local in trial.parked():
        if local.pending is not None:
            found.setdefault(local.pending[1], local)
    return list(found.values())


def _lost(trial: Trial, local: Local) -> str | None:
    """What lies ready for a task that waits at the head of its queue; None if it waits rightly."""
    assert local.pending is not None
    _, index, count = local.pending
    stats = trial.ledger.pools[index].stats()
    if isinstance(trial.ledger.pools[index], Units):
        return None  # what is ready may be another's, who came before to another level
    if stats.reserve_count >= count:
        return f"{stats.reserve_count} of {trial.ledger.names[index]} lie in the reserve"
    return None


def _releases(trial: Trial, stuck: list[tuple[Task, Local]]) -> tuple[str, ...]:
    """Which single return would free a waiter: of a pool whose head asks for one more than is there."""
    found: dict[int, str] = {}
    for task, local in stuck:
        if local.pending is None or local.pending[1] in found or len(local.wants) > 1:
            continue
        _, index, count = local.pending  # the first met is the head: tasks are in order of arrival
        pool = trial.ledger.pools[index]
        holders = [other.name for other, its in stuck if its.held[index] > 0]
        if holders and pool.stats().reserve_count + 1 >= count:
            unit = "unit of " if isinstance(pool, Units) else ""
            found[index] = (
                f"one {unit}{trial.ledger.names[index]} given back by {' or '.join(holders)} frees {task.name}"
            )
    return tuple(found.values())


def suspects(trial: Trial) -> list[Task]:
    """Tasks that only each other could free, as far as the holdings tell, while others still run."""
    waiting = [(task, local) for task, local in trial.parked() if task.deadline is None]
    circle = [(task, local) for task, local in waiting if local.pending is not None]
    while True:
        free = [pair for pair in circle if _could_be_served(trial, pair[1], circle)]
        if not free:
            return [task for task, _ in circle]
        circle = [pair for pair in circle if pair not in free]


def _could_be_served(trial: Trial, local: Local, circle: list[tuple[Task, Any]]) -> bool:
    """Whether a request fits once all has come home that is held outside the circle, save by who ended.

    Where pools serve in order, who is behind somebody of the circle is not served before that one.
    """
    pools = trial.ledger.pools
    theirs = [its for _, its in circle] + [its for task, its in trial.pairs() if task.done]
    inside = [sum(its.held[n] for its in theirs) for n in range(len(pools))]
    for index, count in local.wants:
        pool = pools[index]
        is_units = isinstance(pool, Units)
        if pool.wake is Wake.FIFO:
            line = (
                its
                for _, its in circle
                if any(other == index for other, _ in its.wants)
                and (not is_units or its.entitled == local.entitled)
            )
            if next(line) is not local:
                return False
        if is_units:
            if not could_serve(pools, index, count, local.entitled, inside):
                return False
            continue
        stats = pool.stats()
        if stats.reserve_count + stats.outstanding - inside[index] < count:
            return False
    return True
