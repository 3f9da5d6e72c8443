"""A task that waits for another task of the executor it runs in.

Decides by what is submitted to which executor, through the calls a task makes. With n workers, n such
tasks wait for tasks that stand behind them in the queue. An executor made inside the task is another
one for each task, and is no finding.
"""

from __future__ import annotations

from collections.abc import Iterator

from headway.audit.finding import Evidence, Finding, Rule, Severity
from headway.audit.python.facts import Function, Module, Pool, Submit, Use
from headway.audit.python.program import Program
from headway.audit.python.shapes import Kind
from headway.audit.python.wording import finding, label, way

RULE = Rule(
    "own-worker",
    "task that waits for a result of the executor it runs in",
    ("hangs-under-load", "hangs"),
    "error",
)


def find(program: Program) -> Iterator[Finding]:
    """One finding for each such wait."""
    seen: set[tuple[str, int]] = set()
    for submitter, module in program.functions():
        for submit in submitter.submits:
            pool = program.pools.get(submit.place)
            found = program.resolve(submit.target)
            if pool is None or found is None or pool.kind is not Kind.EXECUTOR:
                continue
            work, home = found
            if submit.place.startswith(f"l|{work.ref}."):
                continue
            for use in work.uses:
                if _waits(use, submit) and (home.path, use.line) not in seen:
                    seen.add((home.path, use.line))
                    yield _finding(
                        pool, submitter, module, submit, work, home, use.line, use, "", []
                    )
            for call in work.calls:
                for reach in program.reach(call, home):
                    if _waits(reach.use, submit) and (home.path, call.line) not in seen:
                        seen.add((home.path, call.line))
                        yield _finding(
                            pool, submitter, module, submit, work, home, call.line, reach.use,
                            way(reach), reach.evidence(home),
                        )  # fmt: skip


def _waits(use: Use, submit: Submit) -> bool:
    return use.place == submit.place and not use.takes and use.waits and not use.timed


def _finding(
    pool: Pool,
    submitter: Function,
    module: Module,
    submit: Submit,
    work: Function,
    home: Module,
    line: int,
    use: Use,
    through: str,
    steps: list[Evidence],
) -> Finding:
    name = label(pool)
    count = "as many tasks as it has workers" if pool.size is None else f"{pool.size} such tasks"
    severity: Severity = "error"
    away = "" if module is home else module.path
    return finding(
        RULE, home, work, line, use.text, "hangs" if pool.size == 1 else "hangs-under-load",
        f"{work.name} runs in {name} and waits there{through} for another of its tasks: "
        f"{count}, and all workers wait for work that no worker is left to do",
        "return the future and let the submitter wait, or use a second executor for the inner tasks",
        [Evidence(submit.line, f"{submitter.name or 'the module'} submits {work.name}", away), *steps],
        severity,
    )  # fmt: skip
