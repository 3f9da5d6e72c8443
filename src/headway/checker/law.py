"""The law of the smallest safe size: a formula in the number of tasks and in how often they take.

It proves nothing: every cell of a grid of variants of the model is judged exactly, a formula is read
off the corners of the grid, and it is told only if it gives every other cell, and the model itself.
Otherwise there is no law here, and we say so. Varied are the count of each actor, and the length of each
run of equal takes (two at least); the last return of that pool after it is changed to match.

The formula is linear in each parameter, as T2 makes it for one pool: the sum over tasks of the most each
holds while it waits, and one request more. Bound: 3 to the number of parameters cells, `_MOST_CELLS` at most.

Source: T2 of the theory of reserves; HikariCP's rule is its simplest case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from math import gcd
from typing import Any, final

from headway.checker.capacities import Meter, first_of_safe, judged
from headway.checker.crew import Crew
from headway.checker.locals import Locals
from headway.checker.model import Act, Actor, Amounts, Model, Step, amounts_text, is_sound
from headway.errors import HeadwayError

_GRID = (1, 2, 3)
_MOST_CELLS = 250
_MOST_STATES = 200_000
_FAR = 20


@final
@dataclass(frozen=True, slots=True)
class Parameter:
    """What is varied: the count of an actor, or how often it takes from step `at` on."""

    name: str
    meaning: str
    value: int
    actor: int
    at: int | None = None


def law(model: Model, pool: int, crew: Crew | None = None) -> dict[str, Any] | None:
    """``{formula, parameters, cells}`` for the smallest safe size of a pool; None if no formula fits all cells."""
    parameters = _parameters(model)
    if not parameters or len(_GRID) ** len(parameters) > _MOST_CELLS:
        return None
    grid = list(product(_GRID, repeat=len(parameters)))
    itself = tuple(parameter.value for parameter in parameters)
    meter = Meter(_MOST_STATES)
    found: dict[tuple[int, ...], int] = {}
    for cell in dict.fromkeys((*grid, itself, *_beyond(model, pool, parameters, itself))):
        variant = _variant(model, parameters, cell)
        if variant is None:
            return None
        try:
            smallest = first_of_safe(judged(Locals(variant), variant, pool, meter=meter, crew=crew))
        except HeadwayError:
            return None
        if smallest is None:
            return None
        found[cell] = smallest
    terms = _linear(found, len(parameters))
    if any(_value(terms, cell) != smallest for cell, smallest in found.items()):
        return None
    names = [parameter.name for parameter in parameters]
    counts = {index for index, parameter in enumerate(parameters) if parameter.at is None}
    return {
        "formula": _formula(terms, names, counts),
        "parameters": {p.name: {"meaning": p.meaning, "value": p.value} for p in parameters},
        "cells": [
            {**dict(zip(names, cell, strict=True)), "smallest": smallest}
            for cell, smallest in found.items()
        ],
    }


def _parameters(model: Model) -> list[Parameter]:
    found = []
    runs = [list(_runs(actor)) for actor in model.actors]
    for index, actor in enumerate(model.actors):
        tail = "_" + re.sub(r"\W", "_", actor.name) if len(model.actors) > 1 else ""
        found.append(Parameter(f"n{tail}", f"tasks of {actor.name}", actor.count, index))
        for number, (at, length) in enumerate(runs[index], 1):
            which = str(number) if len(runs[index]) > 1 else ""
            what = amounts_text(model, actor.steps[at][0].amounts)
            meaning = f"times in a row that each task of {actor.name} takes {what}"
            found.append(Parameter(f"k{which}{tail}", meaning, length, index, at))
    names = [parameter.name for parameter in found]
    return found if len(set(names)) == len(names) else []


def _beyond(
    model: Model, pool: int, parameters: Sequence[Parameter], itself: Amounts
) -> Iterator[Amounts]:
    """Cells with more tasks than another pool has units: where such a pool becomes a gate, laws bend."""
    for other, units in enumerate(model.capacities):
        if other == pool or units > _FAR:
            continue
        for index, parameter in enumerate(parameters):
            if parameter.at is None:
                for cell in (itself, (2,) * len(itself)):
                    yield (*cell[:index], units + 2, *cell[index + 1 :])


def _runs(actor: Actor) -> list[tuple[int, int]]:
    """Where each run of equal takes starts, and how long it is."""
    found = []
    at = 0
    for step, group in groupby(actor.steps):
        length = len(list(group))
        if length > 1 and len(step) == 1 and step[0].takes:
            found.append((at, length))
        at += length
    return found


def _variant(model: Model, parameters: Sequence[Parameter], cell: Sequence[int]) -> Model | None:
    """The model with other values of its parameters; None if it cannot be made to match."""
    actors = list(model.actors)
    # The last run of an actor first: so where the others start stays true.
    for parameter, value in reversed(list(zip(parameters, cell, strict=True))):
        actor = actors[parameter.actor]
        if parameter.at is None:
            actors[parameter.actor] = replace(actor, count=value)
        else:
            steps = _stretched(actor.steps, parameter.at, parameter.value, value)
            actors[parameter.actor] = replace(actor, steps=steps)
    varied = replace(model, actors=tuple(actors))
    return varied if all(is_sound(actor) for actor in actors) else None


def _stretched(steps: tuple[Step, ...], at: int, length: int, value: int) -> tuple[Step, ...]:
    """Steps with a run of takes of another length, and the last return of each of its pools to match."""
    run = steps[at]
    after = list(steps[at + length :])
    for pool, n in enumerate(run[0].amounts):
        for place in reversed(range(len(after))) if n else ():
            step = after[place]
            if len(step) == 1 and not step[0].takes and step[0].amounts[pool]:
                amounts = list(step[0].amounts)
                amounts[pool] += n * (value - length)
                after[place] = (Act(False, tuple(amounts)),)
                break
    return (*steps[:at], *[run] * value, *after)


def _linear(found: Mapping[tuple[int, ...], int], size: int) -> dict[Amounts, int]:
    """The polynomial, linear in each parameter, through the corners: its factors by the exponents."""
    terms = {cell: found[cell] for cell in product((1, 2), repeat=size)}
    for axis in range(size):
        for cell in [c for c in terms if c[axis] == 1]:
            other = (*cell[:axis], 2, *cell[axis + 1 :])
            slope = terms[other] - terms[cell]
            terms[cell], terms[other] = terms[cell] - slope, slope
    return {tuple(c - 1 for c in cell): factor for cell, factor in terms.items() if factor}


def _value(terms: Mapping[Amounts, int], cell: Sequence[int]) -> int:
    total = 0
    for powers, factor in terms.items():
        for power, value in zip(powers, cell, strict=True):
            factor *= value**power
        total += factor
    return total


def _formula(terms: Mapping[Amounts, int], names: Sequence[str], counts: set[int]) -> str:
    """The polynomial as an expression, what is multiplied by one count taken together: ``n*(k - 1) + 1``."""
    groups: dict[tuple[int, ...], list[tuple[str, int]]] = {}
    for powers, factor in sorted(terms.items(), reverse=True):
        used = [index for index, power in enumerate(powers) if power]
        outer = tuple(index for index in used if index in counts)
        inner = "*".join(names[index] for index in used if index not in counts)
        groups.setdefault(outer, []).append((inner, factor))
    parts: list[tuple[str, int]] = []
    for outer, inside in sorted(groups.items(), key=lambda pair: (not pair[0], pair[0])):
        product_ = "*".join(names[index] for index in outer)
        if not outer:
            parts += inside
        elif len(inside) == 1:
            inner, factor = inside[0]
            parts.append((f"{product_}*{inner}" if inner else product_, factor))
        else:
            shared = gcd(*(factor for _, factor in inside))
            rest = _sum([(inner, factor // shared) for inner, factor in inside])
            parts.append((f"{product_}*({rest})", shared))
    return _sum(parts)


def _sum(parts: Sequence[tuple[str, int]]) -> str:
    text = ""
    for term, factor in parts:
        size = abs(factor)
        said = term if term and size == 1 else f"{size}*{term}" if term else str(size)
        sign = "-" if factor < 0 else "+"
        text += f" {sign} {said}" if text else f"-{said}" if factor < 0 else said
    return text or "0"
