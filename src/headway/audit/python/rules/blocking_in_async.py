"""A wait in `async def` that stops the thread, and with it every task of the loop.

Decides by whether the wait parks a task or a thread. Whoever would give back is often a task of the same
loop, and does not run any more: then the wait never ends. A thread lock is judged only if an `await`
lies inside its hold; a few lines under a lock are no wait worth the name.
"""

from __future__ import annotations

from collections.abc import Iterator

from headway.audit.finding import Finding, Rule, Severity
from headway.audit.python.facts import Function, Module, Pool, Use
from headway.audit.python.program import Program
from headway.audit.python.shapes import Kind
from headway.audit.python.wording import COUNTED, LOCKS, finding, label, way

RULE = Rule(
    "blocking-in-async",
    "wait that blocks the thread inside async def",
    ("stops-the-loop", "lock-held-across-await", "slows-the-loop"),
    "error",
)
_WAITED = COUNTED | {Kind.QUEUE, Kind.EVENT, Kind.EXECUTOR, Kind.THREAD}


def find(program: Program) -> Iterator[Finding]:
    """One finding for each blocking wait of a coroutine."""
    for function, module in program.functions():
        if not function.is_async:
            continue
        for use in function.uses:
            pool = program.pools.get(use.place)
            if pool is not None and not pool.shape.awaits and use.waits:
                yield from _direct(module, function, use, pool)
        for call in function.calls:
            for reach in program.reach(call, module):
                pool = program.pools.get(reach.use.place)
                if pool is None or pool.shape.awaits or not reach.use.waits or reach.use.timed:
                    continue
                if reach.function.is_async or pool.kind not in COUNTED | {Kind.QUEUE}:
                    continue
                if reach.use.place in function.looked:
                    continue
                yield finding(
                    RULE, module, function, call.line, call.text, "slows-the-loop",
                    f"{label(pool)} is waited for{way(reach)}: meanwhile no task of this loop runs",
                    "run the call in a worker thread (`asyncio.to_thread`), or use the async face",
                    reach.evidence(module), "warning",
                )  # fmt: skip
                break


def _direct(module: Module, function: Function, use: Use, pool: Pool) -> Iterator[Finding]:
    name = label(pool)
    if pool.kind in LOCKS:
        if use.spans:
            yield finding(
                RULE, module, function, use.line, use.text, "lock-held-across-await",
                f"an await lies inside the hold of {name}: the next task that wants it stops the thread "
                "in which the holder would go on",
                "use asyncio.Lock, or end the hold before the await",
                [], "error",
            )  # fmt: skip
        return
    if pool.kind not in _WAITED:
        return
    verb = "takes" if use.takes else "waits for"
    unending = not use.timed and pool.kind is not Kind.THREAD  # a thread usually ends
    severity: Severity = "error" if unending else "warning"
    tail = "the task that would end the wait may be one of them" if unending else "until it ends"
    yield finding(
        RULE, module, function, use.line, use.text,
        "stops-the-loop" if unending else "slows-the-loop",
        f"{use.text} {verb} {name} by blocking the thread: no task of this loop runs meanwhile, and {tail}",
        "use the library's async face, or run the call in a worker thread (`asyncio.to_thread`)",
        [], severity,
    )  # fmt: skip
