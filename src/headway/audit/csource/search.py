"""Which files hold which words, and where: one batched pass instead of one pass per word.

Decides how the bytes are looked through: by grep (every Linux has it; its multi-word search runs at
about a gigabyte a second on each processor), or in Python where it is missing. Both give the same
hits. Whole words are few: grep then looks for a rare piece of each (`anchors`) and names the files, and
Python finds the places in those. Nothing is parsed here; a file that no hit names is never parsed at all.

Bound: a file is read once for a whole batch of words; a batch is split over the processors. A file
longer than MAX_BYTES is left out and said to be; so is one that cannot be read.

Source: POSIX grep; GNU grep's options -o, -b, -w.
"""

from __future__ import annotations

import functools
import itertools
import mmap
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

from headway.audit.csource.anchors import anchors
from headway.audit.finding import Skipped

__all__ = ["MAX_BYTES", "Hits", "Search", "is_mute", "places_of", "processors", "search"]

MAX_BYTES = 16 << 20  # of one file
_ARGUMENTS = 100_000  # characters of names for one process: far below what Linux takes, whatever they are in bytes
_AT_ONCE = 20  # names; Linux takes no path longer than 4096 bytes, so these fit as well
_POINTER = 9  # bytes of an argument besides its text
_CHUNK = 1 << 18
_FAILED = 2  # what grep ends with if it could not read a file, or more; then all of its files are read here

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
    unread: list[Skipped] | None = None,
) -> Hits:
    """Every place of these words in these files, see `Search`; what could not be read is added to ``unread``."""
    hits: Hits = {}
    with Search(names, jobs, whole_words, with_grep) as under_way:
        under_way.add(paths)
        for _, part in under_way.parts():
            hits.update(part)
        if unread is not None:
            unread += under_way.unread
    return hits


class Search:
    """A search for words, under way: files may be added while others are looked through.

    ``whole_words``: a hit is not part of a longer name. Files that cannot be read give no hits, and stand in
    ``unread``, all of them when the last of the parts was given. Until there are files, nothing is started.
    """

    def __init__(
        self,
        names: Iterable[str],
        jobs: int = 0,
        whole_words: bool = True,
        with_grep: bool | None = None,
    ) -> None:
        self._names = sorted(set(names))
        self._whole = whole_words
        self._with_grep = with_grep is not False
        self._grep: tuple[str, str] | None = None  # its path, and the path of the list of words
        self._open = ExitStack()
        self._workers = ThreadPoolExecutor(processors(jobs))
        self._asked: list[Future[tuple[int, Hits]]] = []
        self.unread: list[Skipped] = []
        self._batch: list[str] = []
        self._size = 0

    def __enter__(self) -> Search:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up what is not begun. Waits for what is."""
        self._workers.shutdown(cancel_futures=True)
        self._open.close()

    def add(self, paths: Sequence[str]) -> None:
        """Look through these files as well. Waits for nothing."""
        for start in range(0, len(paths), _AT_ONCE):
            some = paths[start : start + _AT_ONCE]
            size = sum(map(len, some)) + _POINTER * len(some)
            if self._size + size > _ARGUMENTS:
                self._ask()
            self._batch += some
            self._size += size

    def parts(self) -> Iterator[tuple[int, Hits]]:
        """How many files were looked through, and what they gave, part by part. Waits for each."""
        self._ask()
        for part in self._asked:
            yield part.result()

    def _ask(self) -> None:
        if self._batch and self._names:
            if not self._asked and self._with_grep:
                self._grep = self._with_list()
            self._asked.append(self._workers.submit(self._one, self._batch))
        self._batch, self._size = [], 0

    def _with_list(self) -> tuple[str, str] | None:
        grep = _gnu_grep()
        if grep is None:
            return None
        file = self._open.enter_context(tempfile.NamedTemporaryFile(prefix="headway-words-"))
        wanted = anchors(self._names) if self._whole else self._names
        file.write("\n".join(wanted).encode() + b"\n")
        file.flush()
        return grep, file.name

    def _one(self, batch: list[str]) -> tuple[int, Hits]:
        named = batch
        if self._grep is not None:
            done = _grep(*self._grep, "-alFZ" if self._whole else "-aobHFZ", batch)
            if done.returncode < _FAILED:
                if not self._whole:
                    return len(batch), _places(done.stdout)
                named = [os.fsdecode(path) for path in done.stdout.split(b"\0") if path]
        return len(batch), _by_reading(named, self._names, self._whole, self.unread)


@functools.cache
def _gnu_grep() -> str | None:
    grep = shutil.which("grep")
    if grep is None:
        return None
    said = subprocess.run([grep, "--version"], capture_output=True, check=False).stdout
    return grep if b"GNU" in said else None


def _places(said: bytes) -> Hits:
    """What grep names with -aobHZ."""
    hits: Hits = {}
    for row in said.splitlines():
        path, _, rest = row.partition(b"\0")
        offset, _, word = rest.partition(b":")
        hits.setdefault(os.fsdecode(path), []).append((int(offset), word.decode()))
    return hits


def _grep(
    grep: str, words_file: str, flags: str, batch: list[str]
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [grep, flags, "-f", words_file, "--", *batch],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )


def _by_reading(
    batch: list[str], names: list[str], whole_words: bool, unread: list[Skipped]
) -> Hits:
    longest_first = sorted(names, key=len, reverse=True)
    any_of = re.compile("|".join(map(re.escape, longest_first)).encode())
    hits: Hits = {}
    for path in batch:
        try:
            data = _data(path)
        except (OSError, ValueError) as error:
            unread.append(Skipped.unread(path, error))
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


def is_mute(path: str) -> bool:
    """Whether a file can neither call a function nor name one as a value: it has none of ``) , ; }``.

    A comment at its begin does not count. Of a file that cannot be read it is not known, and it is not said to be so.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            begin = file.read(_CHUNK)
            if begin.startswith(b"/*"):
                begin = begin[begin.find(b"*/") + 2 :]
            rest = iter(lambda: file.read(_CHUNK), b"")
            return not any(
                b")" in chunk or b"," in chunk or b";" in chunk or b"}" in chunk
                for chunk in itertools.chain([begin], rest)
            )
    except OSError:
        return False
