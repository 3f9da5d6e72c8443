"""C: which files are its own, and how its rules are run over a tree.

Decides the order: rules that follow callers see the whole tree at once; the others judge one file
at a time, over all processors, and their findings are kept by the file's content.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headway.audit.c import local
from headway.audit.c.project import Project
from headway.audit.finding import Finding, Options, Rule, Skipped
from headway.audit.rules import noretry

__all__ = ["FRONT_END"]


class _C:
    suffixes = (".c", ".h")
    rules: tuple[Rule, ...] = (noretry.RULE, *local.RULES)

    def scan(self, paths: Sequence[str], options: Options) -> Iterator[Finding | Skipped]:
        """Judge these files; see `headway.audit.finding.FrontEnd`."""
        from headway.audit.c.functions import parser

        parser()  # a missing extra is said before any work
        if options.wants(noretry.RULE):
            project = Project(paths, options.jobs, options.progress)
            yield from noretry.check(project, options)
            yield from project.skipped
        yield from local.scan(paths, options)


FRONT_END = _C()
