"""`headway watch`: run a program with watchers on its pools, or ask one that runs so what it waits for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from headway.cli import console
from headway.cli.app import FLAG, Debug, Json
from headway.errors import UsageError

_LEVELS = ("note", "warning", "risk")


_Program = Annotated[
    list[str] | None,
    typer.Argument(metavar="-- COMMAND...", help="The program to run, and its arguments."),
]
_Report = Annotated[
    str | None,
    typer.Option("--report", metavar="FILE", help="Write the report: .json, .html or .txt."),
]
_FailOn = Annotated[
    str | None,
    typer.Option(
        "--fail-on", metavar="LEVEL", help="Exit 1 on a risk, warning or note, or a hang."
    ),
]
_Attach = Annotated[
    int | None,
    typer.Option("--attach", metavar="PID", help="Ask a watched process who holds and who waits."),
]
_Baseline = Annotated[
    str | None,
    typer.Option("--baseline", metavar="FILE", help="Leave out what this file lists."),
]
_WriteBaseline = Annotated[
    str | None,
    typer.Option("--write-baseline", metavar="FILE", help="List what is found as known."),
]
_Profile = Annotated[
    str | None,
    typer.Option(
        "--profile", metavar="MODEL.toml", help="Write what was learned, for headway size."
    ),
]
_Concurrency = Annotated[
    int | None,
    typer.Option("--concurrency", metavar="N", min=1, help="At most N requests at once, ever."),
]
_Break = Annotated[
    bool,
    typer.Option(
        "--break", metavar=FLAG, help="Of those that hang, end the youngest wait with an exception."
    ),
]
_Stall = Annotated[
    float,
    typer.Option("--stall", metavar="SECONDS", min=0.1, help="A hang is told after so long."),
]


def command(
    program: _Program = None,
    report: _Report = None,
    fail_on: _FailOn = None,
    attach: _Attach = None,
    baseline: _Baseline = None,
    write_baseline: _WriteBaseline = None,
    profile: _Profile = None,
    concurrency: _Concurrency = None,
    stall: _Stall = 5.0,
    breaks: _Break = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Run a Python program, unchanged, with watchers on its pools: what can hang is told from one run that did not.

    Its exit status is the command's (1 with --fail-on, if something is as grave). Ctrl-\\ in a frozen
    program explains who holds what. With --json the program's standard output goes to standard error.
    """
    from headway.watch import report as reports

    if report is not None:
        reports.check_form(report)
    wanted = {"--report": report, "--write-baseline": write_baseline, "--profile": profile}
    for option, name in wanted.items():
        if name is not None:
            reports.check_place(option, name)
    if attach is not None:
        if program:
            raise UsageError("--attach asks a process that runs: give no COMMAND")
        return _ask(attach, report, as_json)
    if not program:
        raise UsageError("no command to watch: headway watch -- COMMAND..., or --attach PID")
    if fail_on is not None and fail_on not in _LEVELS:
        raise UsageError(f"--fail-on is {fail_on!r}; choose from {', '.join(_LEVELS)}")
    known = () if baseline is None else reports.load_baseline(baseline)
    with tempfile.TemporaryDirectory(prefix="headway-watch-") as folder:
        told = {
            "stall_s": stall, "concurrency": concurrency, "profile": profile is not None, "breaks": breaks,
        }  # fmt: skip
        ended = _run(program, Path(folder), told, as_json, report, known)
        gathered = reports.gather(Path(folder))
    status = ended if ended >= 0 else 128 - ended
    watched, cut = gathered.pop("processes"), gathered.pop("cut")
    _say_how(ended, watched, cut)
    model = gathered.pop("model")
    found = reports.without(gathered, known)
    _keep(found, report, write_baseline, profile, model)
    if as_json:
        console.print_json(found)
    elif watched:
        print(reports.text(found, early=ended < 0 or cut > 0), file=sys.stderr)
    if fail_on is not None and reports.fails(found, fail_on):
        return 1
    return status if watched or fail_on is None else status or 1


def _say_how(ended: int, watched: int, cut: int) -> None:
    """What the end of the command says of the report."""
    if ended < 0:
        names = {number.value: number.name for number in signal.Signals}
        _say(f"the command was ended by {names.get(-ended, f'signal {-ended}')}")
    elif cut:
        _say(f"{cut} of {watched} Python processes ended early (a signal, or os._exit)")
    if not watched:
        _say(
            "nothing was watched: no Python process told anything; "
            "is the command a Python program, without -I, -E and -S?"
        )


def _say(line: str) -> None:
    print(f"headway: {line}", file=sys.stderr)


def _keep(
    found: dict[str, Any],
    report: str | None,
    baseline: str | None,
    profile: str | None,
    model: str | None,
) -> None:
    from headway.watch import report as reports

    if report is not None:
        reports.save(report, found)
        _say(f"the report is in {report}")
    if baseline is not None:
        reports.write_baseline(baseline, found)
        _say(f"the baseline of {len(found['risks'])} is in {baseline}")
    if profile is not None:
        if model is None:
            _say("no request held two elements at once: no model was written")
        else:
            Path(profile).write_text(model, encoding="utf-8")
            _say(f"the model is in {profile}")


def _ask(pid: int, report: str | None, as_json: bool) -> int:
    from headway.watch import explain, station
    from headway.watch import report as reports

    found = station.attach(pid)
    if report is not None:
        reports.save(report, found)
        _say(f"the report is in {report}")
    if as_json:
        console.print_json(found)
    else:
        console.say(explain.snapshot_text(found))
    return 0 if found["hang"] is None else 1


def _run(
    program: list[str],
    folder: Path,
    told: dict[str, Any],
    as_json: bool,
    report: str | None,
    known: tuple[str, ...],
) -> int:
    """Run the program to its end; the report is kept up to date meanwhile. Its exit status; below 0: a signal."""
    from headway.watch import boot, hook
    from headway.watch import report as reports

    before = os.environ.get("PYTHONPATH")
    paths = [os.path.dirname(os.path.abspath(hook.__file__)), *([before] if before else [])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        boot.VARIABLE: boot.setting(str(folder), **told),
    }
    try:
        child = subprocess.Popen(program, env=environment, stdout=sys.stderr if as_json else None)
    except OSError as error:
        asked, why = program[0], f"cannot be run ({error.strerror})"
        if isinstance(error, FileNotFoundError):
            why = "was not found"
        if os.path.isfile(asked) and asked.endswith(".py"):
            raise UsageError(
                f"{asked!r} {why} as a program: write headway watch -- python {asked}"
            ) from None
        raise UsageError(f"{asked!r} {why}: give a program on PATH, or a path") from None
    last: dict[str, Any] | None = None
    with _signals_to(child):
        while True:
            try:
                return child.wait(0.2)
            except subprocess.TimeoutExpired:
                if report is not None and (found := reports.gather(folder)) != last:
                    last = found
                    shown = reports.without({k: found[k] for k in ("risks", "hang")}, known)
                    reports.save(report, shown)


@contextmanager
def _signals_to(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """A terminal's keys reach the program by themselves; other signals that ask to end are passed on."""
    passed = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    kept = [name for name in ("SIGINT", "SIGQUIT") if hasattr(signal, name)]
    before: dict[Any, Any] = {}
    for name in passed:
        number = getattr(signal, name)
        before[number] = signal.signal(number, lambda number, frame: child.send_signal(number))
    for name in kept:
        number = getattr(signal, name)
        before[number] = signal.signal(number, lambda number, frame: None)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
