"""Which files an audit reads: everything below the given paths, each file once.

Decides what is walked: no directory whose name begins with a dot, no link to a directory (a circle
would never end), no link to a file (its target is read where it lies). What is left out for another
reason than its name is reported. Opened is only what was named itself, for one byte.

Source: the habits of ripgrep and git grep for hidden and linked files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from headway.audit.finding import Skipped
from headway.errors import UsageError

__all__ = ["found", "plain", "signature"]


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
            why = _unfit(path, suffixes)
            if why:
                skipped.append(Skipped(plain(path), why))
            else:
                files[plain(path)] = None
        else:
            raise UsageError(f"cannot audit {path}: there is no such file or directory")
    return sorted(files), skipped


def _unfit(path: str, suffixes: tuple[str, ...]) -> str:
    """Why a path that was named, and is no directory, cannot be read; empty if it can."""
    if not path.lower().endswith(suffixes):
        return "no rules for this kind of file"
    if not os.path.exists(path):
        return "a link that leads nowhere, or in a circle"
    if not os.path.isfile(path):
        return "not a regular file"
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        return f"cannot be read: {(error.strerror or type(error).__name__).lower()}"
    return ""


def plain(path: str) -> str:
    """A path as findings name it: with "/", and without a leading "./"."""
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
            skipped.append(Skipped(plain(directory), error.strerror or "cannot be listed"))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                _link(entry, suffixes, skipped)
            elif entry.is_dir():
                stack.append(entry.path)
            elif entry.name.lower().endswith(suffixes):
                if not entry.is_file():
                    skipped.append(Skipped(plain(entry.path), "not a regular file"))
                elif not os.access(entry.path, os.R_OK):
                    skipped.append(Skipped(plain(entry.path), "cannot be read: permission denied"))
                else:
                    files[plain(entry.path)] = None


def _link(entry: os.DirEntry[str], suffixes: tuple[str, ...], skipped: list[Skipped]) -> None:
    if os.path.isdir(entry.path):
        skipped.append(Skipped(plain(entry.path), "a link to a directory: not followed"))
    elif entry.name.lower().endswith(suffixes) and not os.path.exists(entry.path):
        skipped.append(Skipped(plain(entry.path), "a link that leads nowhere, or in a circle"))


def signature(path: str) -> str:
    """What changes when a file does: its size and its times, as git's index uses them."""
    try:
        seen = os.stat(path)
    except OSError:
        return "gone"
    return f"{seen.st_size}:{seen.st_mtime_ns}:{seen.st_ctime_ns}:{seen.st_ino}"
