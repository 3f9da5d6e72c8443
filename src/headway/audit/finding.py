"""What an audit says: findings, what it could not read, and how a language plugs in.

Decides the words every language shares: a finding with its remedy and its evidence, a rule with its
page, a file that was skipped with its reason, and the shape of a front end. Decides nothing about C
or Python, and reads no file.

A language is a package under `headway.audit` with an object `FRONT_END`, named in
`headway.audit.scan.FRONT_ENDS` with the suffixes of its files. Its rules are
plain functions, one file each, listed in its `rules`; rules do not import each other.

Source: SARIF 2.1.0 (OASIS), sections 3.27 (result) and 3.49 (reporting descriptor), for the fields
that a code-scanning page wants; the closed verdict set of the 2018 audit, in `headway.audit.rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

__all__ = [
    "Begun",
    "Evidence",
    "Finding",
    "FrontEnd",
    "Options",
    "Rule",
    "Severity",
    "Skipped",
    "Stamp",
]

Severity = Literal["error", "warning", "note"]
# A file's size, its two times in ns, and its number: what changes when it does, as git's index uses them.
Stamp = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Evidence:
    """One step of the reasoning: what was seen in a line of the finding's file, or of ``path``."""

    line: int  # from 1
    note: str
    path: str = ""  # empty: the file of the finding


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule says of one place.

    ``bug`` is a claim that something must be changed; a finding that is no bug documents a place
    that was looked at and found right (`fallback-vmalloc`), or that could be better (a note).
    """

    path: str  # as it was asked for: relative stays relative; always with "/"
    line: int  # from 1
    function: str  # empty: outside of all functions
    rule: str  # the id of a `Rule`
    verdict: str  # from the rule's closed set
    bug: bool
    message: str  # one sentence, lower case: what happens and why that is so
    fix: str  # what to do, one sentence; empty if nothing is to be done
    evidence: tuple[Evidence, ...] = ()
    severity: Severity = "warning"  # of a bug: error, unless the rule says less
    site: str = ""  # the call or expression itself; names the place when lines shift
    span: tuple[int, int] = (0, 0)  # first and last line of the function, for `--diff`


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file, or a part of one, that was not judged; ``reason`` says why, in a few words."""

    path: str
    reason: str

    @classmethod
    def unread(cls, path: str, error: Exception) -> Skipped:
        """A file that could not be read, and what the system says of it."""
        why = getattr(error, "strerror", None) or type(error).__name__
        return cls(path, f"cannot be read: {why.lower()}")


@dataclass(frozen=True, slots=True)
class Rule:
    """What the lists, the pages and the code-scanning report say of a rule.

    Its page is ``docs/audit/<id>.md``.
    """

    id: str  # lower case with dashes, no language prefix unless two languages would clash
    title: str  # one line: what it finds
    verdicts: tuple[str, ...]  # the closed set
    severity: Severity = "warning"  # of its findings that are bugs
    default: bool = True  # looked for unless asked otherwise


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for; the same for all languages."""

    only: frozenset[str] = frozenset()  # rule ids; empty: all that are on by default
    ignore: frozenset[str] = frozenset()
    flag: str = "__GFP_NORETRY"  # which flag the C rule `noretry` follows
    jobs: int = 0  # processes; 0: as many as there are processors
    cache: Path | None = None  # a directory; None: nothing is kept
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)  # a project's own pool names
    purposes: Mapping[str, Sequence[str]] = field(default_factory=dict)  # words, by verdict
    named: frozenset[str] = (
        frozenset()
    )  # files asked for by their own name: judged, or said why not
    stamps: Mapping[str, Stamp] = field(default_factory=dict)  # as files were before any was read
    progress: Callable[[str, int, int], None] | None = None  # (stage, done, of all)

    def wants(self, rule: Rule) -> bool:
        """Whether this rule is to be run."""
        if rule.id in self.ignore:
            return False
        return rule.id in self.only if self.only else rule.default


class Begun(Protocol):
    """Work on files that is under way before all of them are known."""

    def add(self, paths: Sequence[str]) -> None:
        """More files; the front end's own. Must not wait."""

    def close(self) -> None:
        """The work is done with, or given up; may be told twice."""


class FrontEnd(Protocol):
    """A language: which rules it has, and what it finds in its files."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """In the order in which the list shows them."""

    def begin(self, options: Options) -> Any:
        """Begin before the files are known: a `Begun`, which `scan` is given; None if nothing can be."""

    def scan(
        self, paths: Sequence[str], options: Options, begun: Any = None
    ) -> Iterator[Finding | Skipped]:
        """Judge these files, in any order; the caller sorts.

        Never raises for a file: what cannot be read or parsed is a `Skipped`. Suppression in
        comments, the baseline and the fingerprints are the caller's work.

        Raises: MissingExtra if the language needs an optional dependency.
        """
