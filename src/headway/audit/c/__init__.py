"""C: how its rules are run over a tree.

Decides the order: the rule that follows callers sees the whole tree at once, and its answer holds
until any file changes; the others judge one file at a time, over all processors, and their findings
are kept by the file's content.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headway.audit.c import local
from headway.audit.csource.project import Project
from headway.audit.csource.words import own_purposes
from headway.audit.finding import Finding, Options, Rule, Skipped
from headway.audit.kept import Kept
from headway.audit.rules import noretry

__all__ = ["FRONT_END"]


class _C:
    rules: tuple[Rule, ...] = (noretry.RULE, *local.RULES)

    def scan(self, paths: Sequence[str], options: Options) -> Iterator[Finding | Skipped]:
        """Judge these files; see `headway.audit.finding.FrontEnd`."""
        from headway.audit.csource.functions import parser

        parser()  # a missing extra is said before any work
        if options.wants(noretry.RULE):
            yield from _noretry(paths, options)
        yield from local.scan(paths, options)


def _noretry(paths: Sequence[str], options: Options) -> Iterator[Finding | Skipped]:
    purposes = own_purposes(options.purposes)
    own = " ".join(f"{verdict}={','.join(w)}" for verdict, w in sorted(options.purposes.items()))
    name = f"c-noretry {local.version()} {options.flag} {own}"
    with Kept(options.cache, name, options.stamps) as kept:
        known = kept.get_whole(paths)
        if known is not None:
            yield from local.revived(known)
            return
        project = Project(paths, options, purposes)
        findings = list(noretry.check(project, options))
        yield from findings
        yield from project.skipped
        kept.put_whole(paths, local.plain(findings, project.skipped))


FRONT_END = _C()
