"""A report as one self-contained page: a lane for each task, time downwards, who holds and who waits between.

It decides nothing and needs nothing: no script, no font, no other file. A row is an operation; to its left
stands what the pools have free after it. In the lanes a bar says that the task holds something then, and
a hatched one that it waits.
"""

from __future__ import annotations

from collections import Counter
from html import escape

from headway.checker.ledger import Entry
from headway.checker.report import Report, said

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.3rem;margin:0 0 .3rem}h1 b{padding:.1em .5em;border-radius:.3em;color:#fff;background:#2c7a4b}
h1 b.bad{background:#b3261e}p{margin:.3rem 0}.lanes{overflow-x:auto;margin:1.2rem 0}
table{border-collapse:collapse}th,td{padding:.15rem .6rem;text-align:left;white-space:nowrap}
th{border-bottom:2px solid #8a939e}td.n,td.free{color:#5b6570;font-variant-numeric:tabular-nums}
td.lane{border-left:1px solid #d5dae0}td.holds{box-shadow:inset 4px 0 #2f6fb2}
td.waits{background:repeating-linear-gradient(45deg,#fbeae8,#fbeae8 6px,#fff 6px,#fff 12px)}
td.stuck{box-shadow:inset 4px 0 #b3261e}
.op{display:inline-block;padding:.05em .5em;border-radius:.3em;background:#e4edf7}
.op.waits{background:#f6cfcb}.op.free{background:#dff0e4}.op.none{background:#fdeccb}
tr.round td{border-top:2px dashed #b3261e}
@media(prefers-color-scheme:dark){body{background:#15181c;color:#dfe4ea}.op{background:#27415f}.op.waits{background:#6b2b27}
.op.free{background:#204a31}.op.none{background:#5b4716}td.lane{border-color:#333a42}
td.waits{background:repeating-linear-gradient(45deg,#3a2220,#3a2220 6px,#15181c 6px,#15181c 12px)}}
"""

_IO = ("read", "write", "flush")


def html(report: Report) -> str:
    """The page, as text to be written to a file in UTF-8."""
    bad = "" if report.shown == "ok" else ' class="bad"'
    title = f"{report.shown}: {report.target}" if report.target else report.shown
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f"<h1><b{bad}>{escape(report.shown)}</b> {escape(report.target)}</h1>",
        f"<p>{escape(report.reason)}</p>",
        *(f"<p>{escape(line)}</p>" for line in report.release),
    ]
    if report.trace:
        parts.append(_lanes(report))
    parts += [f"<p>{escape(line)}</p>" for line in report.after()]
    return "\n".join(parts) + "\n"


def _lanes(report: Report) -> str:
    tasks = list(dict.fromkeys((*(entry.task for entry in report.trace), *report.stuck)))
    used = (entry.pool for entry in report.trace if entry.op not in _IO)
    pools = list(dict.fromkeys((*report.counts, *used)))
    head = "".join(f"<th>{escape(name)}</th>" for name in tasks)
    free = f"<th>free: {escape(', '.join(pools))}</th>"
    rows = [f"<tr><th></th>{free}{head}</tr>"]
    held: dict[str, Counter[str]] = {task: Counter() for task in tasks}
    out: Counter[str] = Counter()
    waiting: set[str] = set()
    round_from = len(report.trace) - report.repeats if report.repeats else -1
    for number, entry in enumerate(report.trace):
        _apply(entry, held, out, waiting)
        left = ", ".join(
            str(report.counts[pool] - out[pool]) if pool in report.counts else "?" for pool in pools
        )
        cells = "".join(_cell(task, entry, held, waiting, report) for task in tasks)
        mark = ' class="round"' if number == round_from else ""
        rows.append(
            f'<tr{mark}><td class="n">{number + 1}</td><td class="free">{left}</td>{cells}</tr>'
        )
    return f'<div class="lanes"><table>{"".join(rows)}</table></div>'


def _apply(
    entry: Entry, held: dict[str, Counter[str]], out: Counter[str], waiting: set[str]
) -> None:
    match entry.op, entry.result:
        case "alloc", "granted":
            held[entry.task][entry.pool] += entry.n
            out[entry.pool] += entry.n
            waiting.discard(entry.task)
        case "alloc", "waits":
            waiting.add(entry.task)
        case "alloc", _:
            waiting.discard(entry.task)
        case "free", _:
            held[entry.task][entry.pool] -= entry.n
            out[entry.pool] -= entry.n
        case op, _ if op in _IO:
            pass
        case _:  # in flight, or another's
            held[entry.task][entry.pool] -= entry.n


def _cell(
    task: str, entry: Entry, held: dict[str, Counter[str]], waiting: set[str], report: Report
) -> str:
    kinds = ["lane"]
    if any(count > 0 for count in held[task].values()):
        kinds.append("holds")
    if task in waiting:
        kinds.append("waits")
        if task in report.stuck:
            kinds.append("stuck")
    text = ""
    if entry.task == task:
        look = "waits" if entry.result == "waits" else "free" if entry.op != "alloc" else ""
        look = look or ("none" if entry.result != "granted" else "")
        text = f'<span class="op {look}">{escape(said(entry))}</span>'
    return f'<td class="{" ".join(kinds)}">{text}</td>'
