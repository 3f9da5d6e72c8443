"""A take outside of a context manager that some path does not give back.

Decides by the paths of one function (`track`): an exception between take and give that no `finally`
meets, a `return` that forgets, an element that goes out of sight. A function that only takes or only
gives back is half of a protocol, and is not judged.
"""

from __future__ import annotations

from collections.abc import Iterator

from headway.audit.finding import Evidence, Finding, Rule, Severity
from headway.audit.python.program import Program
from headway.audit.python.shapes import Kind
from headway.audit.python.wording import LOCKS, finding, label

RULE = Rule(
    "unmanaged-take",
    "pool taken outside of a context manager, and not given back on every path",
    ("lost-on-exception", "lost-on-return", "never-returned"),
    "warning",
)

_HOW = {
    "exception": (
        "lost-on-exception",
        "if line {at} raises, what {text} took is not given back",
    ),
    "return": ("lost-on-return", "line {at} returns without giving back what {text} took"),
    "never": ("never-returned", "nothing in this function gives back what {text} took"),
}


def find(program: Program) -> Iterator[Finding]:
    """One finding for each take that can be lost."""
    for function, module in program.functions():
        for loss in function.losses:
            pool = program.pools.get(loss.place)
            if pool is None or pool.kind in (Kind.QUEUE, Kind.EXECUTOR):
                continue
            if pool.place[0] == "l" and pool.kind is not Kind.POOL:
                continue  # a lock of one call ends with it
            verdict, words = _HOW[loss.how]
            severity: Severity = "error" if loss.how == "return" else "warning"
            name = label(pool)
            with_word = "async with" if pool.shape.awaits else "with"
            lease = sorted(pool.shape.leases - {"()"})
            after = f"{name} is smaller by one from then on"
            if pool.kind in LOCKS:
                after = f"nobody gets {name} from then on"
            held = f"{name}.{lease[0]}()" if lease else name
            yield finding(
                RULE, module, function, loss.line, loss.text, verdict,
                f"{words.format(at=loss.at, text=loss.text)}: {after}",
                f"use `{with_word} {held}:`, or give it back in a finally that starts right after the take",
                [Evidence(loss.line, "taken here"), Evidence(loss.at, f"lost here ({loss.how})")],
                severity,
            )  # fmt: skip
