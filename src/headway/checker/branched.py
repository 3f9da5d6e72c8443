"""Real code whose requests may end in more ways than one, judged over its automata; findings carried out on it.

`counted` is tried before: it is quicker, and knows only tasks that take, wait and give back. Here time limits, tries
that may come to nothing, cancellation and endless loops are choices, and so livelock and starvation can be
told. What cannot be learned is `NotPlain`, and run schedule by schedule.

Bound: `_MOST` states of the product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, final

from headway.checker.automata import Automata, automata
from headway.checker.counted import ASSUMED
from headway.checker.crew import Crew
from headway.checker.lasso import Rounds
from headway.checker.learn import NotPlain
from headway.checker.ledger import Entry
from headway.checker.product import Explored, Product
from headway.checker.properties import Finding, judge
from headway.checker.report import Report
from headway.checker.rounds import follow_moves, judged, round_of
from headway.checker.schedule import render
from headway.checker.trial import Settings
from headway.checker.trials import partial

_MOST = 200_000
_PROPOSALS = 40
_MOST_SIZES = 64
_LONG = 2000  # steps of a run in which nobody waits


@final
@dataclass(slots=True)
class _Shown:
    """A finding as the real code showed it."""

    finding: Finding
    trace: tuple[Entry, ...]
    replay: str
    repeats: int = 0  # how many lines at the end come again for ever


def branched(
    program: Callable[[], Any],
    settings: Settings,
    *,
    target: str = "",
    sizes: bool = True,
    runs: int = 20_000,
    crew: Crew | None = None,
) -> Report:
    """The report on a program whose tasks can be learned result by result.

    `crew` is not used: the states are seen by this process. Raises: NotPlain if the tasks cannot be learned, or have
    too many states together.
    """
    learned = automata(program, settings, settings.cancels > 0)
    most = min(_MOST, 50 * runs)
    capacities = tuple(facts.size for facts in learned.pools)
    product = Product(learned, capacities, settings.cancels, settings.leaks)
    found = product.explore(most, keep=product.has_loops)
    if found.verdict is None and not found.complete:
        raise NotPlain(f"its tasks have more than {most} states together")
    shown = _show(program, settings, found) if found.verdict is not None else None
    if shown is None and product.has_loops:
        shown = _goes_round(program, settings, learned, found)
    least: dict[str, int | None] = {}
    alone: list[str] = []
    if sizes and (shown is None or shown.finding.verdict == "deadlock"):
        least = _smallest(learned, settings.cancels, 4 * runs // max(1, len(capacities)), alone)
    common: dict[str, Any] = {
        "schedules": learned.runs, "states": found.states, "notes": tuple(learned.notes),
        "counts": {facts.name: facts.size for facts in learned.pools}, "min_reserve": least,
        "method": "branches", "assumed": ASSUMED, "alone": tuple(alone),
        "in_bytes": tuple(f.name for f in learned.pools if f.is_budget and f.pool.in_bytes),
    }  # fmt: skip
    if shown is None:
        said = "no schedule leads to a deadlock, a leak or an error"
        if product.has_loops:
            said += ", nor keeps anybody out for ever"
        return Report(target, "ok", said, complete=True, **common)
    finding = shown.finding
    return Report(
        target, finding.verdict, finding.reason, finding.stuck, trace=shown.trace, replay=shown.replay,
        release=finding.release, repeats=shown.repeats, **common,
    )  # fmt: skip


def _show(program: Callable[[], Any], settings: Settings, found: Explored) -> _Shown:
    """Carry a finding out. Raises: NotPlain if the real code does not come to it."""
    trial, options, could, _ = follow_moves(program, settings, found.moves)
    try:
        finding = judge(trial, not options) or partial(program, settings, trial) if could else None
        if finding is None or finding.verdict != found.verdict:
            raise NotPlain(f"the real code did not come to the {found.verdict} expected of it")
        return _Shown(finding, tuple(trial.ledger.trace), render(trial.taken))
    finally:
        trial.close()


def _goes_round(
    program: Callable[[], Any], settings: Settings, learned: Automata, found: Explored
) -> _Shown | None:
    """The first round proposed that the real code goes, and that is a finding."""
    for stem, cycle in islice(Rounds(learned, found).proposed(), _PROPOSALS):
        choices = round_of(program, settings, stem, cycle)
        if choices is None:
            continue
        finding, trace, lines = judged(program, settings, *choices)
        if finding is not None:
            replay = f"{render(choices[0])}~{render(choices[1])}"
            return _Shown(finding, trace, replay, lines)
    return None


def _smallest(
    learned: Automata, cancels: int, most: int, alone: list[str]
) -> dict[str, int | None]:
    """For each pool the smallest size from which on none deadlocks, the others as they are or, failing that, roomy."""
    roomy = tuple(10**6 for _ in learned.pools)
    needs = _needs(learned, _all_tasks(Product(learned, roomy, cancels)))
    own = tuple(facts.size for facts in learned.pools)
    found: dict[str, int | None] = {}
    for pool, facts in enumerate(learned.pools):
        for others in (own, tuple(max(n, 1) for n in needs)):
            found[facts.name] = _descend(learned, cancels, most, pool, max(1, needs[pool]), others)
            if found[facts.name] is not None:
                if others is own:
                    alone.append(facts.name)
                break
    return found


def _all_tasks(roomy: Product) -> tuple[tuple[int, int], ...]:
    """The tasks of one run in which nobody waits: each goes on until it ends, or for a while."""
    state = roomy.first()
    for _ in range(_LONG):
        edge = next(roomy.edges(state), None)
        if edge is None:
            break
        state = edge[1]
    return state.tasks


def _needs(learned: Automata, tasks: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    """Sizes at which nobody waits: the most each task holds and asks for."""
    needs = [0] * len(learned.pools)
    for kind, _ in tasks:
        own = _of_kind(learned, kind)
        for pool in range(len(needs)):
            needs[pool] += max(
                (
                    n.held[pool] + n.what[2]
                    for n in own
                    if n.what[0] == "take" and n.what[1] == pool
                ),
                default=0,
            )
    return tuple(needs)


def _of_kind(learned: Automata, kind: int) -> list[Any]:
    reached = [learned.kinds[kind].start]
    seen = {reached[0].number}
    for node in reached:
        for target, _ in node.after.values():
            if target.number not in seen:
                seen.add(target.number)
                reached.append(target)
    return reached


def _descend(
    learned: Automata, cancels: int, most: int, pool: int, bound: int, others: tuple[int, ...]
) -> int | None:
    safe = None
    for size in range(bound, max(0, bound - _MOST_SIZES), -1):
        sizes = (*others[:pool], size, *others[pool + 1 :])
        found = Product(learned, sizes, cancels).explore(most, shortest=False)
        most -= found.states
        if found.verdict is not None:
            return safe
        if not found.complete:
            return None
        safe = size
    return safe
