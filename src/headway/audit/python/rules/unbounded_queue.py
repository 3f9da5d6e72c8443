"""A queue without a limit in front of a pool that has one.

Decides by the consumer: it gets from the queue and then takes from a pool or a limiter. When the pool is
the bottleneck the queue grows without end, since nothing tells the producer to wait. A note: for a
known number of items it is harmless.
"""

from __future__ import annotations

from collections.abc import Iterator

from headway.audit.finding import Evidence, Finding, Rule, Severity
from headway.audit.python.facts import Use
from headway.audit.python.program import Program
from headway.audit.python.shapes import Kind
from headway.audit.python.wording import COUNTED, finding, label

RULE = Rule(
    "unbounded-queue",
    "queue without a limit in front of a pool",
    ("grows-without-limit",),
    "warning",
)


def find(program: Program) -> Iterator[Finding]:
    """One finding for each queue."""
    puts: dict[str, list[tuple[str, int, bool]]] = {}
    for module in program.modules:
        for place, lines in module.puts.items():
            puts.setdefault(place, []).extend((module.path, *each) for each in lines)
    seen: set[str] = set()
    for function, module in program.functions():
        for use in function.uses:
            queue = program.pools.get(use.place)
            if queue is None or queue.kind is not Kind.QUEUE or queue.bounded or queue.shared:
                continue
            if use.place in seen or ".get(" not in use.text or use.place not in puts:
                continue
            taken = _next_take(program, function.uses, use)
            if taken is None:
                for call in function.calls:
                    if call.line <= use.line or taken is not None:
                        continue
                    for reach in program.reach(call, module):
                        if _counted(program, reach.use):
                            taken = (call.line, reach.use)
                            break
            if taken is None:
                continue
            seen.add(use.place)
            line, behind = taken
            pool = program.pools[behind.place]
            loops = any(loop for _, _, loop in puts[use.place])
            severity: Severity = "warning" if loops else "note"
            path, put, _ = puts[use.place][0]
            yield finding(
                RULE, module, function, use.line, use.text, "grows-without-limit",
                f"{label(queue)} has no limit, and what is taken from it then waits for {label(pool)}: "
                "when that is slower than the producer, the queue grows until memory is out",
                f"give {label(queue)} a maxsize, about as large as {label(pool)}",
                [
                    Evidence(queue.line, "made without a limit"),
                    Evidence(put, "filled here", "" if path == module.path else path),
                    Evidence(line, f"then waits for {label(pool)}"),
                ],
                severity,
            )  # fmt: skip


def _counted(program: Program, use: Use) -> bool:
    pool = program.pools.get(use.place)
    return pool is not None and use.takes and use.waits and pool.kind in COUNTED


def _next_take(program: Program, uses: list[Use], get: Use) -> tuple[int, Use] | None:
    for use in uses:
        if use.line > get.line and _counted(program, use):
            return use.line, use
    return None
