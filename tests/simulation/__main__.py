"""Run simulated machines, one for each seed, for a bounded time: `python -m tests.simulation --help`.

A seed that fails is printed with the command that repeats it; keep it in `gallery.py` once it is mended.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from multiprocessing import get_context

from tests.simulation.world import World

_SHOWN = 5  # failures, before it ends


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeat this one, and tell all about it")
    parser.add_argument("--seeds", type=int, default=5000, help="how many (%(default)s)")
    parser.add_argument("--first", type=int, help="the first of them (any)")
    parser.add_argument("--seconds", type=float, default=600.0, help="at most (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (%(default)s)")
    chosen = parser.parse_args()
    if chosen.seed is not None:
        return repeat(chosen.seed)
    first = random.randrange(1 << 31) if chosen.first is None else chosen.first
    return many(first, chosen.seeds, time.monotonic() + chosen.seconds, chosen.jobs)


def repeat(seed: int) -> int:
    world = World(seed)
    print(f"seed {seed}: {world.setting}")
    try:
        print(f"passed: {world.run()}")
    except Exception:
        traceback.print_exc()
        for report in world.simulator.reports:
            print(f"reported: {report}", file=sys.stderr)
        return 1
    return 0


def tried(seed: int) -> tuple[int, str]:
    try:
        World(seed).run()
        return seed, ""
    except Exception as error:
        return seed, f"{type(error).__name__}: {error}"


def many(first: int, count: int, until_s: float, jobs: int) -> int:
    done = failed = 0
    with get_context("fork").Pool(jobs) as pool:
        for seed, failure in pool.imap_unordered(tried, range(first, first + count), chunksize=4):
            done += 1
            if failure:
                failed += 1
                print(f"seed {seed}: {failure}")
                print(f"  again: ./dev fuzz --seed {seed}", flush=True)
            if time.monotonic() > until_s or failed == _SHOWN:
                break
    print(f"{done} machines simulated from seed {first} on, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
