"""A take or wait in `__del__`, in a weak reference's callback or in a signal handler.

Decides by whether the interrupted code can hold what is taken. A finaliser runs wherever the last
reference goes or the collector starts: also in a thread that holds that very lock. A lock made by the
object itself is safe in `__del__`, since a holder would still have a reference to it.
"""

from __future__ import annotations

from collections.abc import Iterator

from headway.audit.finding import Evidence, Finding, Rule, Severity
from headway.audit.python.facts import Call, Pool, Root, Use
from headway.audit.python.program import Program
from headway.audit.python.shapes import Kind
from headway.audit.python.wording import finding, label, way

RULE = Rule(
    "take-in-finaliser",
    "pool or lock taken in __del__, a weakref callback or a signal handler",
    ("waits-for-itself", "waits-anywhere"),
    "warning",
)


def find(program: Program) -> Iterator[Finding]:
    """One finding for each finaliser and pool."""
    for module in program.modules:
        for root in module.roots:
            found = program.resolve(root.ref)
            if found is None or found[0].is_async:
                continue
            function, home = found
            seen: set[str] = set()
            for use in function.uses:
                pool = program.pools.get(use.place)
                if pool is not None and use.place not in seen and _matters(root, use, pool):
                    seen.add(use.place)
                    yield _finding(program, module, root, home, use, pool, [], "")
            for call in function.calls:
                for reach in program.reach(call, home):
                    pool = program.pools.get(reach.use.place)
                    if pool is None or reach.use.place in seen:
                        continue
                    if _matters(root, reach.use, pool):
                        seen.add(reach.use.place)
                        yield _finding(
                            program, module, root, home, reach.use, pool,
                            reach.evidence(home), way(reach), call,
                        )  # fmt: skip


def _matters(root: Root, use: Use, pool: Pool) -> bool:
    if not use.waits or use.timed or pool.shape.awaits:
        return False
    if pool.kind in (Kind.REENTRANT, Kind.EXECUTOR, Kind.EVENT):
        return False
    if pool.kind is Kind.THREAD:
        return root.how == "__del__"
    own = use.place[0] == "i" and not pool.shared
    return not (own and root.how == "__del__")


def _finding(
    program: Program,
    module: object,
    root: Root,
    home: object,
    use: Use,
    pool: Pool,
    steps: list[Evidence],
    through: str,
    call: Call | None = None,
) -> Finding:
    found = program.resolve(root.ref)
    assert found is not None
    function, where = found
    name = label(pool)
    itself = pool.kind is Kind.LOCK
    severity: Severity = "error" if itself else "warning"
    who = "the collector" if root.how != "signal handler" else "the signal"
    what = (
        f"{who} may interrupt the thread that holds it, which then waits for itself"
        if itself
        else f"{who} may interrupt any thread, which then waits where nobody planned to"
    )
    return finding(
        RULE, where, function, call.line if call else use.line, call.text if call else use.text,
        "waits-for-itself" if itself else "waits-anywhere",
        f"{root.how} {function.name} takes {name}{through}: {what}",
        "only put the work into a queue.SimpleQueue (or a deque) here, and do it at a place of your choice",
        [Evidence(root.line, f"runs as {root.how}"), *steps], severity,
    )  # fmt: skip
