"""C: how its rules are run over a tree.

Decides the order: the rule that follows callers sees the whole tree at once, and its answer holds
until any file changes; the others judge one file at a time, over all processors, and their findings
are kept by the file's content.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from headway.audit.c import local
from headway.audit.csource import functions
from headway.audit.csource.project import Project
from headway.audit.csource.search import Search
from headway.audit.csource.words import own_purposes
from headway.audit.finding import Finding, Options, Rule, Skipped
from headway.audit.kept import Kept
from headway.audit.rules import noretry
from headway.errors import MissingExtra

__all__ = ["FRONT_END"]


class _C:
    rules: tuple[Rule, ...] = (noretry.RULE, *local.RULES)

    def begin(self, options: Options) -> Search | None:
        """Search for the flag, if it has to be: while files are still met, as they are met."""
        with suppress(MissingExtra):  # said once there is a file to judge
            functions.parser()
            if options.wants(noretry.RULE):
                with _kept(options) as kept:
                    return None if kept.knows else Search([options.flag], options.jobs)
        return None

    def scan(
        self, paths: Sequence[str], options: Options, begun: Search | None = None
    ) -> Iterator[Finding | Skipped]:
        """Judge these files; see `headway.audit.finding.FrontEnd`."""
        functions.parser()  # a missing extra is said before any work
        if options.wants(noretry.RULE):
            yield from _noretry(paths, options, begun)
        yield from local.scan(paths, options)


def _kept(options: Options) -> Kept:
    own = " ".join(f"{verdict}={','.join(w)}" for verdict, w in sorted(options.purposes.items()))
    name = f"c-noretry {local.version()} {options.flag} {own}"
    return Kept(options.cache, name, options.stamps)


def _noretry(
    paths: Sequence[str], options: Options, begun: Search | None
) -> Iterator[Finding | Skipped]:
    purposes = own_purposes(options.purposes)
    with _kept(options) as kept:
        known = kept.get_whole(paths)
        if known is not None:
            yield from local.revived(known)
            return
        project = Project(paths, options, purposes, begun)
        findings = list(noretry.check(project, options))
        yield from findings
        yield from project.skipped
        yield from dict.fromkeys(project.unread)
        if not project.unread:  # it may be readable the next time, and show no sign of it
            kept.put_whole(paths, local.plain(findings, project.skipped))


FRONT_END = _C()
