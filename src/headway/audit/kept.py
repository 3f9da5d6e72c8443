"""What earlier audits found, kept by content, so that only what changed is looked at again.

Decides when an old answer still holds: the same rules, and the same content of the file. Content is
named by its digest; a file whose size, times and number did not change since is taken to have the
same content without being read, as git does. A store that is damaged or cannot be written is left
alone: the audit is then slower, never wrong.

Source: git's index (racy entries); SQLite's documentation for what a reader may rely on.
"""

from __future__ import annotations

import hashlib
import marshal
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from headway.audit.files import stamp
from headway.audit.finding import Stamp

__all__ = ["Kept"]

_TABLE = """
create table if not exists answers (
    rules text, path text, seen text, digest text, answer text, at real, primary key (rules, path)
)
"""
_FRESH_S = 2.0  # a file changed this recently may change again within one tick of its clock
_WITHOUT_REFERENCES = 2  # this version of marshal writes equal values alike
_RULES = 4  # sets of rules whose answers are kept


class Kept:
    """Answers by path for one set of rules; without a directory it keeps nothing.

    ``stamps``: of files, as they were before any was read; of others they are taken when needed.
    """

    def __init__(
        self, directory: Path | None, rules: str, stamps: Mapping[str, Stamp] | None = None
    ) -> None:
        self._stamps = stamps or {}
        self._rules = hashlib.blake2b(rules.encode(), digest_size=16).hexdigest()
        self._began = time.time()
        self._state = ""
        self._store: sqlite3.Connection | None = None
        self._known: dict[str, tuple[str, str, str]] = {}
        self._new: list[tuple[str, str, str, str, str, float]] = []
        if directory is None:
            return
        with suppress(OSError, sqlite3.Error):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._store = sqlite3.connect(directory / "audit.sqlite", timeout=2.0)
            self._store.execute(_TABLE)
            rows = self._store.execute(
                "select path, seen, digest, answer from answers where rules = ?", (self._rules,)
            )
            self._known = {path: (seen, digest, answer) for path, seen, digest, answer in rows}

    def __enter__(self) -> Kept:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._store is None:
            return
        if not self._new:
            self._store.close()
            return
        with suppress(sqlite3.Error), self._store:
            self._store.executemany(
                "insert or replace into answers values (?, ?, ?, ?, ?, ?)", self._new
            )
            self._store.execute(
                "delete from answers where rules not in "
                "(select rules from answers group by rules order by max(at) desc limit ?)",
                (_RULES,),
            )
        self._store.close()

    @property
    def knows(self) -> bool:
        """Whether anything was kept for these rules."""
        return bool(self._known)

    def get(self, path: str) -> str | None:
        """The answer for this file, if it still holds."""
        known = self._known.get(_real(path))
        if known is None:
            return None
        seen, digest, answer = known
        if seen == _text(self._stamp(path)):
            return answer
        try:
            content = Path(path).read_bytes()
        except OSError:
            return None
        if digest != hashlib.blake2b(content, digest_size=16).hexdigest():
            return None
        self.put(path, digest, answer)
        return answer

    def get_whole(self, paths: Sequence[str]) -> str | None:
        """The answer for all these files together, if none of them changed since."""
        known = self._known.get(_many(paths))
        self._state = self._state_of(paths)  # before anything is read
        return known[2] if known is not None and known[1] == self._state else None

    def put_whole(self, paths: Sequence[str], answer: str) -> None:
        """Keep an answer for all these files together, as they were when it was asked for."""
        if self._store is not None:
            row = (self._rules, _many(paths), "", self._state, answer, time.time())
            self._new.append(row)

    def put(self, path: str, digest: str, answer: str) -> None:
        """Keep an answer for the content with this digest."""
        if self._store is None or not digest:
            return
        seen = self._stamp(path)
        text = _text(seen)
        if seen is not None and self._began - max(seen[1:3]) / 1e9 < _FRESH_S:
            text = "fresh"  # it may have changed after it was read: the next run reads it again
        self._new.append((self._rules, _real(path), text, digest, answer, time.time()))

    def _stamp(self, path: str) -> Stamp | None:
        return self._stamps.get(path) or stamp(path)

    def _state_of(self, paths: Sequence[str]) -> str:
        """A name for how all these files are now."""
        known = self._stamps
        seen = [known.get(path) or stamp(path) for path in paths]
        plain = marshal.dumps(seen, _WITHOUT_REFERENCES)
        return hashlib.blake2b(plain, digest_size=16).hexdigest()


def _text(seen: Stamp | None) -> str:
    return ":".join(map(str, seen)) if seen is not None else "gone"


def _many(paths: Sequence[str]) -> str:
    where = "\0".join([str(Path.cwd()), *paths])
    return hashlib.blake2b(where.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _real(path: str) -> str:
    return str(Path(path).absolute()) + "\0" + path
