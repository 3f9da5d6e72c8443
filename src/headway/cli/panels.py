"""What `headway top` shows of a snapshot: one table for each kind of thing, and who waits.

It decides nothing and reads nothing: a snapshot is a mapping (`headway.snapshots`), and so is the one before,
for rates. It needs rich.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from headway.core.units import format_size

Row = Mapping[str, Any]

_BAR = 10  # characters
_LINES = 12  # of those who wait, and of those who hold


def page(found: Row, before: Row | None = None) -> RenderableType:
    """Everything in one snapshot; rates need the one before, of the same process."""
    passed_s = 0.0 if before is None else found["clock_s"] - before["clock_s"]
    earlier: Row = before if before is not None and passed_s > 0 else {}
    parts: list[RenderableType] = [_head(found)]
    makers = (("pools", _pools), ("zones", _zones), ("caches", _caches), ("budgets", _budgets))
    for kind, make in makers:
        if found[kind]:
            parts.append(make(found[kind], earlier.get(kind, ()), passed_s))
    for kind, title in (("waits", "waits"), ("held", "held (traced)")):
        if found[kind]:
            parts.append(_people(found[kind], title))
    if len(parts) == 1:
        parts.append(Text("no pool, zone, cache or budget: nothing was made yet, or all is closed"))
    return Group(*parts)


def listing(found: list[Row]) -> RenderableType:
    """Several programs, one line each."""
    table = _table(
        "programs that publish",
        "pid",
        "program",
        right=("pools", "zones", "caches", "budgets", "waiting"),
    )
    for one in found:
        waiting = sum(thing["waiters"] for kind in ("pools", "budgets") for thing in one[kind])
        counts = (str(len(one[kind])) for kind in ("pools", "zones", "caches", "budgets"))
        table.add_row(str(one["pid"]), _plain(one["program"]), *counts, _alarm(waiting))
    return table


def _head(found: Row) -> Text:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found["at"]))
    said = f"{found['program']}  pid {found['pid']}  python {found['python']}  {at}"
    if found["left_out"]:
        said += f"  ({found['left_out']} lines left out)"
    return Text(said, style="bold")


def _pools(rows: list[Row], earlier: Any, passed_s: float) -> Table:
    right = ("out", "waiting", "allocs", "per s", "from reserve", "waits", "longest", "timeouts")
    table = _table("pools", "pool", "in reserve", right=right)
    then = _by_name(earlier, "alloc_count")
    for row in rows:
        table.add_row(
            _plain(row["name"]), _bar(row["reserve_count"], row["min_count"], low=True),
            str(row["outstanding"]), _alarm(row["waiters"]), str(row["alloc_count"]),
            _rate(row, "alloc_count", then, passed_s), str(row["reserve_uses"]), str(row["waits"]),
            _seconds(row["longest_wait_s"]), _alarm(row["timeouts"]),
        )  # fmt: skip
    return table


def _zones(rows: list[Row], earlier: Any, passed_s: float) -> Table:
    right = ("size", "free", "clean", "dirty", "low mark", "reclaimed", "direct", "oom")
    table = _table("zones", "zone", "in use", right=right)
    for row in rows:
        sizes = (
            format_size(row[key]) for key in ("size", "free", "clean", "dirty", "low", "reclaimed")
        )
        table.add_row(
            _plain(row["name"]), _bar(row["size"] - row["free"], row["size"], size=True),
            *sizes, str(row["direct_reclaims"]), _alarm(row["oom_count"]),
        )  # fmt: skip
    return table


def _caches(rows: list[Row], earlier: Any, passed_s: float) -> Table:
    right = ("objects", "used", "charged", "dirty", "hits", "hits per s", "evicted", "refused")
    table = _table("caches", "cache", right=right)
    then = _by_name(earlier, "hits")
    for row in rows:
        looks = row["hits"] + row["misses"]
        table.add_row(
            _plain(row["name"]), str(row["count"]),
            *(format_size(row[key]) for key in ("used", "charged", "dirty")),
            f"{row['hits'] / looks:.0%}" if looks else "-", _rate(row, "hits", then, passed_s),
            str(row["evicted"]), str(row["refused"]),
        )  # fmt: skip
    return table


def _budgets(rows: list[Row], earlier: Any, passed_s: float) -> Table:
    right = ("room", "reserve", "waiting", "from reserve", "waits", "longest", "timeouts")
    table = _table("budgets", "budget", "out", right=right)
    for row in rows:
        size = row["unit"] == "byte"
        table.add_row(
            _plain(row["name"]), _bar(row["used"], row["capacity"], size=size),
            _units(row["room"], size), _units(row["reserve"], size), _alarm(row["waiters"]),
            str(row["reserve_uses"]), str(row["waits"]), _seconds(row["longest_wait_s"]),
            _alarm(row["timeouts"]),
        )  # fmt: skip
    return table


def _people(rows: list[Row], title: str) -> Table:
    """Who waits, or who holds: the oldest first."""
    table = _table(
        title, "who", "of", "taken at" if "held" in title else "", right=("count", "for")
    )
    for row in rows[:_LINES]:
        for_s = row["for_s"]
        place = row.get("where") or ""
        if row.get("in_flight"):
            place = f"in flight, {place}"
        table.add_row(
            _plain(row["who"]), _plain(f"{row['kind']} {row['name']}"), _plain(place),
            str(row.get("need", row.get("count"))), "-" if for_s is None else _seconds(for_s),
        )  # fmt: skip
    if len(rows) > _LINES:
        table.caption = f"and {len(rows) - _LINES} more"
    return table


def _table(title: str, *left: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right")
    return table


def _bar(part: int, whole: int, *, size: bool = False, low: bool = False) -> Text:
    """``####------ 4 of 10``; red where little is left: of what is in reserve (`low`), of what may be out."""
    share = min(1.0, max(0.0, part / whole)) if whole else 0.0
    full = round(share * _BAR)
    scarce = share < 0.2 if low else share > 0.9
    style = "red" if scarce and whole else "green"
    text = Text("#" * full, style=style)
    text.append("-" * (_BAR - full), style="dim")
    return text.append(f" {_units(part, size)} of {_units(whole, size)}", style="default")


def _by_name(rows: Any, key: str) -> dict[str, int | None]:
    """What each had before; None for those who share a name, whose rates nobody can tell."""
    found: dict[str, int | None] = {}
    for row in rows:
        found[row["name"]] = None if row["name"] in found else row[key]
    return found


def _rate(row: Row, key: str, then: Mapping[str, int | None], passed_s: float) -> str:
    before = then.get(row["name"])
    if before is None or row[key] < before:
        return "-"
    return f"{(row[key] - before) / passed_s:,.0f}"


def _alarm(count: int) -> Text:
    return Text(str(count), style="bold red" if count else "")


def _plain(said: object) -> Text:
    """A name of the program's: no markup, and no control character that would reach the terminal."""
    return Text("".join(char if char.isprintable() else "?" for char in str(said)))


def _seconds(span_s: float) -> str:
    if span_s < 1:
        return f"{span_s * 1000:.0f} ms"
    return f"{span_s:.1f} s" if span_s < 600 else f"{span_s / 60:.0f} min"


def _units(count: int, size: bool) -> str:
    return format_size(count) if size else str(count)
