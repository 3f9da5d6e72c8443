"""One process under watch: patches go on as libraries are imported, and come off again.

It decides nothing about pools. Watching is for the whole process and at most once at a time: a second
`start` gives the session that runs. Not started, nothing is patched and nothing is imported.
"""

from __future__ import annotations

import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import os
import sys
from _thread import get_ident
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, final

from headway.watch import breaking, explain, judge, profile
from headway.watch.finding import Finding
from headway.watch.ledger import Ledger
from headway.watch.patches import PATCHES, Patcher

_EARLY = ("threading", "queue", "asyncio", "concurrent.futures.thread")
log = logging.getLogger("headway")


@final
@dataclass(frozen=True, slots=True)
class Options:
    """What a session is told. `concurrency`: at most so many requests at once, as the user declares.

    `breaks`: waits are made so that `Session.end_youngest` can end them.
    """

    concurrency: int | None = None
    profile: bool = False
    breaks: bool = False
    patches: tuple[str, ...] = tuple(PATCHES)


@final
class Session:
    """Watching one process. `findings` may be asked at any time."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.ledger = Ledger()
        if options.profile:
            self.ledger.steps = profile.Profile()
        self.ledger.breaks = options.breaks
        self._patcher = Patcher(self.ledger)
        self._finder = _Finder(self._patch, options.patches)
        self._judged: tuple[Any, list[Finding]] | None = None

    def start(self) -> None:
        for name in self.options.patches:
            if name in _EARLY:  # imported by any of us, at the latest now
                importlib.import_module(name)
        for name in self.options.patches:
            if name in sys.modules:
                self._patch(name, sys.modules[name])
        sys.meta_path.insert(0, self._finder)
        gc.callbacks.append(self._collecting)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def stop(self) -> None:
        self._patcher.undo()
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        if self._collecting in gc.callbacks:
            gc.callbacks.remove(self._collecting)

    def findings(self, *, final: bool = False) -> list[Finding]:
        """What there is to say by now; `final`: the program is at its end, so what is out stays out."""
        self.ledger.doubts.look()
        version = (
            self.ledger.graph.version,
            final,
            sum(len(pool.out) for pool in list(self.ledger.out)),
        )
        if self._judged is None or self._judged[0] != version or final:
            found = judge.findings(self.ledger, final=final, concurrency=self.options.concurrency)
            self._judged = (version, found)
        return self._judged[1]

    def hang(self) -> dict[str, Any] | None:
        """Who waits for whom for ever, now; None if everybody can go on."""
        return explain.hang(self.ledger)

    def end_youngest(self, quiet_s: float = 0.0) -> list[str]:
        """End the youngest wait of a hang with `Deadlock`; what was done in words, or why nothing could be.

        Needs `Options.breaks`. Empty: nobody is stuck, or only for less than `quiet_s` seconds.
        """
        return breaking.end_youngest(self.ledger, quiet_s)

    def report(self, *, final: bool = False) -> dict[str, Any]:
        """The report as JSON has it: `risks` and `hang`."""
        risks = [finding.json() for finding in self.findings(final=final)]
        return {"risks": risks, "hang": self.hang()}

    def model(self) -> str | None:
        """The learned profile as a model file; None if nothing was learned."""
        return None if self.ledger.steps is None else self.ledger.steps.model()

    def _patch(self, name: str, module: ModuleType) -> None:
        if module is None or name in self._finder.done:
            return
        self._finder.done.add(name)
        patch = importlib.import_module(f"headway.watch.patches.{PATCHES[name]}")
        before = self._patcher.done
        try:
            patch.install(self._patcher)
        except (AttributeError, ImportError) as error:  # a version that has been rebuilt inside
            self._patcher.undo(before)
            log.warning("%s is not watched: this version is not known (%s)", name, error)

    def _collecting(self, phase: str, info: dict[str, int]) -> None:
        self.ledger.collecting = get_ident() if phase == "start" else 0

    def _forked(self) -> None:
        """The child of a fork has none of the parent's other threads: nobody holds or waits but us."""
        for pool in list(self.ledger.out):
            for holding in list(pool.out):
                if not holding.owner.alive():
                    self.ledger.drop(holding)
        self.ledger.waits.clear()


@final
class _Finder(importlib.abc.MetaPathFinder):
    """Lets the others find a module, and patches it when it has been executed."""

    def __init__(self, patch: Any, names: tuple[str, ...]) -> None:
        self._patch = patch
        self._names = names
        self._searching: set[str] = set()
        self.done: set[str] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if sys.meta_path[0] is not self and self in sys.meta_path:
            # Somebody stands before us: pytest's loader, which would give modules that we never see.
            sys.meta_path.remove(self)
            sys.meta_path.insert(0, self)
        if name not in self._names or name in self._searching:
            return None
        self._searching.add(name)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._searching.discard(name)
        if spec is None or spec.loader is None or not hasattr(spec.loader, "exec_module"):
            return None
        inner, run = spec.loader, spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            if (
                module.__name__ == name
            ):  # one loader may serve many: pytest's does, and that of a zip file
                self._patch(name, module)

        try:
            inner.exec_module = exec_module  # type: ignore[method-assign]
        except AttributeError:
            return None  # a loader that takes no attribute: this library goes unwatched
        return spec
