"""`headway size`: every capacity of a pool that is safe, and every one that is not."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated

import typer

from headway.cli import console
from headway.cli.app import Dask, Debug, Jobs, Json


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL.toml", help="Pools, actors and steps.")],
    pool: Annotated[str, typer.Option("--pool", metavar="NAME", help="Whose sizes to judge.")],
    most: Annotated[
        int | None,
        typer.Option(
            "--max",
            metavar="N",
            min=1,
            help="The largest size listed (twice the sum of all takes).",
        ),
    ] = None,
    largest: Annotated[
        str | None,
        typer.Option(
            "--largest",
            metavar="ACTOR",
            help="Also say how many tasks of ACTOR the pools bear as they are.",
        ),
    ] = None,
    jobs: Jobs = None,
    dask: Dask = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Say which capacities of a pool no schedule can deadlock on: holes and all, by complete search.

    SMALLEST is the size from which every larger one is safe too. Exit status: 0 done, 2 misuse.
    """
    from headway.checker import crowds, recurring
    from headway.checker.crew import Crew
    from headway.checker.model import load

    loaded = load(model)
    with Crew(jobs, dask) as crew, console.counting() as progress:
        found = recurring.sizes(loaded, pool, most, progress, crew)
    crowd = None if largest is None else crowds.largest(loaded, largest)
    if as_json:
        console.print_json(found.json() | ({"crowd": crowd.json()} if crowd else {}))
        return 0
    if found.smallest is None:
        console.say(f"{pool}: no size is safe as long as the rest stays as it is")
    else:
        console.say(
            f"{pool}: {found.smallest} is the smallest size from which every larger one is safe"
        )
    console.say(f"safe: {_ranges(found.safe)}")
    console.say(f"unsafe: {_ranges(found.unsafe)}")
    if found.law is not None:
        console.say(f"law: {found.law['formula']}")
        for name, parameter in found.law["parameters"].items():
            console.say(f"  {name} = {parameter['value']}: {parameter['meaning']}")
    if crowd is not None:
        console.say(crowd.text())
    return 0


def _ranges(sizes: tuple[int, ...]) -> str:
    """Sizes in a row as a range: ``1, 3-5``."""
    parts = []
    for _, group in groupby(enumerate(sizes), lambda pair: pair[1] - pair[0]):
        row = [size for _, size in group]
        parts.append(f"{row[0]}-{row[-1]}" if len(row) > 1 else str(row[0]))
    return ", ".join(parts) or "none"
