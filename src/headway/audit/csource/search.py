"""Which files hold which words, and where: one batched pass instead of one pass per word.

Decides how the bytes are looked through: by grep (every Linux has it; its multi-word search runs at
about a gigabyte a second on each processor), or in Python where it is missing. Both give the same
hits. Whole words are few: grep then looks for a rare piece of each (`anchors`) and names the files, and
Python finds the places in those. Nothing is parsed here; a file that no hit names is never parsed at all.

Bound: a file is read once for a whole batch of words; a batch is split over the processors. A file
longer than MAX_BYTES is left out and said to be.

Source: POSIX grep; GNU grep's options -o, -b, -w.
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from headway.audit.csource.anchors import anchors

__all__ = ["MAX_BYTES", "Hits", "holds", "places_of", "processors", "search"]

MAX_BYTES = 16 << 20  # of one file
_BATCH = 3000  # files per process started: their names must fit an argument list
_ARGUMENTS = 100_000  # characters: far below what Linux takes, whatever they are in bytes
_CHUNK = 1 << 18

Hits = dict[str, list[tuple[int, str]]]  # path: (offset, word), in order of offsets


def processors(jobs: int) -> int:
    """How many processes to use; 0 asks for as many as this one may run on."""
    if jobs > 0:
        return jobs
    look = getattr(os, "sched_getaffinity", None)
    return len(look(0)) if look is not None else os.cpu_count() or 1


def search(
    paths: Sequence[str],
    names: Iterable[str],
    jobs: int = 0,
    whole_words: bool = True,
    with_grep: bool | None = None,
    tick: Callable[[int, Hits], None] | None = None,
) -> Hits:
    """Every place of these words in these files.

    ``whole_words``: a hit is not part of a longer name. ``tick`` is told how many files are done, and
    what they gave, while others are still looked through.
    Waits for the disk; files that cannot be read give no hits.
    """
    found = sorted(set(names))
    if not found or not paths:
        return {}
    grep = shutil.which("grep") if with_grep is not False else None
    if grep is not None and not _is_gnu(grep):
        grep = None
    batches = _batches(paths)
    hits: Hits = {}
    with tempfile.NamedTemporaryFile(prefix="headway-words-") as list_file:
        list_file.write("\n".join(anchors(found) if whole_words else found).encode() + b"\n")
        list_file.flush()

        def one(batch: list[str]) -> tuple[int, Hits]:
            if grep is None:
                return len(batch), _by_reading(batch, found, whole_words)
            if whole_words:
                named = _named_by_grep(grep, batch, list_file.name)
                return len(batch), _by_reading(named, found, whole_words)
            return len(batch), _by_grep(grep, batch, list_file.name)

        with ThreadPoolExecutor(processors(jobs)) as workers:
            for count, part in workers.map(one, batches):
                hits.update(part)
                if tick is not None:
                    tick(count, part)
    return hits


def _is_gnu(grep: str) -> bool:
    said = subprocess.run([grep, "--version"], capture_output=True, check=False).stdout
    return b"GNU" in said


def _batches(paths: Sequence[str]) -> list[list[str]]:
    out: list[list[str]] = [[]]
    size = 0
    for path in paths:
        size += len(path) + 9
        if len(out[-1]) >= _BATCH or size > _ARGUMENTS:
            out.append([])
            size = len(path) + 9
        out[-1].append(path)
    return out


def _by_grep(grep: str, batch: list[str], words_file: str) -> Hits:
    hits: Hits = {}
    for row in _grep(grep, "-aobHFZ", words_file, batch).splitlines():
        path, _, rest = row.partition(b"\0")
        offset, _, word = rest.partition(b":")
        hits.setdefault(os.fsdecode(path), []).append((int(offset), word.decode()))
    return hits


def _named_by_grep(grep: str, batch: list[str], words_file: str) -> list[str]:
    """The files in which one of the words is, whole or within another."""
    return [
        os.fsdecode(path) for path in _grep(grep, "-alFZ", words_file, batch).split(b"\0") if path
    ]


def _grep(grep: str, flags: str, words_file: str, batch: list[str]) -> bytes:
    done = subprocess.run(
        [grep, flags, "-f", words_file, "--", *batch],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )
    return done.stdout


def _by_reading(batch: list[str], names: list[str], whole_words: bool) -> Hits:
    longest_first = sorted(names, key=len, reverse=True)
    any_of = re.compile("|".join(map(re.escape, longest_first)).encode())
    hits: Hits = {}
    for path in batch:
        try:
            data = _data(path)
        except (OSError, ValueError):
            continue
        if whole_words:
            places = sorted((place, name) for name in names for place in places_of(data, name))
        else:
            places = [(match.start(), match.group().decode()) for match in any_of.finditer(data)]
        if places:
            hits[path] = places
    return hits


def places_of(data: bytes | mmap.mmap, word: str) -> list[int]:
    """Where a text has a name, not as a part of a longer one."""
    needle = word.encode()
    out = []
    at = data.find(needle)
    while at >= 0:
        end = at + len(needle)
        if not (_NAME.match(data, end) or (at > 0 and _NAME.match(data, at - 1))):
            out.append(at)
        at = data.find(needle, end)
    return out


_NAME = re.compile(rb"\w")


def _data(path: str) -> bytes | mmap.mmap:
    """The file's bytes; of one that is longer than is ever parsed, a view that takes no memory."""
    with open(path, "rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return file.read()


def holds(path: str, byte: bytes) -> bool:
    """Whether a file has this byte; of one that cannot be read it is not known, and said to be so."""
    try:
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                if byte in chunk:
                    return True
    except OSError:
        return True
    return False
