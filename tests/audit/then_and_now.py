"""Writes docs/audit/then-and-now.md: the shared rows of the 2018 audit on the sources of then and of now.

    python -m tests.audit.then_and_now TREE_OF_2018 TREE_OF_NOW NAME_OF_NOW

The trees are yours (one of 4.17 or 4.18, and a current one): nothing of them is kept but paths, lines
and verdicts.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

from headway.audit.finding import Finding, Options
from headway.audit.scan import audit
from tests.audit.test_rows import Score, verdict_of

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "audit" / "then-and-now.md"

# Files that have another name now, or whose work another file does; looked up by hand.
MOVED = {
    "arch/mips/mm/dma-default.c": "kernel/dma/direct.c",
    "drivers/gpu/drm/i915/i915_gem_execbuffer.c": "drivers/gpu/drm/i915/gem/i915_gem_execbuffer.c",
    "drivers/gpu/drm/i915/i915_gem_internal.c": "drivers/gpu/drm/i915/gem/i915_gem_internal.c",
    "drivers/gpu/drm/i915/selftests/huge_gem_object.c": "drivers/gpu/drm/i915/gem/selftests/huge_gem_object.c",
    "drivers/gpu/drm/i915/selftests/huge_pages.c": "drivers/gpu/drm/i915/gem/selftests/huge_pages.c",
    "drivers/gpu/drm/ttm/ttm_page_alloc.c": "drivers/gpu/drm/ttm/ttm_pool.c",
    "drivers/gpu/drm/ttm/ttm_page_alloc_dma.c": "drivers/gpu/drm/ttm/ttm_pool.c",
    "drivers/staging/android/ion/ion_system_heap.c": "drivers/dma-buf/heaps/system_heap.c",
    "fs/fscache/cookie.c": "fs/netfs/fscache_cookie.c",
}

_HEAD = """# The 2018 audit, then and now

Made by `python -m tests.audit.then_and_now`. In June 2018 one of the kernel's developers judged all users of
`__GFP_NORETRY` that he found; 39 of his rows are here, with his verdict, with what the [rule](noretry.md) says of the
sources of that time, and with what is there in {now}. *Gone* is a file that is no more; *flag gone* one that no
longer uses the flag; *now* a file whose work another one does.

On the sources of then: {score}. ("Never a bug" would score {floor:.3f}.)

Three cautions. The rule was built by people who had read these rows, so this shows that it can say what he said, not
how it does on rows it never saw. About six of his rows can be argued. And where rule and expert differ, the reader
should look: the row of `i915_gem.c` is called conflicting by him, while the mask is made anew for the second attempt.

| # | file | expert, 2018 | rule, sources of 2018 | {now} |
|---|---|---|---|---|
"""
_MISSED = """
## Users he did not list

| file | rule, sources of 2018 | {now} |
|---|---|---|
"""
_NEW = """
## New since then

{count} files of {now} use the flag and did not in 2018 (or had another name). The rule calls these sites bugs:

| file | line | function | verdict |
|---|---|---|---|
"""


def of_row(findings: list[Finding], path: str, function: str) -> list[Finding]:
    """The findings of a row: of its file or directory, and of its function if it names one."""
    return [
        f
        for f in findings
        if (f.path == path or (path.endswith("/") and f.path.startswith(path)))
        and function in ("", f.function)
    ]


def now_of(tree: Path, path: str, mine: list[Finding], was_bug: bool = False) -> str:
    """What became of a row's file."""
    if not (tree / path).exists():
        return "gone"
    fixed = "fixed: " if was_bug and not verdict_of(mine).startswith("bug") else ""
    if not mine:
        return f"{fixed}flag gone"
    lines = ", ".join(str(f.line) for f in mine[:6])
    more = f" and {len(mine) - 6} more" if len(mine) > 6 else ""
    return f"{fixed}`{verdict_of(mine)}`, line {lines}{more}"


def followed(tree: Path, today: list[Finding], path: str, function: str, was_bug: bool) -> str:
    """What became of a row, under the name that its file has now."""
    new = MOVED.get(path)
    if new is None or (tree / path).exists() or not (tree / new).exists():
        return now_of(tree, path, of_row(today, path, function), was_bug)
    became = now_of(tree, new, of_row(today, new, ""), was_bug)
    return f"now `{new}`: {became}"


def found_in(tree: Path) -> list[Finding]:
    with chdir(tree):
        return list(audit(["."], Options(only=frozenset(("noretry",)))).findings)


def page(then_tree: Path, now_tree: Path, now: str) -> Iterator[str]:
    then, today = found_in(then_tree), found_in(now_tree)
    with (HERE / "rows_2018.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    score, lines, missed = Score(), [], []
    for row in rows:
        path, function = row["path"], row["function"]
        said = verdict_of(of_row(then, path, function))
        was_bug = row["verdict"].startswith("bug")
        becomes = followed(now_tree, today, path, function, was_bug)
        name = f"`{path}`" + (f" `{function}`" if function else "")
        if row["verdict"] == "missed":
            missed.append(f"| {name} | `{said}` | {becomes} |")
        else:
            score.add(row["verdict"], said)
            lines.append(f"| {row['row']} | {name} | `{row['verdict']}` | `{said}` | {becomes} |")
    floor = 1 - (score.hits + score.missed) / score.rows
    yield _HEAD.format(now=now, score=score, floor=floor)
    yield "\n".join(lines) + "\n"
    yield _MISSED.format(now=now) + "\n".join(missed) + "\n"
    old = {f.path for f in then} | set(MOVED.values())
    new = [f for f in today if f.path not in old]
    yield _NEW.format(now=now, count=len({f.path for f in new}))
    for f in new:
        if f.bug:
            yield f"| `{f.path}` | {f.line} | `{f.function}` | `{f.verdict}` |\n"


if __name__ == "__main__":
    PAGE.write_text(
        "".join(page(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])), encoding="utf-8"
    )
