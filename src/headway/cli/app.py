"""What all subcommands share: errors as one line, exit status, `--debug`, `--version`, signals.

A subcommand is a file beside this one with a function `command`, named in `_COMMANDS`. It parses,
calls, prints through `headway.cli.console`, and imports what is heavy inside its function, so that
`--help` and completion stay quick. It returns None or an exit status.

Exit status: 0 done or clean, 1 failed or findings, 2 misuse. A signal that asks to end (INT, TERM,
HUP) raises in the main thread, so that every `with` and `finally` runs; a second one ends at once.

Source: the command lines of git and cp for one-line errors; sysexits(3) deliberately not.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from headway.cli.console import drop_output, say
from headway.errors import HeadwayError, UsageError

_COMMANDS = ("copy", "serve", "check", "size", "watch", "audit", "replay", "top")

FLAG = ""  # the metavar of an option that takes nothing: typer would show one all the same

Debug = Annotated[
    bool, typer.Option("--debug", metavar=FLAG, help="Show the traceback of an error.")
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", metavar=FLAG, help="Print one JSON object, and nothing else, on standard output."
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        metavar="N",
        min=0,
        help="Processes that do the work; 0: one for each processor. If not given: that, once it is long.",
    ),
]
Dask = Annotated[
    str | None,
    typer.Option(
        "--dask",
        metavar="ADDRESS",
        help="Let the workers of a Dask cluster do it: tcp://HOST:PORT.",
    ),
]


class Interrupted(BaseException):
    """A signal asked to end. (No KeyboardInterrupt, of which the parser makes an end of its own.)"""

    ends_the_program = True  # code under check lets it pass

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)


class _Flags:
    """Options that take nothing show no metavar; nor do those that the parser makes, as ``--help``."""

    def get_params(self, context: Any) -> Any:
        params = super().get_params(context)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False) and param.metavar is None:
                param.metavar = FLAG
        return params


class _Command(_Flags, TyperCommand):
    """A subcommand."""


class _Group(_Flags, TyperGroup):
    """The application."""


def run(arguments: list[str]) -> int:
    """Run one command line; the exit status."""
    _open_standard_streams()
    if (
        logging.lastResort is not None
    ):  # what is logged, and nobody has asked for, looks like the rest
        logging.lastResort.setFormatter(logging.Formatter("headway: %(message)s"))
    app = build()
    debug = "--debug" in arguments
    with _caught_signals():
        try:
            status = app(args=arguments, prog_name="headway", standalone_mode=False)
            say()
            return status if isinstance(status, int) else 0
        except BrokenPipeError:
            # Nobody reads standard output any more: that is not our failure, but it is no success.
            drop_output()
            return 1
        except (KeyboardInterrupt, Interrupted) as error:
            return _fail(f"interrupted by {error or 'SIGINT'}", error, debug)
        except BaseException as error:
            if isinstance(error, SystemExit):
                return error.code if isinstance(error.code, int) else 1
            return _explain(error, debug)


def build() -> typer.Typer:
    """The application with every subcommand."""
    app = typer.Typer(
        name="headway",
        cls=_Group,
        help="Moves data in a hard memory limit, and says which pool sizes are safe.",
        no_args_is_help=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_front)
    for name in _COMMANDS:
        module = importlib.import_module(f"headway.cli.{name}")
        app.command(name, cls=_Command)(module.command)
    return app


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        print(f"headway {version('headway')}")
    except PackageNotFoundError:
        print("headway (not installed: run from its source)")
    raise typer.Exit


def _front(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            metavar=FLAG,
            callback=_show_version,
            is_eager=True,
            help="Show the version.",
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    if context.invoked_subcommand is None:
        raise UsageError(f"no command given: choose from {', '.join(_COMMANDS)}, or see --help")


def _explain(error: BaseException, debug: bool) -> int:
    """One line for whatever was raised, and the exit status it means."""
    if isinstance(error, typer.Exit):
        return int(error.exit_code)
    if isinstance(error, typer.Abort):
        return _fail("aborted", error, debug)
    format_message = getattr(error, "format_message", None)
    if format_message is not None and hasattr(error, "exit_code"):  # what the parser raises
        message = " ".join(str(format_message()).split())
        message = message[:1].lower() + message[1:].rstrip(".")
        asked = getattr(getattr(error, "ctx", None), "command_path", None) or "headway"
        return _fail(f"{message}; see {asked} --help", error, debug, 2)
    if isinstance(error, UsageError):
        return _fail(str(error), error, debug, 2)
    if isinstance(error, OSError):
        message = error.strerror or str(error)
        if error.filename is not None:
            message = f"{error.filename}: {message}"
        return _fail(message, error, debug)
    if isinstance(error, (HeadwayError, MemoryError)):
        return _fail(str(error) or "out of memory", error, debug)
    kind = type(error).__name__
    return _fail(f"{kind}: {error} (this is a fault in headway; --debug shows where)", error, debug)


def _fail(message: str, error: BaseException, debug: bool, status: int = 1) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    line = " ".join(message.splitlines())
    print(f"headway: {line}", file=sys.stderr)
    return status


def _open_standard_streams() -> None:
    """Open on nothing what the shell closed (``>&-``): else the first file opened gets its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))


@contextmanager
def _caught_signals() -> Iterator[None]:
    """Signals that ask to end raise `Interrupted`; afterwards they mean what they did before."""
    before: dict[int, Any] = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number: Any = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    raise Interrupted(number)
