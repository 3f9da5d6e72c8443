"""The Python front end: which files are read, in how many processes, and which rules judge them.

Decides no finding. Files that cannot matter are never parsed (`candidates`). The rest is read into facts,
in processes if there is enough of it; then the facts are joined, files that use the pools of others
are read with those known, and every rule runs over the joined program.

Bound: a file is read at most twice; memory is the facts, never two syntax trees of one process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from headway.audit.finding import Finding, Options, Rule, Skipped
from headway.audit.python import candidates, names
from headway.audit.python.declared import declared
from headway.audit.python.facts import Module
from headway.audit.python.presets import SHAPES
from headway.audit.python.program import Program
from headway.audit.python.reading import Batch, Outcome, read_batch
from headway.audit.python.rules import FILES
from headway.audit.python.shapes import Shape

__all__ = ["FRONT_END", "PythonFrontEnd"]

_BATCH = 100  # files that one process reads before it reports
_FEW = 300  # files for which a second process is not worth its start


class PythonFrontEnd:
    """Python, as `headway audit` sees it."""

    rules: tuple[Rule, ...] = tuple(file.RULE for file in FILES)

    def begin(self, options: Options) -> None:
        """Nothing: what a file is called depends on those beside it."""

    def scan(
        self, paths: Sequence[str], options: Options, begun: None = None
    ) -> Iterator[Finding | Skipped]:
        """Judge these files together: calls are followed from one to the other.

        Raises: UsageError if `options.names` says something unknown.
        """
        wanted = [file for file in FILES if options.wants(file.RULE)]
        shapes = (*SHAPES, *declared(options.names))
        packages: dict[str, bool] = {}
        files = [(path, names.module_name(path, packages)) for path in dict.fromkeys(paths)]
        modules, skipped = _read_all(files, shapes, options)
        yield from skipped
        if not wanted:
            return
        program = Program(modules)
        for file in wanted:
            yield from file.find(program)


FRONT_END = PythonFrontEnd()


def _read_all(
    files: list[tuple[str, str]], shapes: tuple[Shape, ...], options: Options
) -> tuple[list[Module], list[Skipped]]:
    """First every file that names a library, then those that import a pool from the first."""
    skipped: dict[str, Skipped] = {}
    modules: dict[str, Module] = {}
    batches = [
        Batch(tuple(files[start : start + _BATCH]), shapes, named=options.named)
        for start in range(0, len(files), _BATCH)
    ]
    for outcome in _carry_out(batches, options, "reading"):
        modules.update((module.path, module) for module in outcome.modules)
        skipped.update((each.path, each) for each in outcome.skipped)
    for outcome in _carry_out(_second(files, shapes, modules), options, "joining"):
        modules.update((module.path, module) for module in outcome.modules)
        for each in outcome.skipped:
            skipped.setdefault(each.path, each)
    return list(modules.values()), list(skipped.values())


def _second(
    files: list[tuple[str, str]], shapes: tuple[Shape, ...], modules: dict[str, Module]
) -> list[Batch]:
    """Files of a package in which some file gives a pool away, but for that file itself."""
    known = candidates.given_away(modules.values())
    bases = {ref: found.bases for each in modules.values() for ref, found in each.classes.items()}
    batches: list[Batch] = []
    by_top: dict[str, list[tuple[str, str]]] = {}
    for path, name in files:
        by_top.setdefault(name.partition(".")[0], []).append((path, name))
    for top, shared in sorted(candidates.importable(known).items()):
        of_package = [each for each in by_top.get(top, []) if "." in each[1] or len(by_top) < 50]
        if len(of_package) < 2:
            continue
        prefix = f"{top}."
        near = {place: value for place, value in known.items() if _below(place, top, prefix)}
        near_bases = {ref: found for ref, found in bases.items() if ref.startswith(prefix)}
        batches += [
            Batch(
                tuple(of_package[start : start + _BATCH]), shapes, near, near_bases,
                frozenset(shared),
            )
            for start in range(0, len(of_package), _BATCH)
        ]  # fmt: skip
    return batches


def _below(place: str, top: str, prefix: str) -> bool:
    return place[2:].startswith(prefix) or place[2:] == top


def _carry_out(batches: list[Batch], options: Options, stage: str) -> Iterator[Outcome]:
    """Run the batches, in as many processes as there are processors."""
    total = sum(len(batch.files) for batch in batches)
    done = 0
    jobs = options.jobs or os.cpu_count() or 1
    if jobs == 1 or total <= _FEW:
        results: Iterable[tuple[Batch, Outcome]] = ((batch, read_batch(batch)) for batch in batches)
    else:
        results = _in_processes(batches, jobs)
    for batch, outcome in results:
        done += len(batch.files)
        if options.progress is not None:
            options.progress(stage, done, total)
        yield outcome


def _in_processes(batches: list[Batch], jobs: int) -> Iterator[tuple[Batch, Outcome]]:
    broken: list[Batch] = []
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as processes:
        running: dict[Future[Outcome], Batch] = {}
        try:
            running = {processes.submit(read_batch, batch): batch for batch in batches}
            for future in as_completed(running):
                batch = running.pop(future)
                try:
                    yield batch, future.result()
                except BrokenProcessPool:
                    broken.append(batch)
        except BrokenProcessPool:  # it died while batches were still handed out
            left = set(map(id, running.values()))
            broken += [batch for batch in batches if id(batch) in left or not running]
    for batch in broken:
        yield batch, _survive(batch)


def _survive(batch: Batch) -> Outcome:
    """Read a batch in which some file ends the process: halve it until that file is alone."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        try:
            return process.submit(read_batch, batch).result()
        except BrokenProcessPool:
            pass
    if len(batch.files) == 1:
        return Outcome([], [Skipped(batch.files[0][0], "ended the process that read it")])
    whole = Outcome()
    for half in batch.halves():
        part = _survive(half)
        whole.modules += part.modules
        whole.skipped += part.skipped
    return whole
