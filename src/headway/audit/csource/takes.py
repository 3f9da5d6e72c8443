"""Takes from pools and bio sets: which calls they are, and when an element is no longer held.

Decides what counts as a waiting take, which call gives an element away (by its name, or because it
is told a function to call when it is done), and where a test says that there is none.

Source: include/linux/mempool.h and include/linux/bio.h of Linux 4.17 and 6.12.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from headway.audit.csource.flow import Flow, Step
from headway.audit.csource.gfp import Mask
from headway.audit.csource.masks import Analysis, target_of
from headway.audit.csource.tree import Expr, calls, identifiers
from headway.audit.csource.values import GOOD, holds

__all__ = ["Take", "gives", "locked", "takes", "while_held"]

_POOL_ARGUMENT = {
    "mempool_alloc": 0,
    "bio_alloc_bioset": -1,
    "bio_split": -1,
    "bio_alloc_clone": -1,
    "bio_clone_fast": -1,
}
_GIVES_UP = re.compile(
    r"submit|free|(^|_)put(_|$)|dispatch|issue|queue|complete|end_?io|make_request|send|flush|"
    r"bio_endio|_done$|release|destroy|(^|_)end(_|$)"
)
_MOVES = re.compile(r"(^|_)(read|write|copy|plug)(_|$)|journal")  # if they are given the element
_DONE = re.compile(r"(end_?io|complete|done|callback|_cb)\w*$")  # a function told with the element
_LOCKS = re.compile(r"^mutex_lock|^down(_write)?$|^down_interruptible$")


@dataclass(frozen=True, slots=True)
class Take:
    """A call that waits for an element."""

    step: int
    call: Expr
    pool: str
    target: str


def takes(analysis: Analysis) -> list[Take]:
    """The waiting takes of a function."""
    out = []
    for number, step in enumerate(analysis.graph.steps):
        for call in step.calls():
            place = _POOL_ARGUMENT.get(call.op)
            if place is None or len(call.args) < 2:
                continue
            site = analysis.site_of(number, call)
            mask = site.mask if site is not None else Mask()
            if mask.holds("__GFP_DIRECT_RECLAIM") is True:
                pool = call.args[place].text
                if pool not in ("NULL", "0") and not _given_at_once(step, call):
                    out.append(Take(number, call, pool, _target(step, call)))
    return out


def _given_at_once(step: Step, call: Expr) -> bool:
    """``mempool_free(mempool_alloc(pool, mask), pool)``: nothing is held."""
    return any(
        call in calls(arg)
        for outer in step.calls()
        if _GIVES_UP.search(outer.op)
        for arg in outer.args
    )


def _target(step: Step, call: Expr) -> str:
    """What the element is assigned to, perhaps through a function that sets it up."""
    found = target_of(step.expr, call)
    if not found and step.expr is not None and step.expr.kind == "set":
        return step.expr.args[0].text
    return found


def locked(graph: Flow, at: int) -> bool:
    """Whether a mutex is taken on every way to the take."""
    for number, step in enumerate(graph.steps):
        if any(_LOCKS.match(call.op) for call in step.calls()) and graph.dominates(number, at):
            return True
    return False


def gives(call: Expr, take: Take, analysis: Analysis) -> bool:
    """Whether this call gives the element away: by its name, or with a function to call when done."""
    if _GIVES_UP.search(call.op):
        return True
    texts = [arg.text for arg in call.args]
    if not any(take.target in identifiers(arg) for arg in call.args):
        return False
    known = analysis.function.types
    return bool(_MOVES.search(call.op) or any("pending" in text for text in texts)) or any(
        _DONE.search(text) and text not in known for text in texts
    )


def while_held(step: Step, target: str) -> list[int]:
    """Where it goes on with an element in hand: not where the test says that there is none."""
    if step.kind == "test" and step.expr is not None and target:
        holds_so = holds(step.expr, {target: GOOD})
        if holds_so is not None:
            return step.then if holds_so else [step.other]
    return step.next()
