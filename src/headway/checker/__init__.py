"""Find the schedule on which pools deadlock, and the sizes on which none does: the library under ``headway check``.

It is a door and no more: `check` and `replay` go to `target` for code and to `recurring` for models, `size` to
`modelled`, `reserve` to `profile`, `largest` to `crowds`, `odds` to `sampling`. What is heavy is imported when it
is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from headway.checker.crowds import Crowd
    from headway.checker.model import Model
    from headway.checker.modelled import Sizes
    from headway.checker.report import Report
    from headway.checker.sampling import Odds

    ModelLike: TypeAlias = str | Path | Mapping[str, Any] | Model

__all__ = ["check", "largest", "odds", "replay", "reserve", "size"]

MAX_SCHEDULES = 20_000


def check(
    subject: Callable[[], Any] | ModelLike,
    *,
    max_schedules: int = MAX_SCHEDULES,
    seed: int | None = None,
    sizes: bool = True,
    cancels: int = 0,
    jobs: int | None = 1,
    dask: str | None = None,
) -> Report:
    """Judge every schedule of a function that makes pools and starts tasks, or of a model.

    A model is the path of a TOML file, or the mapping that such a file holds. At most `max_schedules` runs (of a
    model, 50 states each); `seed` is for those at random, if not all can be seen; `sizes` asks for the smallest
    safe size of each pool; `cancels` waits of asynchronous tasks are cancelled in one run.
    `jobs` processes do the work (0: one for each processor; None: as many once it is long), or the workers of the Dask
    cluster whose scheduler is at `dask`: the result is the same.

    >>> import headway as hw
    >>> def nested(pool):
    ...     with pool.lease(), pool.lease():
    ...         pass
    >>> def two():
    ...     pool = hw.Mempool.of(range(2), name="bio")
    ...     hw.spawn(nested, pool)
    ...     hw.spawn(nested, pool)
    >>> report = check(two)
    >>> report.verdict, report.min_reserve
    ('deadlock', {'bio': 3})

    Raises: UsageError if the function needs arguments, if other processes cannot load it, or if the model is not sound.
    """
    from headway.checker import recurring, target
    from headway.checker.crew import Crew

    with Crew(jobs, dask) as crew:
        if callable(subject):
            return target.check(
                subject,
                max_schedules=max_schedules,
                seed=seed,
                sizes=sizes,
                cancels=cancels,
                crew=crew,
            )
        return recurring.check(_model(subject), max_schedules=max_schedules, sizes=sizes, crew=crew)


def replay(subject: Callable[[], Any] | ModelLike, schedule: str) -> Report:
    """Run one schedule, as `Report.replay` gave it, and say what it led to.

    Raises: UsageError if it is no schedule, or one of another program.
    """
    from headway.checker import recurring, target

    if callable(subject):
        return target.replay(subject, schedule)
    return recurring.replay(_model(subject), schedule)


def size(
    model: ModelLike,
    pool: str,
    most: int | None = None,
    *,
    jobs: int | None = 1,
    dask: str | None = None,
) -> Sizes:
    """Judge every capacity of one pool of a model from 1 to `most` (twice the sum of all takes).

    `jobs` and `dask` as in `check`.

    >>> actors = {"mapper": {"count": 2, "steps": ["+bio", "+bio", "-bio 2"]}}
    >>> found = size({"pools": {"bio": 2}, "actors": actors}, "bio")
    >>> found.smallest, found.unsafe
    (3, (1, 2))

    Raises: UsageError if there is no such pool; HeadwayError if a capacity has too many states to see all.
    """
    from headway.checker import recurring
    from headway.checker.crew import Crew

    with Crew(jobs, dask) as crew:
        return recurring.sizes(_model(model), pool, most, crew=crew)


def reserve(model: ModelLike) -> dict[str, int] | None:
    """By formula, in no time for any number of tasks: for each pool a size from which on all are safe together.

    None where no formula holds: pools that are taken in a ring, or one request for several pools.

    >>> steps = ["+bio", "+bio", "+bio", "-bio 3"]
    >>> reserve({"pools": {"bio": 2}, "actors": {"mapper": {"count": 1_000_000, "steps": steps}}})
    {'bio': 2000001}
    """
    from headway.checker.profile import reserves

    known = _model(model)
    found = reserves(known)
    return None if found is None else dict(zip(known.pools, found.sizes, strict=True))


def largest(model: ModelLike, actor: str) -> Crowd:
    """How many tasks of one actor a model bears with its pools as they are.

    >>> steps = ["+bio", "+bio", "-bio 2"]
    >>> largest({"pools": {"bio": 10}, "actors": {"mapper": {"steps": steps}}}, "mapper").largest
    9

    Raises: UsageError if there is no such actor; HeadwayError if a count has too many states to see all.
    """
    from headway.checker import crowds

    return crowds.largest(_model(model), actor)


def odds(
    subject: Callable[[], Any] | ModelLike,
    *,
    runs: int = 1000,
    seed: int = 0,
    spread: float = 0.0,
    jobs: int | None = 1,
    dask: str | None = None,
) -> Odds:
    """How many of `runs` runs stall in which each step takes a random time of mean 1.

    Tasks begin within `spread` such times. No proof of anything: `check` is. `jobs` and `dask` as there.
    """
    from headway.checker import sampling, target
    from headway.checker.crew import Crew

    with Crew(jobs, dask) as crew:
        if callable(subject):
            return target.sampled(subject, runs, seed, spread, crew=crew)
        return sampling.of_model(_model(subject), runs, seed, spread, crew)


def _model(like: ModelLike) -> Model:
    from headway.checker.model import Model, load, parse

    if isinstance(like, Model):
        return like
    if isinstance(like, Mapping):
        return parse(like)
    return load(str(like))
