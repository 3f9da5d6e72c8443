"""Which lines changed since a revision, for `--diff`: as git says, untracked files included.

Decides that a finding belongs to a change if a line of its function, or of its own, was changed.

Source: git-diff(1), the unified format with no context lines.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence

from headway.audit.finding import Finding
from headway.errors import UsageError

__all__ = ["changed_lines", "touches"]

_HUNK = re.compile(rb"^@@ -\S+ \+(\d+)(?:,(\d+))? @@")


def changed_lines(revision: str, paths: Sequence[str]) -> dict[str, list[range] | None]:
    """For each changed file (real path) its changed lines; None: the whole file is new.

    Raises: UsageError without git, outside of a repository, or for a revision that is none.
    """
    out: dict[str, list[range] | None] = {}
    for directory in sorted({_directory_of(path) for path in paths}):
        top = os.fsdecode(_git(directory, "rev-parse", "--show-toplevel").rstrip(b"\n"))
        if revision.startswith("-"):
            raise UsageError(f"--diff {revision}: not a revision")
        if revision == "HEAD" and not _git(top, "rev-list", "-n", "1", "--all"):
            out.update(
                dict.fromkeys(_listed(top, "--cached", "--others"))
            )  # before the first commit
            continue
        _git(directory, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", said=revision)
        diff = _git(top, "diff", "--no-color", "--no-ext-diff", "--no-renames", "-U0", revision)
        current: list[range] | None = None
        for line in diff.splitlines():
            if line.startswith(b"+++ "):
                name = line[4:]
                current = []
                if name.startswith((b"b/", b'"b/')):
                    real = os.path.realpath(os.path.join(top, os.fsdecode(name.strip(b'"')[2:])))
                    out[real] = current
            elif (hunk := _HUNK.match(line)) is not None and current is not None:
                first, count = int(hunk.group(1)), int(hunk.group(2) or b"1")
                current.append(range(first, first + max(count, 1)))
        out.update(dict.fromkeys(_listed(top, "--others")))
    return out


def _listed(top: str, *which: str) -> Iterator[str]:
    """The files of a work tree that git counts among these, as real paths."""
    for name in _git(top, "ls-files", *which, "--exclude-standard", "-z").split(b"\0"):
        if name:
            yield os.path.realpath(os.path.join(top, os.fsdecode(name)))


def _directory_of(path: str) -> str:
    return path if os.path.isdir(path) else os.path.dirname(path) or "."


def _git(directory: str, *arguments: str, said: str = "") -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", directory, *arguments], capture_output=True, check=False
        )
    except OSError:
        raise UsageError("--diff needs git, and there is none on PATH") from None
    if done.returncode != 0:
        if said:
            raise UsageError(f"--diff {said}: no such revision in the repository of {directory}")
        raise UsageError(f"--diff needs a git repository, and {directory} is in none")
    return done.stdout


def touches(finding: Finding, changed: dict[str, list[range] | None]) -> bool:
    """Whether a finding's function was changed."""
    real = os.path.realpath(finding.path)
    if real not in changed:
        return False
    lines = changed[real]
    if lines is None:
        return True
    first, last = finding.span if finding.span != (0, 0) else (finding.line, finding.line)
    return any(rows.start <= last and first < rows.stop for rows in lines)
