"""Agreement with brute force, by the hundred thousand cells: `python -m tests.checker.agreement --help`.

A cell is a random model with one size of one pool, under one wake policy. The checker must say of it what
every plain interleaving says (`brute`): the verdict, whether all was seen, and how many events the shortest
trace has; its replay line must lead there; and the sizes it lists as safe must be those that were. An
example is ten cells of one model: five sizes, two policies. Each has a seed, which repeats it.

`tests/models/test_model_search.py` does the same through Hypothesis, which makes a disagreement small.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

from headway.checker import modelled
from headway.checker.model import Model, parse
from tests.checker.brute import Brute

SIZES = 5
POOLS = ("a", "b", "c")
COUNTS = [(1,), (2,), (1, 1), (3,), (1, 2), (1, 1, 1), (4,), (1, 3), (2, 2), (1, 1, 2)]
_LONGEST = {1: 5, 2: 5, 3: 3, 4: 2}  # requests of one task, by how many tasks there are
_SHOWN = 5


def amounts(chance: random.Random, most: list[int]) -> list[int]:
    """Some of each pool, at least one in all; mostly of one pool alone."""
    pools = [pool for pool, n in enumerate(most) if n]
    first = chance.choice(pools)
    found = [0] * len(most)
    for pool in pools:
        if pool == first or chance.random() < 0.25:
            found[pool] = chance.randint(1, min(2, most[pool]))
    return found


def text(sign: str, found: list[int]) -> str:
    return " ".join(f"{sign}{POOLS[p]} {n}" for p, n in enumerate(found) if n)


def steps(chance: random.Random, pools: int, length: int) -> list[str]:
    """Takes, batches and partial returns; mostly all comes home; here and there a choice."""
    held, found = [0] * pools, []
    for _ in range(chance.randint(1, length)):
        if any(held) and chance.random() < 0.25:
            back = amounts(chance, held)
            held = [h - n for h, n in zip(held, back, strict=True)]
            found.append(text("-", back))
            continue
        take = amounts(chance, [2] * pools)
        if chance.random() < 0.1:
            found.append(text("+", take) + " | " + text("+", amounts(chance, [2] * pools)))
            continue  # what is held is not known any more: nothing of it is given back
        held = [h + n for h, n in zip(held, take, strict=True)]
        found.append(text("+", take))
    if any(held) and chance.random() < 0.9:
        found.append(text("-", held))
    return found


def some_model(seed: int) -> dict[str, Any]:
    """1 to 3 pools, 1 to 4 tasks."""
    chance = random.Random(seed)
    counts = COUNTS[seed % len(COUNTS)]
    pools = chance.randint(1, 3)
    actors = {
        f"t{n}": {"count": count, "steps": steps(chance, pools, _LONGEST[sum(counts)])}
        for n, count in enumerate(counts)
    }
    rest = {name: chance.randint(1, 4) for name in POOLS[1:pools]}
    return {"pools": {"a": 1, **rest}, "actors": actors}


def agrees(model: Model) -> str:
    """One cell; its verdict. Raises: AssertionError where checker and brute force differ."""
    verdict, shortest, _ = Brute(model).explore()
    report = modelled.check(model, sizes=False)
    assert report.verdict == verdict, f"{report.verdict}, and brute force says {verdict}"
    assert report.complete == (verdict != "deadlock")
    if verdict == "deadlock":
        # How many steps were taken: a request over several pools has a line for each, and is one.
        events = report.trace[-1].step
        assert events == shortest, f"a trace of {events} events, and {shortest} are enough"
        again = modelled.replay(model, report.replay)
        assert (again.verdict, again.trace) == ("deadlock", report.trace)
    return verdict


def example(seed: int) -> Counter[str]:
    """The ten cells of one model, by verdict."""
    table, found = some_model(seed), Counter[str]()
    for wake in ("fifo", "any-fit"):
        model = parse({**table, "wake": wake})
        safe = []
        for size in range(1, SIZES + 1):
            try:
                verdict = agrees(model.at(0, size))
            except AssertionError as error:
                raise AssertionError(f"{wake}, {size} of a, {table}: {error}") from error
            found[verdict] += 1
            if verdict != "deadlock":
                safe.append(size)
        said = modelled.sizes(model, "a", SIZES)
        listed, smallest = list(said.safe), said.smallest
        assert listed == safe, f"{wake}, {table}: safe are {safe}, and {listed} were listed"
        if smallest is not None and smallest <= SIZES:  # else it is larger than what was looked at
            from_here = [size for size in safe if size >= smallest]
            assert len(from_here) == SIZES + 1 - smallest and smallest - 1 not in safe, (
                f"{wake}, {table}: {smallest} is said to be the smallest, and safe are {safe}"
            )
    return found


def tried(seed: int) -> tuple[int, Counter[str], str]:
    try:
        return seed, example(seed), ""
    except Exception as error:
        return seed, Counter(), f"{type(error).__name__}: {error}"


def without_laws() -> None:
    """What a size depends on is another question, and costs ten times as much as the sizes."""
    modelled.law = lambda *_: None


def many(first: int, cells: int, jobs: int, say: Callable[[str], object] = print) -> int:
    began, done, failed = time.monotonic(), Counter[str](), 0
    seeds = range(first, first + -(-cells // (2 * SIZES)))
    with get_context("fork").Pool(jobs, without_laws) as pool:
        for seed, found, failure in pool.imap_unordered(tried, seeds, chunksize=8):
            done += found
            if failure:
                failed += 1
                say(f"seed {seed}: {failure}")
                say(f"  again: python -m tests.checker.agreement --seed {seed}")
                if failed == _SHOWN:
                    break
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(done.items()))
    say(
        f"{done.total()} cells from seed {first} on agree with brute force ({verdicts}), {failed} models "
        f"do not; {time.monotonic() - began:.0f} s"
    )
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.checker.agreement", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--seed", type=int, help="repeat the ten cells of this one")
    parser.add_argument("--cells", type=int, default=100_000, help="how many (%(default)s)")
    parser.add_argument("--first", type=int, help="the seed of the first ten (any)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (%(default)s)")
    chosen = parser.parse_args()
    if chosen.seed is not None:
        print(f"seed {chosen.seed}: {some_model(chosen.seed)}")
        print(f"agrees: {dict(example(chosen.seed))}")
        return 0
    first = random.randrange(1 << 31) if chosen.first is None else chosen.first
    return many(first, chosen.cells, chosen.jobs)


if __name__ == "__main__":
    sys.exit(main())
