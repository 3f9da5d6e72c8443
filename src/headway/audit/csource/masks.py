"""Which mask each variable holds at each step of a function.

Decides where a call takes a mask, and what the mask says there: the forward analysis over the graph
of `flow`. Variables are mask variables if they are declared so, are assigned a mask word, or are
assigned another mask variable. Reaches its fixed point because sure bits only leave and possible
bits only come; each step is seen at most (bits + 1) times, in practice twice.

Source: textbook forward data flow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from headway.audit.csource.flow import Flow, Step, flow
from headway.audit.csource.functions import Function
from headway.audit.csource.gfp import UNKNOWN, Mask, evaluate, is_word
from headway.audit.csource.tree import Expr
from headway.audit.csource.words import Purpose

__all__ = ["Analysis", "Site", "analyse", "takes_mask"]

_PREDICATES = (
    "gfpflags_", "gfp_", "trace_", "pr_", "dev_", "WARN", "BUG", "VM_", "might_", "lockdep_",
    "fs_reclaim", "printk", "IS_ENABLED", "mapping_set", "sprintf", "snprintf", "ACCESS", "READ_",
    "WRITE_", "current_gfp", "__print_flags", "BUILD_BUG", "min", "max", "sizeof",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Site:
    """A call that takes a mask."""

    step: int
    call: Expr
    mask: Mask
    argument: int  # which argument is the mask
    target: str  # what the result is assigned to; "" if to nothing, "return" if returned at once


class Analysis:
    """A function with its graph, its masks, and its sites."""

    def __init__(
        self,
        function: Function,
        known: Mapping[str, Mask],
        purposes: tuple[Purpose, ...] = (),
    ) -> None:
        self.function = function
        self.known = known
        self.purposes = purposes  # the project's own, for which failure is fine
        self.graph: Flow = flow(function.body, function.end)
        self.variables = _mask_variables(function, self.graph, known)
        self.before: list[dict[str, Mask] | None] = _forward(
            self.graph, self.variables, known, function.parameters
        )
        self.sites: list[Site] = list(self._sites())

    def at(self, step: int) -> Mapping[str, Mask]:
        """The masks of all variables before a step."""
        return self.before[step] or {}

    def _sites(self) -> Iterator[Site]:
        for number, step in enumerate(self.graph.steps):
            if step.expr is None:
                continue
            for call in step.calls():
                site = self.site_of(number, call)
                if site is not None:
                    yield site

    def site_of(self, number: int, call: Expr) -> Site | None:
        """The call as a site, if it takes a mask."""
        if call.op.startswith(_PREDICATES) or call.op in self.known:
            return None
        env = self.at(number)
        for place, argument in enumerate(call.args):
            if takes_mask(argument, self.variables, self.known):
                mask = evaluate(argument, env, self.known)
                target = target_of(self.graph.steps[number].expr, call)
                if not target and self.graph.steps[number].kind == "return":
                    target = "return"
                return Site(number, call, mask, place, target or _declared(call, self.function))
        return None


def takes_mask(expr: Expr, variables: set[str], known: Mapping[str, Mask]) -> bool:
    """Whether an argument is a mask: made of words, mask variables, mask macros."""
    if expr.kind in ("id", "field", "index"):
        return expr.text in variables or expr.text in known or is_word(expr.text)
    if expr.kind == "call":
        return expr.op in known
    if expr.kind == "bin" and expr.op in ("|", "&"):
        return any(takes_mask(arg, variables, known) for arg in expr.args)
    if expr.kind == "cond":
        return any(takes_mask(arg, variables, known) for arg in expr.args[1:])
    return False


def target_of(expr: Expr | None, call: Expr) -> str:
    """What the result of a call inside this expression is assigned to."""
    if expr is None:
        return ""
    if expr.kind == "set" and expr.op == "=" and _is_value(expr.args[1], call):
        return expr.args[0].text
    for arg in expr.args:
        found = target_of(arg, call)
        if found:
            return found
    return ""


def _is_value(expr: Expr, call: Expr) -> bool:
    """Whether the expression's value is the call's result, perhaps one of two."""
    if expr is call:
        return True
    if expr.kind == "cond":
        return any(_is_value(arg, call) for arg in expr.args[1:])
    return expr.kind == "set" and _is_value(expr.args[1], call)


def _declared(call: Expr, function: Function) -> str:
    """`NAME_ALLOC(type, result, flags)`: a macro that declares what it allocates."""
    if not call.op.isupper():
        return ""
    for arg in call.args[-2::-1] if len(call.args) > 1 else call.args:
        if arg.kind == "id" and arg.text not in function.types and not arg.text.isupper():
            return arg.text
    return ""


def _mask_variables(function: Function, graph: Flow, known: Mapping[str, Mask]) -> set[str]:
    found = {name for name, words in function.types.items() if "gfp_t" in words}
    sets = [found_set for step in graph.steps if step.expr is not None for found_set in step.sets()]
    for _ in range(2):
        for one in sets:
            if takes_mask(one.args[1], found, known):
                found.add(one.args[0].text)
    return found


def _forward(
    graph: Flow, variables: set[str], known: Mapping[str, Mask], parameters: tuple[str, ...]
) -> list[dict[str, Mask] | None]:
    before: list[dict[str, Mask] | None] = [None] * len(graph.steps)
    _spread(graph, variables, known, before, graph.start)
    for number, step in enumerate(graph.steps):  # what only another arm of an #if reaches
        if before[number] is None and step.expr is not None:
            _spread(graph, variables, known, before, number)
    return before


def _spread(
    graph: Flow,
    variables: set[str],
    known: Mapping[str, Mask],
    before: list[dict[str, Mask] | None],
    first: int,
) -> None:
    before[first] = before[first] or {}
    work = [first]
    while work:
        number = work.pop()
        step = graph.steps[number]
        state = before[number] or {}
        if step.expr is not None and variables:
            state = _after(step, state, variables, known)
        for after in step.next():
            old = before[after]
            merged = state if old is None else _merge(old, state)
            if old is None or merged != old:
                before[after] = merged
                work.append(after)


def _after(
    step: Step, state: dict[str, Mask], variables: set[str], known: Mapping[str, Mask]
) -> dict[str, Mask]:
    for one in step.sets():
        name = one.args[0].text
        if name in variables:
            state = {**state, name: evaluate(one, state, known)}
    for call in step.calls():
        for arg in call.args:
            if arg.kind == "un" and arg.op == "&" and arg.args[0].text in variables:
                state = {**state, arg.args[0].text: UNKNOWN}
    return state


def _merge(one: dict[str, Mask], two: dict[str, Mask]) -> dict[str, Mask]:
    if one == two:
        return one
    return {
        name: one.get(name, UNKNOWN).joined(two.get(name, UNKNOWN))
        for name in sorted({**one, **two})
    }


def analyse(function: Function, known: Mapping[str, Mask]) -> Analysis:
    """The function with its masks."""
    return Analysis(function, known)
