"""Runs the rules that need one file at a time: over all processors, and again only what changed.

Decides which pieces of which files are parsed: those around a word that some wanted rule names. The
rules share one parse. What a file gave is kept under its content, the rules' own text and the
wanted rules, so that a changed rule or file is looked at anew and nothing else is.

Bound: one search over the tree, one parse of each piece with a word; a process holds one file.
"""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

from headway.audit.csource import functions
from headway.audit.csource.masks import Analysis
from headway.audit.csource.search import MAX_BYTES, processors, search
from headway.audit.finding import Evidence, Finding, Options, Rule, Skipped
from headway.audit.kept import Kept
from headway.audit.rules import (
    gfp_flags,
    golden_rule,
    mempool_result,
    nofail,
    scopes,
    shrinker,
    unchecked,
    worth_a_scope,
)

__all__ = ["RULES", "judge_file", "plain", "revived", "scan", "version"]

_MODULES: tuple[ModuleType, ...] = (
    unchecked,
    golden_rule,
    gfp_flags,
    nofail,
    scopes,
    mempool_result,
    shrinker,
    worth_a_scope,
)
RULES: tuple[Rule, ...] = tuple(module.RULE for module in _MODULES)
_FEW = 60  # files, below which other processes are not worth their start
_CHUNK = 40  # files handed to a process at once

_Job = tuple[str, list[int], tuple[str, ...]]
_Result = tuple[str, str, list[Finding], list[Skipped]]


def scan(paths: Sequence[str], options: Options) -> Iterator[Finding | Skipped]:
    """Judge these files by every wanted rule of this module."""
    wanted = tuple(module.RULE.id for module in _MODULES if options.wants(module.RULE))
    if not wanted:
        return
    names = {word for m in _MODULES if m.RULE.id in wanted for word in m.WORDS}
    unread: list[Skipped] = []
    hits = search(paths, names, options.jobs, whole_words=False, unread=unread)
    yield from unread
    jobs = [(path, [o for o, _ in places], wanted) for path, places in sorted(hits.items())]
    with Kept(options.cache, f"c-local {version()} {' '.join(wanted)}", options.stamps) as kept:
        new = []
        for job in jobs:
            known = kept.get(job[0])
            if known is None:
                new.append(job)
            else:
                yield from revived(known)
        for done, (path, digest, findings, skipped) in enumerate(_run(new, options.jobs), 1):
            yield from findings
            yield from skipped
            kept.put(path, digest, plain(findings, skipped))
            if options.progress is not None:
                options.progress("rules", done, len(new))


def _run(jobs: list[_Job], processes: int) -> Iterator[_Result]:
    count = processors(processes)
    if len(jobs) < _FEW or count == 1:
        yield from map(_one, jobs)
        return
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    with ProcessPoolExecutor(count, mp_context=context) as workers:
        yield from workers.map(_one, jobs, chunksize=_CHUNK)


def _one(job: _Job) -> _Result:
    path, offsets, wanted = job
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        return path, "", [], [Skipped.unread(path, error)]
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    findings, skipped = judge_file(path, data, offsets, wanted)
    return path, digest, findings, skipped


def judge_file(
    path: str, data: bytes, offsets: list[int], wanted: Sequence[str]
) -> tuple[list[Finding], list[Skipped]]:
    """What the wanted rules find in the pieces around these offsets; never raises for a file."""
    why = functions.unreadable(data)
    if why:
        return [], [Skipped(path, why)]
    made, reasons = functions.functions_at(path, data, offsets)
    skipped = [Skipped(path, reason) for reason in reasons]
    analyses = []
    for function in made:
        try:
            analyses.append(Analysis(function, {}))
        except RecursionError:
            skipped.append(Skipped(path, f"line {function.line}: nested too deeply to follow"))
    findings: list[Finding] = []
    for module in _MODULES:
        if module.RULE.id in wanted:
            try:
                findings += module.check(analyses)
            except RecursionError:
                skipped.append(Skipped(path, f"{module.RULE.id}: nested too deeply to follow"))
    return findings, skipped


@functools.cache
def version() -> str:
    """A name for what the rules are now: a digest of their own text and of all they stand on."""
    digest = hashlib.blake2b(digest_size=8)
    top = Path(__file__).parent.parent
    for path in sorted([*top.glob("*.py"), *top.glob("c*/*.py"), *top.glob("rules/*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def plain(findings: list[Finding], skipped: list[Skipped]) -> str:
    """Findings as text, to be kept."""
    return json.dumps([[asdict(f) for f in findings], [[s.path, s.reason] for s in skipped]])


def revived(text: str) -> Iterator[Finding | Skipped]:
    """Findings from such a text."""
    findings, skipped = json.loads(text)
    for row in findings:
        row["evidence"] = tuple(Evidence(**e) for e in row["evidence"])
        row["span"] = tuple(row["span"])
        yield Finding(**row)
    for path, reason in skipped:
        yield Skipped(path, reason)
