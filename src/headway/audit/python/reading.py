"""What one process does: reads a batch of files into facts, and survives each of them.

Decides nothing about pools. A file that cannot be read or parsed is skipped with its reason, whatever
the parser does with it short of ending the process; that case is the caller's.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from headway.audit.finding import Skipped
from headway.audit.python import candidates
from headway.audit.python.facts import Instance, Module, Pool
from headway.audit.python.module import read
from headway.audit.python.shapes import Shape
from headway.audit.python.values import Table

Known = Mapping[str, Pool | Instance]


@dataclass(frozen=True, slots=True)
class Batch:
    """Work for one process."""

    files: tuple[tuple[str, str], ...]  # (path, dotted name)
    shapes: tuple[Shape, ...]
    known: Mapping[str, Pool | Instance] = field(default_factory=dict)
    bases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    names: frozenset[str] = frozenset()  # read only files that import one of these; empty: all
    named: frozenset[str] = frozenset()  # parsed even if they cannot matter

    def halves(self) -> list[Batch]:
        middle = len(self.files) // 2
        parts = (self.files[:middle], self.files[middle:])
        return [replace(self, files=part) for part in parts if part]


@dataclass(slots=True)
class Outcome:
    """What came of it."""

    modules: list[Module] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


@lru_cache(maxsize=2)
def _words(shapes: tuple[Shape, ...]) -> tuple[candidates.Words, Table]:
    return candidates.Words(shapes), Table(shapes)


def read_batch(batch: Batch) -> Outcome:
    """Read each file that can matter."""
    outcome = Outcome()
    words, table = _words(batch.shapes)
    mentions = candidates.Mentions(batch.names) if batch.names else None
    modules = {name.rpartition(".")[0] for name in batch.names}
    for path, name in batch.files:
        source = _source(path, outcome)
        if source is None:
            continue
        matters = words.matter(source) if mentions is None else mentions.found(source)
        if not matters and path not in batch.named:
            continue
        try:
            if not matters:
                ast.parse(source)
                continue
            module = read(
                path, source, name, table, batch.known, batch.bases,
                wanted=lambda found: not batch.names
                or candidates.imports_one(found, batch.names, modules),
            )  # fmt: skip
        except SyntaxError as error:
            outcome.skipped.append(Skipped(path, _syntax(error)))
        except (ValueError, UnicodeError, LookupError) as error:
            outcome.skipped.append(Skipped(path, f"not text: {error}"[:120]))
        except (RecursionError, MemoryError):
            outcome.skipped.append(Skipped(path, "nested too deeply"))
        else:
            if module is not None:
                outcome.modules.append(module)
    return outcome


def _source(path: str, outcome: Outcome) -> bytes | None:
    try:
        with open(path, "rb") as file:
            source = file.read(candidates.LARGEST + 1)
    except OSError as error:
        outcome.skipped.append(Skipped.unread(path, error))
        return None
    if len(source) > candidates.LARGEST:
        outcome.skipped.append(Skipped(path, f"larger than {candidates.LARGEST >> 20} MiB"))
        return None
    return source


def _syntax(error: SyntaxError) -> str:
    where = f" in line {error.lineno}" if error.lineno else ""
    return f"not Python 3{where}: {error.msg}"[:120]
