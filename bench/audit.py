"""`headway audit` over a whole kernel tree: time and memory, cold and warm, beside one search.

The tree comes from Debian's package: HEADWAY_BENCH_TREE names one that is unpacked; else the newest
/usr/src/linux-source-*.tar.xz is unpacked, or the package downloaded (apt-get download, no root). Where
none of this can be had there is no row but one that says so. `audit_peer` sets the rule noretry beside Coccinelle.

*Cold* means an empty store of answers; the bytecode of headway is there, as after an installation, and the
files themselves are in the page cache after the first round, as they are for the search. Memory is the
largest resident size of any one process. It does not show a disk that has to be read, or more processors
than this machine has.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from bench import audit_peer
from bench.measure import Row

_PACKAGE = "linux-source-6.12"
_NO_BYTECODE = ("PYTHONDONTWRITEBYTECODE",)
FILES = 10_000  # of Python
_RUN = """
import os, resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
seconds = time.perf_counter() - start
print(seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


def run(quick: bool) -> list[Row]:
    """Rows for the rule noretry and for all C rules; quick: one directory, one round."""
    with tempfile.TemporaryDirectory(prefix="headway-bench-audit-") as place:
        tree = _tree(Path(place))
        if tree is None:
            why = f"skipped: no HEADWAY_BENCH_TREE, and Debian's package {_PACKAGE} cannot be had"
            skipped = Row("a kernel tree", 0.0, "s", note=why)
            return [skipped, *_site_packages(Path(place), quick)]
        part = "block" if quick else "."
        rounds = 1 if quick else 3
        _timed([sys.executable, "-m", "headway", "audit", "--list-rules"], tree, Path(place))
        one = ["--only", "noretry", part]
        first = _rows(tree, Path(place), "noretry", one, rounds, (8.0, 2.0, 300.0))
        peer = audit_peer.rows(tree, part, _bugs(tree, Path(place), one), first[0].value)
        all_of_c = _rows(tree, Path(place), "all C rules", [part], 1, (120.0, 10.0, 1024.0))
        return [*first, *peer, *all_of_c, *_site_packages(Path(place), quick)]


def _bugs(tree: Path, place: Path, options: list[str]) -> list[tuple[str, str]]:
    """The functions that headway calls bugs."""
    command = [sys.executable, "-m", "headway", "audit", "--json", *options]
    done = subprocess.run(
        command, cwd=tree, env=_environment(place), capture_output=True, text=True, check=False
    )
    found = json.loads(done.stdout)["findings"]
    return [(one["path"], one["function"]) for one in found if one["bug"]]


def _site_packages(place: Path, quick: bool) -> list[Row]:
    """The Python rules over the packages of this interpreter, copied until there are FILES of them."""
    installed = Path(sysconfig.get_paths()["purelib"])
    names = sorted(path.relative_to(installed) for path in installed.rglob("*.py"))
    wanted = 200 if quick else FILES
    for number in range(wanted):
        name = names[number % len(names)]
        target = place / "site" / f"copy{number // len(names)}" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(installed / name, target)
    command = [sys.executable, "-m", "headway", "audit", "--no-cache", "--fail-on", "never", "site"]
    seconds, mebibytes = _timed(command, place, place)
    note = f"{wanted} files: what is installed beside headway, as often as it takes"
    return [
        Row("Python rules, site-packages", seconds, "s", goal=20.0, note=note),
        Row("Python rules, memory", mebibytes, "MiB", note="the largest process"),
    ]


def _rows(
    tree: Path,
    place: Path,
    name: str,
    options: list[str],
    rounds: int,
    goals: tuple[float, float, float],
) -> list[Row]:
    command = [sys.executable, "-m", "headway", "audit", "--fail-on", "never", *options]
    cold, warm, memory, ratios = [], [], [], []
    for _ in range(rounds):
        searched = _search(tree, options[-1])
        shutil.rmtree(place / "store", ignore_errors=True)
        seconds, mebibytes = _timed(command, tree, place)
        cold.append(seconds)
        memory.append(mebibytes)
        if searched is not None:
            ratios.append(seconds / searched)
        warm.append(_timed(command, tree, place)[0])
    rows = [
        Row(
            f"{name}, cold",
            statistics.median(cold),
            "s",
            goal=goals[0],
            low=min(cold),
            high=max(cold),
        ),
        Row(
            f"{name}, warm",
            statistics.median(warm),
            "s",
            goal=goals[1],
            low=min(warm),
            high=max(warm),
        ),
        Row(f"{name}, memory", max(memory), "MiB", goal=goals[2], note="the largest process"),
    ]
    if ratios and name == "noretry":
        rows.append(
            Row(
                f"{name}, cold, beside one search",
                statistics.median(cold),
                "s",
                peer="ripgrep, one word",
                ratio=statistics.median(ratios),
                goal=8.0,
                low=min(ratios),
                high=max(ratios),
            )
        )
    return rows


def _timed(command: list[str], tree: Path, place: Path) -> tuple[float, float]:
    """Seconds, and MiB of the largest process."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *command],
        cwd=tree,
        env=_environment(place),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds, mebibytes = done.stdout.split()
    return float(seconds), float(mebibytes)


def _environment(place: Path) -> dict[str, str]:
    """Ours, with a store of its own, and with bytecode kept, as every installed package has it."""
    own = str(Path(__file__).resolve().parents[1] / "src")
    kept = {"XDG_CACHE_HOME": place / "store", "PYTHONPYCACHEPREFIX": place / "bytecode"}
    given = {name: value for name, value in os.environ.items() if name not in _NO_BYTECODE}
    return {**given, **{name: str(path) for name, path in kept.items()}, "PYTHONPATH": own}


def _search(tree: Path, part: str) -> float | None:
    """Seconds of one pass of ripgrep over the C files; None where there is none."""
    found = shutil.which("rg")
    if found is None:
        return None
    start = time.perf_counter()
    words = [found, "-l", "--no-ignore", "-t", "c", "__GFP_NORETRY", part]
    subprocess.run(words, cwd=tree, stdout=subprocess.DEVNULL, check=False)
    return time.perf_counter() - start


def _tree(place: Path) -> Path | None:
    given = os.environ.get("HEADWAY_BENCH_TREE")
    if given:
        return Path(given)
    archives = sorted(glob.glob("/usr/src/linux-source-*.tar.xz"))
    if not archives and shutil.which("apt-get"):
        archives = _downloaded(place)
    if not archives:
        return None
    subprocess.run(["tar", "xf", archives[-1], "-C", place], check=True)
    return next(place.glob("linux-source-*"), None)


def _downloaded(place: Path) -> list[str]:
    fetched = subprocess.run(
        ["apt-get", "download", _PACKAGE], cwd=place, capture_output=True, check=False
    )
    packages = list(place.glob("*.deb"))
    if fetched.returncode != 0 or not packages or shutil.which("dpkg-deb") is None:
        return []
    subprocess.run(["dpkg-deb", "-x", packages[0], place / "package"], check=True)
    return sorted(glob.glob(f"{place}/package/usr/src/linux-source-*.tar.xz"))
