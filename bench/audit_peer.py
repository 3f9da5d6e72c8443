"""The rule noretry beside Coccinelle: the same tree, the rule as a semantic patch, findings compared.

`noretry.cocci` says the rule as far as Coccinelle can; `noretry_judged.csv` has, for Linux 6.12, every function
that one of the two names, and whether that is right (read by hand). Coccinelle gets as many processes as
there are processors, and its own index of words.

It does not show what else Coccinelle can do, nor a machine on which its processes scale better. The judged
functions are those that either named, so recall is against both together.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from bench.measure import Row

HERE = Path(__file__).resolve().parent
Function = tuple[str, str]  # path, name


def rows(tree: Path, part: str, ours: Iterable[Function], seconds: float) -> list[Row]:
    """Speed and judgement of both. ``ours``: what headway calls a bug in ``part`` of the tree, in ``seconds``."""
    spatch = shutil.which("spatch")
    if spatch is None:
        why = "skipped: there is no spatch (Debian: apt install coccinelle)"
        return [Row("noretry, beside Coccinelle", 0.0, "s", note=why)]
    start = time.perf_counter()
    theirs = _found(spatch, tree, part)
    took = time.perf_counter() - start
    if not theirs:
        why = "skipped: spatch found nothing; is it built with Python?"
        return [Row("noretry, beside Coccinelle", 0.0, "s", note=why)]
    speed = Row(
        "noretry, cold, beside Coccinelle",
        seconds,
        "s",
        peer="spatch",
        ratio=took / seconds,
        goal=5.0,
        better="higher",
        note=f"the ratio is of speed; spatch took {took:.1f} s in one round",
    )
    return [speed, *_judged(frozenset(ours), theirs)]


def _found(spatch: str, tree: Path, part: str) -> frozenset[Function]:
    command = [spatch, "--very-quiet", "--jobs", str(os.cpu_count() or 1)]
    command += ["--sp-file", str(HERE / "noretry.cocci"), "--include-headers", "--dir", part]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    found = re.findall(r"^(?:\./)?(\S+):\d+:(\w+)$", done.stdout, re.MULTILINE)
    return frozenset((path, name) for path, name in found)


def _judged(ours: frozenset[Function], theirs: frozenset[Function]) -> list[Row]:
    with open(HERE / "noretry_judged.csv", newline="", encoding="utf-8") as file:
        read = {
            (row["path"], row["function"]): row["right"] == "yes" for row in csv.DictReader(file)
        }
    right = frozenset(where for where, is_so in read.items() if is_so)
    unknown = len((ours | theirs) - read.keys())
    note = "of the functions read by hand in Linux 6.12" + (
        f"; {unknown} named here were not read, and count for neither" if unknown else ""
    )
    out = []
    for what, of in (("precision", None), ("recall", right)):
        mine, other = (
            len(found & right) / max(1, len(found & read.keys() if of is None else of))
            for found in (ours, theirs)
        )
        case = f"noretry, {what} beside Coccinelle's {other:.2f}"
        out.append(Row(case, mine, "of 1", peer="spatch", goal=other, better="higher", note=note))
    missed = len((theirs & right) - ours)
    case = "noretry, right findings of Coccinelle that are missed"
    return [*out, Row(case, missed, "functions", goal=0.0, note=note)]
