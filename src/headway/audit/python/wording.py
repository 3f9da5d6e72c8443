"""How the Python rules speak of pools and places: one wording for all of them."""

from __future__ import annotations

from headway.audit.finding import Evidence, Finding, Rule, Severity
from headway.audit.python.facts import Function, Held, Module, Pool
from headway.audit.python.program import Program, Reach
from headway.audit.python.shapes import Kind

LOCKS = frozenset({Kind.LOCK, Kind.REENTRANT})
COUNTED = frozenset({Kind.SEMAPHORE, Kind.LIMITER, Kind.POOL})


def label(pool: Pool) -> str:
    """The pool as the source calls it."""
    return pool.label or pool.place.rpartition(".")[2].rpartition("#")[2]


def held_at(held: Held, pool: Pool) -> Evidence:
    return Evidence(held.line, f"holds {label(pool)} from here")


def way(reach: Reach) -> str:
    """Through which calls, for a sentence: empty for none."""
    names = " -> ".join(call.text.partition("(")[0] for call, _ in reach.calls)
    return f" through {names}" if names else ""


def known(program: Program, held: list[Held]) -> list[tuple[Held, Pool]]:
    """Those whose pool is known."""
    return [(each, program.pools[each.place]) for each in held if each.place in program.pools]


def finding(
    rule: Rule,
    module: Module,
    function: Function,
    line: int,
    site: str,
    verdict: str,
    message: str,
    fix: str,
    evidence: list[Evidence],
    severity: Severity,
) -> Finding:
    """A finding; a note is no bug."""
    return Finding(
        module.path, line, function.name, rule.id, verdict, severity != "note", message, fix,
        tuple(evidence), severity, site, (function.line, function.end),
    )  # fmt: skip
