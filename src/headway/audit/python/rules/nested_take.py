"""A second take of a pool while its first element is held.

Decides by what is surely held, in one function or through the calls it makes. A lock hangs at once. A
pool of n hangs when n callers are between their two takes at the same time: n*(m-1)+1 elements would
be needed for n callers with m takes each, so no size that ignores the callers is safe. With a time-out
the hang is an error after a while.
"""

from __future__ import annotations

from collections.abc import Iterator

from headway.audit.finding import Evidence, Finding, Rule, Severity
from headway.audit.python.facts import Function, Held, Module, Pool, Use
from headway.audit.python.program import Program
from headway.audit.python.shapes import Kind
from headway.audit.python.wording import finding, held_at, label, way

RULE = Rule(
    "nested-take",
    "pool taken again while an element of it is held",
    ("hangs", "raises", "hangs-under-load", "fails-under-load"),
    "error",
)
_MANY = 50  # a pool this large is rarely meant to be shared to the last element


def find(program: Program) -> Iterator[Finding]:
    """One finding for each second take."""
    for function, module in program.functions():
        for use in function.uses:
            pool = program.pools.get(use.place)
            if pool is None or not use.takes or not use.waits:
                continue
            first = _same(program.held(use.held), use.place)
            if first is not None and (
                _is_private(pool, use, first, function) or _of_others(use, first, function)
            ):
                continue
            if first is not None:
                if _judge(pool, use):
                    yield _finding(module, function, use.line, use.text, pool, use, [first], [], "")
            elif use.loop and pool.kind is Kind.POOL:
                yield _loop(module, function, use, pool)
        yield from _through_calls(program, function, module)


def _is_private(pool: Pool, use: Use, first: Held, function: Function) -> bool:
    """A pool of one call: a lock taken by hand is a signal, and a count that is not used up never waits."""
    if pool.place[0] != "l":
        return False
    if pool.kind is Kind.LOCK:
        by_hand = any(
            each.line == first.line and ".acquire(" in each.text for each in function.uses
        )
        return by_hand or ".acquire(" in use.text
    held = sum(1 for each in use.held if each.place == use.place)
    return pool.size is not None and held < pool.size


def _of_others(use: Use, first: Held, function: Function) -> bool:
    """`self.one.lock` and `self.other.lock`: locks of two objects of one class."""
    before = [each.text for each in function.uses if (each.place, each.line) == first]
    texts = [text.removesuffix(".acquire()") for text in (use.text, *before[:1])]
    return len(set(texts)) > 1 and all(text.count(".") > 1 for text in texts)


def _same(held: list[Held], place: str) -> Held | None:
    return next((each for each in reversed(held) if each.place == place), None)


def _through_calls(program: Program, function: Function, module: Module) -> Iterator[Finding]:
    for call in function.calls:
        held = program.held(call.held)
        if not held:
            continue
        seen: set[str] = set()
        for reach in program.reach(call, module):
            first = _same(held, reach.use.place)
            pool = program.pools.get(reach.use.place)
            if first is None or pool is None or not reach.use.takes or not reach.use.waits:
                continue
            if reach.use.restores:
                continue  # it gave the caller's hold back first
            if reach.use.place in seen or _judge(pool, reach.use) is None:
                continue
            seen.add(reach.use.place)
            yield _finding(
                module, function, call.line, call.text, pool, reach.use,
                [first], reach.evidence(module), way(reach),
            )  # fmt: skip


def _judge(pool: Pool, use: Use) -> tuple[str, str, Severity] | None:
    """Verdict, what happens, severity; None if nothing does."""
    size = pool.size
    match pool.kind:
        case Kind.LOCK:
            if use.timed:
                return "fails-under-load", "the second take can only time out", "error"
            return "hangs", "it has one holder, and waits for itself", "error"
        case Kind.LIMITER:
            return "raises", "one borrower may hold one token", "error"
        case Kind.SEMAPHORE | Kind.POOL:
            if size == 0:
                return None  # a signal: its first take is somebody else's release
            if size == 1 and not use.timed:
                return "hangs", "it has one element, and waits for itself", "error"
            count = "as many callers as it has elements" if size is None else f"{size} callers"
            if use.timed:
                severity: Severity = "note" if size is not None and size >= _MANY else "warning"
                return (
                    "fails-under-load",
                    f"{count} at once wait for each other until they time out",
                    severity,
                )
            return "hangs-under-load", f"{count} at once wait for each other for ever", "error"
        case _:
            return None


def _finding(
    module: Module,
    function: Function,
    line: int,
    site: str,
    pool: Pool,
    use: Use,
    first: list[Held],
    steps: list[Evidence],
    through: str,
) -> Finding:
    judged = _judge(pool, use)
    name = label(pool)
    verdict, what, severity = judged or ("hangs", "it is held already", "note")
    if through and use.guarded:
        severity = (
            "note"  # a double-checked lock: whoever holds it has filled what the callee looks for
        )
    fix = f"take {name} once and pass the element on"
    if pool.kind is Kind.LOCK:
        fix = "split off a part that expects the lock to be held, and call that"
    elif pool.kind in (Kind.POOL, Kind.SEMAPHORE):
        fix += ", or take the second from a pool of its own"
    steps = steps or [Evidence(use.line, f"takes {use.text}")]
    return finding(
        RULE, module, function, line, site, verdict,
        f"{name} is taken again{through} while the take in line {first[0].line} is held: {what}",
        fix, [held_at(first[0], pool), *steps], severity,
    )  # fmt: skip


def _loop(module: Module, function: Function, use: Use, pool: Pool) -> Finding:
    name = label(pool)
    verdict: str = "fails-under-load" if use.timed else "hangs-under-load"
    return finding(
        RULE, module, function, use.line, use.text, verdict,
        f"a loop collects elements of {name} one by one: each is held while the next is waited for",
        "take them all in one bulk request, or give each back before the next",
        [Evidence(use.line, f"takes {use.text}, and keeps it for the next round")],
        "warning",
    )  # fmt: skip
