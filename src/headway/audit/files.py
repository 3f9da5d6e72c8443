"""Which files an audit reads: everything below the given paths, each file once.

Decides what is walked: no directory whose name begins with a dot, no link to a directory (a circle
would never end), no link to a file (its target is read where it lies). What is left out for another
reason than its name is reported. Opened is only what was named itself, for one byte; of any other file that
cannot be read whoever reads it says so. Each file is asked for its size and times once, when it is met: before
anything reads it.

Source: the habits of ripgrep and git grep for hidden and linked files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from headway.audit.finding import Skipped, Stamp
from headway.errors import UsageError

__all__ = ["Found", "found", "plain", "stamp"]

_ALL_MAY_READ = 0o444


@dataclass(frozen=True, slots=True)
class Found:
    """What a walk met."""

    paths: list[str]  # sorted
    skipped: list[Skipped]
    stamps: Mapping[str, Stamp]  # of each of the paths


def found(
    paths: Sequence[str],
    suffixes: tuple[str, ...],
    tell: Callable[[Sequence[str]], None] = lambda met: None,
) -> Found:
    """All files with these suffixes, and what was left out.

    ``tell`` is called with each directory's files as they are met, none of them twice.

    Raises: UsageError if a path does not exist.
    """
    files: dict[str, Stamp] = {}
    skipped: list[Skipped] = []
    for path in paths:
        if os.path.isdir(path):
            _walk(path, suffixes, files, skipped, tell)
        elif os.path.lexists(path):
            why = _unfit(path, suffixes)
            seen = None if why else stamp(path)
            if seen is None:
                skipped.append(Skipped(plain(path), why or "gone"))
            elif plain(path) not in files:
                files[plain(path)] = seen
                tell([plain(path)])
        else:
            raise UsageError(f"cannot audit {path}: there is no such file or directory")
    return Found(sorted(files), skipped, files)


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
        return Skipped.unread(path, error).reason
    return ""


def plain(path: str) -> str:
    """A path as findings name it: with "/", and without a leading "./"."""
    path = path.replace(os.sep, "/")
    while path.startswith("./") and len(path) > 2:
        path = path[2:].lstrip("/")
    return path


def _walk(
    top: str,
    suffixes: tuple[str, ...],
    files: dict[str, Stamp],
    skipped: list[Skipped],
    tell: Callable[[Sequence[str]], None],
) -> None:
    stack = [top]
    while stack:
        directory = stack.pop()
        try:
            entries = list(os.scandir(directory))
        except OSError as error:
            skipped.append(Skipped(plain(directory), error.strerror or "cannot be listed"))
            continue
        here: dict[str, Stamp] = {}
        within = plain(os.path.join(directory, "_"))[:-1]
        for entry in entries:
            name = entry.name
            if name[0] == ".":
                continue
            fits = name.endswith(suffixes) or name.lower().endswith(suffixes)
            if fits and entry.is_file(follow_symlinks=False):
                why = "" if within + name in files else _met(entry, within + name, here)
                if why:
                    skipped.append(Skipped(within + name, why))
            elif entry.is_symlink():
                _link(entry, suffixes, skipped)
            elif entry.is_dir(follow_symlinks=False):
                stack.append(entry.path)
            elif fits:
                skipped.append(Skipped(within + name, "not a regular file"))
        files.update(here)
        tell(list(here))


def _met(entry: os.DirEntry[str], path: str, files: dict[str, Stamp]) -> str:
    """Take a regular file that a directory holds; or say why it cannot be read."""
    try:
        seen = entry.stat(follow_symlinks=False)
    except OSError as error:
        return Skipped.unread(path, error).reason
    if seen.st_mode & _ALL_MAY_READ != _ALL_MAY_READ and not os.access(path, os.R_OK):
        return "cannot be read: permission denied"
    files[path] = (seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino)
    return ""


def _link(entry: os.DirEntry[str], suffixes: tuple[str, ...], skipped: list[Skipped]) -> None:
    if os.path.isdir(entry.path):
        skipped.append(Skipped(plain(entry.path), "a link to a directory: not followed"))
    elif entry.name.lower().endswith(suffixes) and not os.path.exists(entry.path):
        skipped.append(Skipped(plain(entry.path), "a link that leads nowhere, or in a circle"))


def stamp(path: str) -> Stamp | None:
    """What changes when a file does; None if it is gone."""
    try:
        seen = os.stat(path)
    except OSError:
        return None
    return seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino
