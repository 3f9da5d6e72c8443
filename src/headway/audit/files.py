"""Which files an audit reads: everything below the given paths, each file once.

Decides what is walked: no directory whose name begins with a dot, no link to a directory (a circle
would never end), no link to a file (its target is read where it lies). What is left out for another
reason than its name is reported. Nothing is opened.

Source: the habits of ripgrep and git grep for hidden and linked files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from headway.audit.finding import Skipped
from headway.errors import UsageError

__all__ = ["found", "signature"]


def found(paths: Sequence[str], suffixes: tuple[str, ...]) -> tuple[list[str], list[Skipped]]:
    """All files with these suffixes, sorted, and what was left out.

    Raises: UsageError if a path does not exist.
    """
    files: dict[str, None] = {}
    skipped: list[Skipped] = []
    for path in paths:
        if os.path.isdir(path):
            _walk(path, suffixes, files, skipped)
        elif os.path.lexists(path):
            if path.lower().endswith(suffixes):
                files[_plain(path)] = None
            else:
                skipped.append(Skipped(_plain(path), "no rules for this kind of file"))
        else:
            raise UsageError(f"cannot audit {path}: there is no such file or directory")
    return sorted(files), skipped


def _plain(path: str) -> str:
    path = path.replace(os.sep, "/")
    while path.startswith("./") and len(path) > 2:
        path = path[2:].lstrip("/")
    return path


def _walk(
    top: str, suffixes: tuple[str, ...], files: dict[str, None], skipped: list[Skipped]
) -> None:
    stack = [top]
    while stack:
        directory = stack.pop()
        try:
            entries = list(os.scandir(directory))
        except OSError as error:
            skipped.append(Skipped(_plain(directory), error.strerror or "cannot be listed"))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                _link(entry, suffixes, skipped)
            elif entry.is_dir():
                stack.append(entry.path)
            elif entry.name.lower().endswith(suffixes):
                if entry.is_file():
                    files[_plain(entry.path)] = None
                else:
                    skipped.append(Skipped(_plain(entry.path), "not a regular file"))


def _link(entry: os.DirEntry[str], suffixes: tuple[str, ...], skipped: list[Skipped]) -> None:
    if os.path.isdir(entry.path):
        skipped.append(Skipped(_plain(entry.path), "a link to a directory: not followed"))
    elif entry.name.lower().endswith(suffixes) and not os.path.exists(entry.path):
        skipped.append(Skipped(_plain(entry.path), "a link that leads nowhere, or in a circle"))


def signature(path: str) -> str:
    """What changes when a file does: its size and its times, as git's index uses them."""
    try:
        seen = os.stat(path)
    except OSError:
        return "gone"
    return f"{seen.st_size}:{seen.st_mtime_ns}:{seen.st_ctime_ns}:{seen.st_ino}"
