"""What a check says, for people and for machines: the finding, the evidence, and how to see it again.

It does not search or judge. A trace has one line for each operation: who took what from which pool,
who waits for what. The last line is the command that repeats the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

from headway.checker.ledger import Entry
from headway.core.units import format_size

_HOW = {
    "model": "the model, by counts of alike tasks",
    "counts": "real code, learned and searched by counts of alike tasks",
    "sums": "real code, learned, and added up what its tasks can hold at once",
    "branches": "real code, learned result by result and searched by states",
    "recurring": "the model as code on the real pools, by states",
    "schedules": "real code, schedule by schedule",
}


@final
@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of one check; `json` gives it in the shape the command prints."""

    target: str
    verdict: str
    reason: str
    stuck: tuple[str, ...] = ()
    complete: bool = False
    schedules: int = 0
    states: int = 0
    trace: tuple[Entry, ...] = ()
    replay: str | None = None
    min_reserve: dict[str, int | None] = field(default_factory=dict)
    release: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    method: str = "counts"  # a key of `_HOW`
    why: str = ""  # why not by counts
    repeats: int = 0  # how many lines at the end of the trace come again for ever
    assumed: tuple[str, ...] = ()
    in_bytes: tuple[str, ...] = ()  # pools whose sizes are bytes
    alone: tuple[
        str, ...
    ] = ()  # pools whose smallest safe size is enough with the others as they are

    @property
    def is_undecided(self) -> bool:
        """Whether nothing was found, and not all was seen. One schedule that was asked for is all there was to see."""
        return self.verdict == "ok" and not self.complete and self.replay is None

    @property
    def shown(self) -> str:
        """The verdict for people, to whom *ok* says that all was seen."""
        return "undecided" if self.is_undecided else self.verdict

    def json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "stuck": list(self.stuck),
            "complete": self.complete,
            "schedules": self.schedules,
            "states": self.states,
            "trace": [
                {"task": e.task, "op": e.op, "pool": e.pool, "n": e.n, "result": e.result}
                for e in self.trace
            ],
            "replay": self.replay,
            "min_reserve": {name: n for name, n in self.min_reserve.items() if n is not None},
        }

    def text(self) -> str:
        """The finding first, the evidence under it, the command that repeats it last."""
        lines = [f"{self.shown}: {self.reason}"]
        width = max((len(entry.task) for entry in self.trace), default=0)
        round_from = len(self.trace) - self.repeats if self.repeats else -1
        for number, entry in enumerate(self.trace):
            if number == round_from:
                lines.append("  and from here round and round:")
            lines.append(f"  {number + 1:2}  {entry.task:<{width}}  {said(entry)}")
        lines += [f"  {release}" for release in self.release]
        return "\n".join([*lines, *self.after()])

    def after(self) -> list[str]:
        """What is said after the finding: sizes, what was seen and taken for granted, how to see it again."""
        lines = []
        either = [n for n in self.alone if (self.min_reserve.get(n) or 0) > self.counts.get(n, 0)]
        if len(either) > 1:
            sizes = ", or of ".join(self._size(name) for name in either)
            enough = "either" if len(either) == 2 else "any one of these"
            lines.append(f"smallest safe size of {sizes}; {enough} is enough")
        for name, size in self.min_reserve.items():
            if size is None:
                lines.append(
                    f"smallest safe size of {name}: none found within the schedules allowed"
                )
            elif len(either) < 2 or name not in either:
                lines.append(f"smallest safe size of {self._size(name)}")
        seen = "that is all of them" if self.complete else "not all of them"
        if self.verdict != "ok":
            seen = "the search ends with the first finding"
        runs, states = _count(self.schedules, "run"), _count(self.states, "state")
        if self.method == "sums":
            seen = "no state had to be searched"
            lines.append(f"{_HOW[self.method]}: {runs}; {seen}")
        else:
            lines.append(f"{_HOW[self.method]}: {runs}, {states}; {seen}")
        if self.why:
            lines.append(f"not by counts: {self.why}")
        lines += [f"assumed: {assumed}" for assumed in self.assumed]
        lines += [f"note: {note}" for note in self.notes]
        if self.verdict != "ok" and self.replay is not None:
            target = self.target or "TARGET"
            lines.append(f"again: headway check {target} --replay {self.replay}")
        return lines

    def _size(self, name: str) -> str:
        size, has = self.min_reserve[name], self.counts.get(name)
        if name in self.in_bytes and size is not None and has is not None:
            return f"{name}: {format_size(size)} (it has {format_size(has)})"
        return f"{name}: {size} (it has {has})"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def said(entry: Entry) -> str:
    """What happened in a line of a trace, in words."""
    pool = f"{entry.shown or entry.n} of {entry.pool}"
    acts = {
        ("alloc", "granted"): f"takes {pool}",
        ("alloc", "waits"): f"asks for {pool}, and waits",
        ("alloc", "none"): f"asks for {pool}, and gets none",
        ("alloc", "PoolTimeout"): f"asks for {pool}, and its time is up",
        ("alloc", "Cancelled"): f"asks for {pool}, and is cancelled",
        ("free", "done"): f"gives back {pool}",
        ("hand_over", "done"): f"puts {pool} in flight",
        ("transfer", "done"): f"passes {pool} on",
        ("read", "done"): f"reads {entry.n} bytes of {entry.pool}",
        ("read", "BlockError"): f"reads {entry.pool}, and that fails",
        ("write", "done"): f"writes {entry.n} bytes to {entry.pool}",
        ("write", "BlockError"): f"writes to {entry.pool}, and that fails",
        ("flush", "done"): f"flushes {entry.pool}",
        ("flush", "BlockError"): f"flushes {entry.pool}, and that fails",
    }
    return acts.get((entry.op, entry.result), f"{entry.op} {pool}: {entry.result}")
