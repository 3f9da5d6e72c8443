"""What happens when an allocation fails: every path from the call on which the result is the failure.

Decides which branches a failed result takes (NULL, an error pointer, a negative number), and
collects on each path what matters: second attempts with the mask they carry, another source for the
result, the same call again, a feature switched off, and what is handed to the caller. Judges
nothing; the rules do.

Idea: a depth-first walk over (step, what is known of variables). A value that is not known takes
both branches. At a second attempt the walk goes on as if that failed as well, so that the last
attempt is seen. Bound: at most LIMIT states for one site; then the walk says that it was cut.

Source: the method of the 2018 audit, done by hand there.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import NamedTuple

from headway.audit.csource import words
from headway.audit.csource.flow import Step
from headway.audit.csource.gfp import Mask, evaluate
from headway.audit.csource.masks import Analysis, Site, target_of
from headway.audit.csource.settled import settled
from headway.audit.csource.tree import (
    Expr,
    calls,
    identifiers,
    places,
    stripped,
)
from headway.audit.csource.values import (
    ERROR,
    FAILS,
    GOOD,
    NEGATIVE,
    NULL,
    ZERO,
    follows,
    holds,
    value_of,
)

__all__ = ["Attempt", "Ending", "Failure", "walk"]

LIMIT = 3000
Known = tuple[tuple[str, str], ...]
_TESTED = "?"  # known of a path: some test on it looked at the result


@dataclass(frozen=True, slots=True)
class Attempt:
    """A second try on a failure path."""

    line: int
    callee: str
    mask: Mask | None  # None: the call takes no mask
    same: bool  # the very same call again
    smaller: bool  # its size differs, or a variable in it changed on the way
    text: str


@dataclass(frozen=True, slots=True)
class Ending:
    """How one path ends."""

    kind: str  # fails, returns, void, on (the work goes on without), cut
    line: int
    text: str
    value: str  # what is handed up: null, error pointer, negative; else ""
    attempts: tuple[Attempt, ...]
    sources: tuple[tuple[int, str, bool], ...]  # line, what, whether a size shrinks with it
    off: tuple[tuple[int, str], ...]  # calls that switch a feature off


@dataclass(slots=True)
class Failure:
    """All endings of one failed call."""

    endings: list[Ending] = field(default_factory=list)
    tested: bool = False  # some test looks at the result
    ignored: bool = False  # nothing is done with the result
    used: list[tuple[int, str]] = field(default_factory=list)  # where a NULL is followed
    cut: bool = False


class _State(NamedTuple):
    step: int
    known: Known
    attempts: tuple[Attempt, ...] = ()
    sources: tuple[tuple[int, str, bool], ...] = ()
    off: tuple[tuple[int, str], ...] = ()
    changed: frozenset[str] = frozenset()


def walk(analysis: Analysis, site: Site, value: str = "") -> Failure:
    """Walk from this call with its result failed; ``value`` says how, if the caller knows."""
    return _Walk(analysis, site, value).run()


class _Walk:
    def __init__(self, analysis: Analysis, site: Site, value: str) -> None:
        self.analysis = analysis
        self.site = site
        self.steps = analysis.graph.steps
        self.out = Failure()
        self.value = value or self._value_of(site)
        self.targets = {site.target}

    def _value_of(self, site: Site) -> str:
        """What failure looks like: the type of the target, else how the call's name reads."""
        words_before = self.analysis.function.types.get(site.target, "")
        text = self.analysis.function.text
        if site.target and f"IS_ERR({site.target})" in text.replace(" ", ""):
            return ERROR
        if "*" in words_before:
            return NULL
        if words_before.split()[:1] in (["int"], ["ssize_t"], ["long"]):
            return NEGATIVE
        if not site.target and not words.is_allocator(site.call.op):
            return NEGATIVE
        if site.target == "return":
            kind = self.analysis.function.returns
            return NEGATIVE if kind == "int" else NULL
        return NULL

    def run(self) -> Failure:
        step = self.steps[self.site.step]
        known = settled(self.analysis, self.site)
        known[self.site.call.text] = self.value
        if self.site.target:
            known[self.site.target] = self.value
        if step.kind == "return":
            given = value_of(step.expr, known)
            kind = "fails" if given in FAILS or self.site.target == "return" else "returns"
            self._end(kind, step, given or self.value, _State(self.site.step, ()))
            return self.out
        self.out.ignored = step.kind == "do" and not self.site.target
        first = _State(self.site.step, ())
        if step.kind == "do" and step.expr is not None:
            known = self._effects(step, known)
        self._go(self._onward(step, known, first))
        return self.out

    def _go(self, stack: list[_State]) -> None:
        seen: set[tuple[int, Known, int, int]] = set()
        while stack:
            state = stack.pop()
            key = (state.step, state.known, len(state.attempts), len(state.sources))
            if key in seen:
                continue
            seen.add(key)
            if len(seen) > LIMIT:
                self.out.cut = True
                return
            stack.extend(self._visit(state))

    def _visit(self, state: _State) -> list[_State]:
        step = self.steps[state.step]
        if step.kind == "end":
            return []
        if step.kind == "join":
            return [state._replace(step=after) for after in step.then]
        known = dict(state.known)
        if step.expr is not None:
            state, done = self._events(step, state, known)
            if done:
                return []
            self._followed(step, known)
        if step.kind == "return":
            self._return(step, state, known)
            return []
        if step.kind == "do" and step.expr is not None:
            known = self._effects(step, known)
            changed = step.changes()
            if changed - state.changed:
                state = state._replace(changed=state.changed | changed)
        return self._onward(step, known, state)

    def _onward(self, step: Step, known: dict[str, str], state: _State) -> list[_State]:
        if step.kind != "test" or step.expr is None:
            packed = tuple(sorted(known.items()))
            return [state._replace(step=after, known=packed) for after in step.then]
        known = self._effects(step, known)
        changed = step.changes()
        state = state._replace(changed=state.changed | changed) if changed else state
        answer = holds(step.expr, known)
        known = dict(known)
        if answer is not None:
            self._note_test(step.expr, known)
        chosen = answer is None and step.expr.text in self.analysis.function.parameters
        out = []
        if answer is not False:
            yes = known | {step.expr.text: GOOD} if chosen else known
            packed = tuple(sorted(yes.items()))
            out += [state._replace(step=after, known=packed) for after in step.then]
        if answer is not True:
            no = known | {step.expr.text: ZERO} if chosen else known
            out.append(state._replace(step=step.other, known=tuple(sorted(no.items()))))
        return out

    def _note_test(self, expr: Expr, known: dict[str, str], handled: bool = True) -> None:
        if identifiers(expr) & _roots(self.targets):
            self.out.tested = self.out.tested or handled
            known[_TESTED] = GOOD

    def _followed(self, step: Step, known: dict[str, str]) -> None:
        """Note where the result is followed although, on this path, it is NULL."""
        assert step.expr is not None
        for name in self.targets:
            if known.get(name) == NULL and _TESTED not in known and follows(step.expr, name):
                place = (step.line, step.expr.text)
                if place not in self.out.used:
                    self.out.used.append(place)

    def _events(self, step: Step, state: _State, known: dict[str, str]) -> tuple[_State, bool]:
        """Second attempts, other sources and switches in one step."""
        assert step.expr is not None
        for call in step.calls():
            if words.ends_all(call.op):
                return state, True
            if call.op in ("BUG_ON", "VM_BUG_ON") and call.args:
                if holds(call.args[0], known) is True:
                    return state, True
                self._note_test(call, known)
            elif call.op.isupper() and any(_is_test(arg) for arg in call.args):
                self._note_test(call, known, handled=False)  # a macro that asserts
            if words.turns_off(call.op):
                state = state._replace(off=(*state.off, (step.line, call.op)))
            attempt = self._attempt(call, state)
            if attempt is not None:
                if len(state.attempts) >= 4 or attempt in state.attempts:
                    if attempt.same:
                        return state, True
                else:
                    state = state._replace(attempts=(*state.attempts, attempt))
                known[call.text] = self.value if attempt.same else NULL
        for one in step.sets():
            source = self._source(one, known, state.step)
            if source:
                shrinks = bool(self.sizes & _changed_near(self.steps, state.step))
                state = state._replace(sources=(*state.sources, (step.line, source, shrinks)))
        return state, False

    def _attempt(self, call: Expr, state: _State) -> Attempt | None:
        site = self.site
        if call is site.call:
            mask = (
                evaluate(
                    call.args[site.argument], self.analysis.at(state.step), self.analysis.known
                )
                if site.argument >= 0
                else None
            )
            smaller = bool(self.sizes & state.changed)
            return Attempt(call.line, call.op, mask, True, smaller, call.text)
        alike = call.op == site.call.op
        if not alike and not words.is_allocator(call.op):
            return None
        if self.analysis.graph.dominates(state.step, site.step):
            return None  # it came first, and comes again only because the whole is repeated
        expr = self.steps[state.step].expr
        target = target_of(expr, call)
        returned = (
            self.steps[state.step].kind == "return"
            and expr is not None
            and (stripped(expr) is call or expr is call)
        )
        if target not in self.targets and not returned and not (alike and not target):
            return None
        found = self.analysis.site_of(state.step, call)
        mask = found.mask if found is not None else None
        smaller = self._is_smaller(call, found, state)
        return Attempt(call.line, call.op, mask, False, smaller, call.text)

    def _is_smaller(self, call: Expr, found: Site | None, state: _State) -> bool:
        site = self.site
        if words.family(call.op) != words.family(site.call.op):
            return False
        if self.sizes & state.changed:
            return True
        mine = [a.text for n, a in enumerate(site.call.args) if n != site.argument]
        other = [a.text for n, a in enumerate(call.args) if found is None or n != found.argument]
        return mine != other

    @functools.cached_property
    def sizes(self) -> set[str]:
        """The variables in the call's arguments besides its mask."""
        names: set[str] = set()
        for place, arg in enumerate(self.site.call.args):
            if place != self.site.argument:
                names |= places(arg)
        # what the size was computed from counts as well: order = table[i]
        for step in self.steps:
            for one in step.sets():
                if one.args[0].text in names and one.op == "=" and one.args[1].kind != "call":
                    names = names | {name for name in places(one.args[1]) if not name.isupper()}
        return names - {self.site.target}

    def _source(self, one: Expr, known: dict[str, str], step: int) -> str:
        """Another place the result is taken from, if this assignment is one."""
        left, right = one.args
        if left.text not in self.targets or one.op != "=" or left.text == "return":
            return ""
        if any(words.is_allocator(call.op) for call in calls(right)) or right is self.site.call:
            return ""
        if self.site.call in calls(right) or self.analysis.graph.dominates(step, self.site.step):
            return ""
        value = value_of(right, known)
        copied = value in FAILS or value == ZERO or right.text in self.targets
        return "" if copied else right.text

    def _effects(self, step: Step, known: dict[str, str]) -> dict[str, str]:
        found = step.sets()
        bumped = step.updates()
        if not found and not bumped:
            return known
        known = dict(known)
        for one in found:
            name = one.args[0].text
            if self.site.call in calls(one.args[1]) and name in self.targets:
                known[name] = self.value
                continue
            value = value_of(one.args[1], known) if one.op == "=" else None
            if value is None:
                known.pop(name, None)
            else:
                known[name] = value
            if one.args[1].text in self.targets and one.op == "=":
                self.targets.add(name)
        for name in bumped:
            known.pop(name, None)
        return known

    def _return(self, step: Step, state: _State, known: dict[str, str]) -> None:
        if step.expr is None:
            kind = "void" if self.analysis.function.returns == "void" else "on"
            self._end(kind, step, "", state)
            return
        value = value_of(step.expr, known)
        if value == ZERO and self.analysis.function.returns in ("pointer", "long"):
            value = NULL
        if value == NULL and self.analysis.function.returns == "int":
            value = NEGATIVE if step.expr.text in self.targets else None
        if value in FAILS:
            self._end("fails", step, value or "", state)
        elif (
            state.attempts
            and step.expr.kind == "call"
            and any(a.text == c.text for a in state.attempts for c in step.calls())
        ):
            self._end("fails", step, NULL, state)
        else:
            self._end("returns", step, "", state)

    def _end(self, kind: str, step: Step, value: str, state: _State) -> None:
        text = step.expr.text if step.expr is not None else ""
        ending = Ending(kind, step.line, text, value, state.attempts, state.sources, state.off)
        if ending not in self.out.endings:
            self.out.endings.append(ending)


def _is_test(expr: Expr) -> bool:
    """Whether an expression can only be meant as a condition."""
    if expr.kind == "bin" and expr.op in ("&&", "||"):
        return any(_is_test(arg) for arg in expr.args)
    return expr.op == "!" if expr.kind == "un" else expr.kind == "bin" and expr.op in ("==", "!=")


def _roots(targets: set[str]) -> set[str]:
    return targets | {part for name in targets for part in name.replace("->", ".").split(".")}


def _changed_near(steps: list[Step], number: int) -> frozenset[str]:
    """What the next few steps assign: a smaller size often follows the smaller buffer."""
    out: frozenset[str] = frozenset()
    for _ in range(3):
        step = steps[number]
        if step.kind != "do" or step.expr is None or not step.then:
            break
        out |= step.changes()
        number = step.then[0]
    return out
