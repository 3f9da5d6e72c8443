"""The files of a program, joined: who calls whom, and what a call reaches.

Decides what a name in one file means in another, through re-exports and base classes, and which takes
and waits a function reaches through calls that run at once. Judges nothing.

A place on `self` is the same place only as long as the calls stay on the same `self`; a parameter
is what the caller passes; a local is one for each call. What is behind a call that cannot be
resolved is not there: the rules find less, and not wrongly more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from headway.audit.finding import Evidence
from headway.audit.python.facts import Call, Function, Held, Module, Pool, Use

_DEEP = 5  # calls; what is further away is not the reader's idea of this function


@dataclass(frozen=True, slots=True)
class Reach:
    """A take or wait, and the calls that lead there, outermost first."""

    use: Use
    function: Function
    module: Module
    calls: tuple[tuple[Call, Module], ...]

    def evidence(self, home: Module) -> list[Evidence]:
        """The way there, line by line."""
        steps = [
            Evidence(call.line, f"calls {call.text}", _elsewhere(module, home))
            for call, module in self.calls
        ]
        verb = "takes" if self.use.takes else "waits in"
        last = Evidence(self.use.line, f"{verb} {self.use.text}", _elsewhere(self.module, home))
        return [*steps, last]


def _elsewhere(module: Module, home: Module) -> str:
    return "" if module is home else module.path


class Program:
    """All files that were read."""

    def __init__(self, modules: Iterable[Module]) -> None:
        self.modules = sorted(modules, key=lambda module: module.path)
        self._named: dict[str, Module] = {}
        self._functions: dict[str, tuple[Function, Module]] = {}
        self._bases: dict[str, tuple[str, ...]] = {}
        self.pools: dict[str, Pool] = {}
        for module in self.modules:
            self._named.setdefault(module.name, module)
            for ref, function in module.functions.items():
                self._functions.setdefault(ref, (function, module))
            for ref, found in module.classes.items():
                self._bases.setdefault(ref, found.bases)
            for place, pool in module.pools.items():
                self.pools.setdefault(place, pool)
        self._resolved: dict[str, tuple[Function, Module] | None] = {}
        self._touching = self._touch()

    def functions(self) -> Iterator[tuple[Function, Module]]:
        for module in self.modules:
            for function in module.functions.values():
                yield function, module

    # --- names

    def resolve(self, target: str) -> tuple[Function, Module] | None:
        """The function that a call's target names, if it was read."""
        if target not in self._resolved:
            self._resolved[target] = None  # a circle of re-exports ends here
            self._resolved[target] = self._find(target, 0)
        return self._resolved[target]

    def _find(self, target: str, depth: int) -> tuple[Function, Module] | None:
        if depth > 8:
            return None
        if target.startswith("super:"):
            owner, _, method = target[6:].rpartition(".")
            return self._inherited(owner, method, depth)
        found = self._functions.get(target)
        if found is not None:
            return found
        if target in self._bases:
            return self._find(f"{target}.__init__", depth + 1)
        owner, _, method = target.rpartition(".")
        if owner in self._bases:
            return self._inherited(owner, method, depth)
        actual = self._through_import(target)
        return self._find(actual, depth + 1) if actual else None

    def _inherited(self, owner: str, method: str, depth: int) -> tuple[Function, Module] | None:
        for base in self._bases.get(owner, ()):
            found = self._find(f"{base}.{method}", depth + 1)
            if found is not None:
                return found
        return None

    def _through_import(self, target: str) -> str:
        """`pkg.name` where `pkg/__init__.py` imports `name` from below."""
        parts = target.split(".")
        for cut in range(len(parts) - 1, 0, -1):
            module = self._named.get(".".join(parts[:cut]))
            if module is not None:
                source = module.imports.get(parts[cut], "")
                actual = ".".join([source, *parts[cut + 1 :]])
                return actual if source and actual != target else ""
        return ""

    # --- what is held

    def held(self, held: tuple[Held, ...], depth: int = 0) -> list[Held]:
        """With the project's context managers replaced by what they hold."""
        found: list[Held] = []
        for each in held:
            if not each.place.startswith("@"):
                found.append(each)
                continue
            behind = self.resolve(each.place[1:])
            if behind is None or depth > 3:
                continue
            inside = self.held(behind[0].yields or behind[0].leased, depth + 1)
            found += [Held(one.place, each.line) for one in inside if one.place[0] in "gi"]
        return found

    # --- what is reached

    def callee(self, call: Call) -> tuple[Function, Module] | None:
        """Whom this call runs before it returns."""
        found = self.resolve(call.target)
        if found is None:
            return None
        function = found[0]
        if function.is_async and not call.awaited and not call.entered:
            return None  # a coroutine that somebody else runs
        if function.yields is not None and not call.entered:
            return None  # a generator runs when it is asked
        return found

    def _touch(self) -> frozenset[str]:
        """The functions from which a take or wait can be reached at all."""
        callers: dict[str, list[str]] = {}
        start: list[str] = []
        for function, _ in self.functions():
            if function.uses:
                start.append(function.ref)
            for call in function.calls:
                found = self.callee(call)
                if found is not None:
                    callers.setdefault(found[0].ref, []).append(function.ref)
        seen = set(start)
        while start:
            for caller in callers.get(start.pop(), ()):
                if caller not in seen:
                    seen.add(caller)
                    start.append(caller)
        return frozenset(seen)

    def reach(self, call: Call, module: Module) -> list[Reach]:
        """What this call takes or waits for before it returns, as the caller sees it."""
        return list(self._reach(call, module, frozenset(), 0))

    def _reach(
        self, call: Call, module: Module, seen: frozenset[str], depth: int
    ) -> Iterator[Reach]:
        found = self.callee(call)
        if found is None or depth >= _DEEP:
            return
        function, home = found
        if function.ref in seen or function.ref not in self._touching:
            return
        seen = seen | {function.ref}
        for use in function.uses:
            if not set(use.tests) & set(call.given):
                yield from self._from_outside(
                    call, function, Reach(use, function, home, ()), module
                )
        for inner in function.calls:
            if set(inner.tests) & set(call.given):
                continue  # whether it happens depends on what this caller says
            for far in self._reach(inner, home, seen, depth + 1):
                if far.use.place in function.looked:
                    continue  # it asks for the length before it calls
                yield from self._from_outside(call, function, far, module)

    def _from_outside(
        self, call: Call, function: Function, reach: Reach, module: Module
    ) -> Iterator[Reach]:
        place = reach.use.place
        if place.startswith("p|"):
            if not place.startswith(f"p|{function.ref}#"):
                return
            name = place.rpartition("#")[2]
            position = function.parameters.index(name) if name in function.parameters else -1
            passed = dict(call.passed)
            place = passed.get(name) or passed.get(str(position)) or ""
        elif place.startswith("i|") and not call.same:
            if function.ref.rpartition(".")[0] in self._bases:
                return  # a method of another object; a plain function has only the one object of all
        elif place.startswith(f"l|{function.ref}."):
            return
        if place:
            use = replace(reach.use, place=place, timed=reach.use.timed or call.timed)
            yield replace(reach, use=use, calls=((call, module), *reach.calls))
