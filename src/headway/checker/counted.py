"""Real code judged by counts: learned once, searched as a model, and each finding carried out on the code itself.

It does not learn (`learn`, `plain`), search (`counts`) or carry out (`guided`): it says in which order, and
what it takes for granted. Wherever model and code might differ it gives up with `NotPlain`, and the
schedules are run one by one instead.

Bound: that of `counts`, which does not know how long the code computes; and one run of the code for
each kind of task, twice, and for each finding.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

from headway.checker.capacities import Meter
from headway.checker.counts import Found, Search
from headway.checker.crew import Crew
from headway.checker.guided import carried_out, in_turn
from headway.checker.learn import NotPlain
from headway.checker.modelled import smallest_sizes
from headway.checker.plain import Plain, plain
from headway.checker.properties import Finding
from headway.checker.report import Report
from headway.checker.schedule import render
from headway.checker.sums import is_plain, unsafe_sizes
from headway.checker.trial import Settings, Trial

ASSUMED = (
    "tasks meet only in pools: so says their code, and a run with other elements did the same",
    "who holds an element goes on as soon as it can",
)
_STATES = 50  # to a schedule
_MOST_ROOMY = 256
_MOST_SUMS = 100_000  # units: sums are bits of a number


def counted(
    program: Callable[[], Any],
    settings: Settings,
    *,
    target: str = "",
    sizes: bool = True,
    runs: int = 20_000,
    crew: Crew | None = None,
) -> Report:
    """The report on a program whose tasks only take, wait and give back.

    Raises: NotPlain if it is not so, or has more than 50 states for each of `runs`.
    """
    found_plain = plain(program, settings)
    meter = Meter(_STATES * runs)
    by_sums = _safe_by_sums(found_plain)
    found = Found() if by_sums else _searched(found_plain, found_plain.model.capacities, meter)
    finding, trial, more = None, None, 0
    if found.dead:
        finding, trial = carried_out(program, settings, found_plain, found.moves)
        more = 1
    else:
        _check_roomy(found_plain, meter)
        if settings.leaks and _keeps(found_plain):
            finding, trial = in_turn(program, settings)
            more = 1
    expected = "deadlock" if found.dead else "leak" if trial is not None else None
    if (finding.verdict if finding is not None else None) != expected:
        if trial is not None:
            trial.close()
        raise NotPlain(f"the real code did not come to the {expected} that was expected of it")
    model = found_plain.model
    least: dict[str, int | None] = {}
    alone: list[str] = []
    if sizes and expected != "leak":
        found_least = smallest_sizes(found_plain.locals_, model, meter.all, crew, alone)
        units = zip(found_least.items(), found_plain.grains, strict=True)
        least = {name: n and n * grain for (name, n), grain in units}
    return _report(
        target, finding, trial, found_plain, method="sums" if by_sums else "counts",
        schedules=found_plain.runs + more, states=found.states, min_reserve=least, alone=tuple(alone),
    )  # fmt: skip


def _safe_by_sums(plain: Plain) -> bool:
    """Whether no tasks together can be stuck: where sums tell that, there is nothing to search for."""
    if not is_plain(plain.locals_):
        return False
    size = min(plain.model.capacities[0], plain.locals_.enough()[0])  # larger ones are alike
    return size <= _MOST_SUMS and not unsafe_sizes(plain.locals_, size) >> size & 1


def _searched(
    plain: Plain, capacities: tuple[int, ...], meter: Meter, shortest: bool = True
) -> Any:
    found = Search(plain.locals_, capacities, meter.left).run(shortest)
    meter.left -= found.states
    if not found.dead and not found.complete:
        raise NotPlain(f"there are more than {meter.all} states of counts")
    return found


def _check_roomy(plain: Plain, meter: Meter) -> None:
    """Let allocators work: whatever they add, it must be safe. Raises: NotPlain if that is not sure."""
    if not any(plain.backed):
        return
    if not plain.at_least():
        raise NotPlain("an allocator may work or fail, and tasks give back between two requests")
    enough = plain.locals_.enough()
    ranges = [
        range(size, max(size, most) + 1) if backed else range(size, size + 1)
        for size, most, backed in zip(plain.model.capacities, enough, plain.backed, strict=True)
    ]
    cells = 1
    for sizes in ranges:
        cells *= len(sizes)
    if cells > _MOST_ROOMY:
        raise NotPlain("too many combinations of what allocators may add")
    for capacities in product(*ranges):
        if _searched(plain, capacities, meter, shortest=False).dead:
            raise NotPlain(
                "an allocator that works may lead to a deadlock that a failing one prevents"
            )


def _keeps(plain: Plain) -> bool:
    """Whether some task ends and still holds something."""
    return any(local.wants is None for local in plain.locals_.all)


def _report(
    target: str, finding: Finding | None, trial: Trial | None, plain: Plain, **numbers: Any
) -> Report:
    counts = dict(zip(plain.model.pools, plain.sizes, strict=True))
    if finding is None or trial is None:
        return Report(
            target, "ok", "no schedule leads to a deadlock, a leak or an error", complete=True,
            notes=plain.notes, counts=counts, assumed=ASSUMED, in_bytes=plain.in_bytes, **numbers,
        )  # fmt: skip
    try:
        return Report(
            target, finding.verdict, finding.reason, finding.stuck, trace=tuple(trial.ledger.trace),
            replay=render(trial.taken), release=finding.release, notes=plain.notes, counts=counts,
            assumed=ASSUMED, in_bytes=plain.in_bytes, **numbers,
        )  # fmt: skip
    finally:
        trial.close()
