"""A model file: pools, actors and the steps they take, read and found sound, or refused in one line.

It does not explore (`counts`) nor carry out a step (`play`). One string is one request: ``"+a 1 +b 2"``
takes all of it or waits, ``"-a 2"`` gives back, ``"x | y"`` is a choice. What an actor holds at each step
depends on its choices alone, never on the pools; so giving back more than is held is found here, by
walking the steps with every choice. Bound: steps times the different holdings a step can be met with.

Source: TOML for the file; the vector addition view of pools (Karp and Miller 1969).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, final

from headway.errors import UsageError

Amounts: TypeAlias = tuple[int, ...]  # one number for each pool, in the order of the file

FIFO, ANY_FIT = "fifo", "any-fit"
_MOST = 10**9  # a larger number in a file is a slip of the hand
_MOST_HOLDINGS = 10_000
_PART = re.compile(r"([+?-])(\S+)(?:\s+(\d+))?(?=\s|$)\s*")


@final
@dataclass(frozen=True, slots=True)
class Act:
    """One alternative of a step: a request for `amounts`, or their return."""

    takes: bool
    amounts: Amounts
    tries: bool = False  # what is not there at once makes the actor give all back, and begin again


Step: TypeAlias = tuple[Act, ...]  # more than one: a choice


@final
@dataclass(frozen=True, slots=True)
class Actor:
    """`count` tasks that each go through `steps` once."""

    name: str
    count: int
    steps: tuple[Step, ...]
    texts: tuple[str, ...]
    loops: bool = False  # after its last step it begins again

    def task(self, number: int) -> str:
        """The name of one of its tasks, counted from 0."""
        return f"{self.name}-{number + 1}" if self.count > 1 else self.name


@final
@dataclass(frozen=True, slots=True)
class Model:
    """What a file says: how waiters are served, how much each pool has, who takes what."""

    wake: str
    pools: tuple[str, ...]
    capacities: Amounts
    actors: tuple[Actor, ...]

    def at(self, pool: int, capacity: int) -> Model:
        """The same model with another capacity of one pool."""
        sizes = self.capacities
        changed = (*sizes[:pool], capacity, *sizes[pool + 1 :])
        return Model(self.wake, self.pools, changed, self.actors)

    def index(self, pool: str) -> int:
        """Which pool a name is.

        Raises: UsageError if there is none of that name.
        """
        if pool not in self.pools:
            raise UsageError(f"no pool {pool!r} in the model; it has {', '.join(self.pools)}")
        return self.pools.index(pool)

    @property
    def recurs(self) -> bool:
        """Whether some actor can come round again: such a model is judged as code (`headway.checker.recurring`)."""
        return any(actor.loops or _tries(actor) for actor in self.actors)

    def check_ends(self) -> None:
        """Raises: UsageError if some actor can come round: what asks for this counts steps that are made once."""
        if self.recurs:
            raise UsageError(
                'the model has an actor with loop = true or a "?": headway check judges it, and headway size its '
                "sizes; nothing else can"
            )

    def taken(self, pool: int) -> int:
        """The sum of all takes of one pool by all tasks; of a choice, its greatest."""
        return sum(
            actor.count * sum(max(a.amounts[pool] * a.takes for a in step) for step in actor.steps)
            for actor in self.actors
        )


def load(name: str) -> Model:
    """The model in a file.

    Raises: UsageError, naming actor and step, if there is no such file or it is no sound model.
    """
    path = Path(name)
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise UsageError(f"model {name!r} {what}; give the path of a TOML file")
    try:
        return parse(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"model {name!r} is not TOML: {error}") from error
    except UsageError as error:
        raise UsageError(f"model {name!r}: {error}") from error


def parse(table: Mapping[str, Any]) -> Model:
    """The model that the tables of a file describe.

    Raises: UsageError, naming actor and step, if it is not sound.
    """
    _only("the file", table, ("wake", "pools", "actors"))
    wake = table.get("wake", FIFO)
    if wake not in (FIFO, ANY_FIT):
        raise UsageError(f'wake is {wake!r}; write "{FIFO}" or "{ANY_FIT}"')
    sizes = _table("pools", table)
    for name, size in sizes.items():
        if not re.fullmatch(r"[^\s|]+", name):
            raise UsageError(f"pool {name!r}: a name has no space and no | in it")
        _number(f"pool {name}", size, 1)
    pools = tuple(sizes)
    actors = tuple(_actor(name, found, pools) for name, found in _table("actors", table).items())
    model = Model(wake, pools, tuple(sizes.values()), actors)
    if model.recurs:
        for actor in actors:
            _check_recurring(actor)
    return model


def _table(name: str, table: Mapping[str, Any]) -> Mapping[str, Any]:
    found = table.get(name)
    if not isinstance(found, dict) or not found:
        kind = "[pools]" if name == "pools" else "[actors.NAME]"
        raise UsageError(f"no {name}: write a table {kind} with at least one entry")
    return found


def _only(what: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            raise UsageError(f"{what} has an unknown key {key!r}; known are {', '.join(known)}")


def _number(what: str, value: object, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
        raise UsageError(f"{what} is {value!r}; write a whole number from {least} to {_MOST}")
    return value


def _actor(name: str, table: object, pools: tuple[str, ...]) -> Actor:
    if not isinstance(table, dict):
        raise UsageError(f"actor {name} is {table!r}; write a table [actors.{name}]")
    _only(f"actor {name}", table, ("count", "steps", "loop"))
    loops = table.get("loop", False)
    if not isinstance(loops, bool):
        raise UsageError(f"actor {name}: loop is {loops!r}; write true or false")
    count = _number(f"actor {name}: count", table.get("count", 1), 0)
    texts = table.get("steps")
    if not isinstance(texts, list) or not texts:
        raise UsageError(f"actor {name}: steps is {texts!r}; write a list of strings")
    steps = tuple(
        _step(text, pools, f"actor {name}, step {number}") for number, text in enumerate(texts, 1)
    )
    actor = Actor(name, count, steps, tuple(texts), loops)
    left = _walk(actor, pools)
    if loops and any(any(held) for held in left):
        raise UsageError(
            f"actor {name} loops, and still holds something after its last step; give all back first"
        )
    return actor


def _tries(actor: Actor) -> bool:
    return any(act.tries for step in actor.steps for act in step)


def _check_recurring(actor: Actor) -> None:
    for number, step in enumerate(actor.steps, 1):
        several = any(act.takes and sum(map(bool, act.amounts)) > 1 for act in step)
        if len(step) > 1 or several:
            raise UsageError(
                f"actor {actor.name}, step {number} ({actor.texts[number - 1]!r}): in a model with loop = true or a "
                '"?" no actor has a choice, and none asks for several pools at once'
            )


def is_sound(actor: Actor) -> bool:
    """Whether its steps take or give back something each, and nothing that is not held."""
    if not all(min(act.amounts) >= 0 < max(act.amounts) for s in actor.steps for act in s):
        return False
    try:
        _walk(actor, tuple(map(str, actor.steps[0][0].amounts)))
    except UsageError:
        return False
    return True


def amounts_text(model: Model, amounts: Sequence[int], more: str = "") -> str:
    """What is not zero, in words: ``2 of a and 1 of b``."""
    parts = [f"{n} {more}of {p}" for n, p in zip(amounts, model.pools, strict=True) if n]
    return " and ".join(parts)


def _step(text: object, pools: tuple[str, ...], where: str) -> Step:
    if not isinstance(text, str):
        raise UsageError(f'{where} is {text!r}; write a string, as in "+bio 2"')
    acts = (_act(part, pools, f"{where} ({text!r})") for part in text.split("|"))
    return tuple(dict.fromkeys(acts))  # a choice between equals is none


def _act(text: str, pools: tuple[str, ...], where: str) -> Act:
    text = text.strip()
    if not text:
        raise UsageError(f'{where} has an empty request; write as in "+bio 2"')
    amounts = [0] * len(pools)
    signs = set()
    place = 0
    while place < len(text):
        match = _PART.match(text, place)
        if match is None:
            said = text[place:].split()[0]
            raise UsageError(
                f'{where}: cannot read {said!r}; write "+pool 2", "-pool 2" or "?pool 2"'
            )
        sign, pool, number = match.groups()
        if pool not in pools:
            raise UsageError(f"{where}: unknown pool {pool!r}; there is {', '.join(pools)}")
        amounts[pools.index(pool)] += _number(f"{where}: the number of {pool}", int(number or 1), 1)
        signs.add(sign)
        place = match.end()
    if len(signs) > 1:
        raise UsageError(
            f"{where} takes and gives back at once, or takes and tries; make it two steps"
        )
    return Act("-" not in signs, tuple(amounts), signs == {"?"})


def _walk(actor: Actor, pools: tuple[str, ...]) -> list[Amounts]:
    """Go through the steps with every choice, and refuse to give back more than is held; what is held at the end."""
    holdings: dict[Amounts, None] = {(0,) * len(pools): None}
    for number, step in enumerate(actor.steps, 1):
        text = f" ({actor.texts[number - 1]!r})" if number <= len(actor.texts) else ""
        after: dict[Amounts, None] = {}
        for held in holdings:
            for act in step:
                sign = 1 if act.takes else -1
                left = tuple(h + sign * n for h, n in zip(held, act.amounts, strict=True))
                for pool, rest, has, n in zip(pools, left, held, act.amounts, strict=True):
                    if rest < 0:
                        raise UsageError(
                            f"actor {actor.name}, step {number}{text} "
                            f"gives back {n} of {pool}, and holds {has} there"
                        )
                after[left] = None
        if len(after) > _MOST_HOLDINGS:
            raise UsageError(
                f"actor {actor.name}, step {number}: its choices lead to {len(after)} different "
                f"holdings, over {_MOST_HOLDINGS}; write fewer choices in a row"
            )
        holdings = after
    return list(holdings)
