"""Where something happened: stacks that are cheap to take, and are made readable only in a report.

It does not decide what is worth a stack (`ledger` does). A place is a flat tuple of code objects and
instruction offsets, innermost first; nothing is formatted and no frame is kept alive. Frames of the
standard library, of pytest, of headway and of a library that has a patch are *quiet*: a place begins at the first
frame that is not, so that it names the program's own line.

Bound: a near place has at most 2 frames and costs about a quarter of a microsecond; a far one has at most 12.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from operator import attrgetter
from types import CodeType, FrameType
from typing import Any, Final, TypeAlias

Place: TypeAlias = tuple[Any, ...]  # (code, offset, code, offset, ...)

NOWHERE: Final[Place] = ()
# The place of a frame that has a caller, in one step.
site: Final = attrgetter("f_code", "f_lasti", "f_back.f_code", "f_back.f_lasti")
_FAR: Final = 12
_HERE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STDLIB: Final = tuple(
    {os.path.realpath(sysconfig.get_paths()[name]) + os.sep for name in ("stdlib", "platstdlib")}
    | {sysconfig.get_paths()[name] + os.sep for name in ("stdlib", "platstdlib")}
)
_RUNNERS: Final = tuple(  # of tests: theirs are frames that no reader wants
    f"{os.sep}site-packages{os.sep}{name}{os.sep}" for name in ("_pytest", "pytest", "pluggy")
)
FINALISER: Final = "__del__"


class _Quiet(dict[str, bool]):
    """Whether a file's frames are left out; asked once for each file."""

    def __missing__(self, filename: str) -> bool:
        self[filename] = answer = (
            is_stdlib(filename)
            or filename.startswith((_HERE, *_packages))
            or any(runner in filename for runner in _RUNNERS)
        )
        return answer


_packages: list[str] = []
QUIET: Final = _Quiet()


def is_stdlib(filename: str) -> bool:
    """Whether code of this file belongs to Python itself."""
    if filename.startswith("<") and ("frozen" in filename or "generated" in filename):
        return True
    return filename.startswith(_STDLIB) and f"{os.sep}site-packages{os.sep}" not in filename


def keep_quiet(module: Any) -> None:
    """Leave the frames of a package out of places from now on."""
    filename = getattr(module, "__file__", None)
    if filename:
        folder = os.path.dirname(os.path.abspath(filename)) + os.sep
        if folder not in _packages:
            _packages.append(folder)
            QUIET.clear()


def near(frame: FrameType | None) -> Place:
    """The first frame that is not quiet, and its caller; the frame itself if all are quiet."""
    first = frame
    while frame is not None:
        code = frame.f_code
        if not QUIET[code.co_filename]:
            break
        frame = frame.f_back
    else:
        frame = _outside_greenlet() or first
        if frame is None:
            return NOWHERE
        code = frame.f_code
    caller = frame.f_back
    if caller is None:
        return (code, frame.f_lasti)
    return (code, frame.f_lasti, caller.f_code, caller.f_lasti)


def maker(frame: FrameType, kind: Any) -> FrameType:
    """Who makes an object: not the `__init__` of a subclass that Python itself has."""
    caller = frame.f_back
    return caller if caller is not None and frame.f_code is kind.__init__.__code__ else frame


def first(frame: FrameType) -> tuple[FrameType, int]:
    """The first frame that is not quiet, and how far away it is, if `frame` is 1 away."""
    at: FrameType | None = frame
    away = 1
    while at is not None:
        if not QUIET[at.f_code.co_filename]:
            return at, away
        at, away = at.f_back, away + 1
    return _outside_greenlet() or frame, 2


def far(frame: FrameType | None) -> Place:
    """Up to 12 frames that are not quiet; for what is looked at once."""
    found: list[Any] = []
    first = frame
    while frame is not None and len(found) < 2 * _FAR:
        if not QUIET[frame.f_code.co_filename]:
            found += (frame.f_code, frame.f_lasti)
        frame = frame.f_back
    return tuple(found) or near(first)


def _outside_greenlet() -> FrameType | None:
    """The first frame that is not quiet of whoever switched to this greenlet: SQLAlchemy's asyncio does."""
    greenlet = sys.modules.get("greenlet")
    current = None if greenlet is None else greenlet.getcurrent().parent
    frame = None if current is None else current.gr_frame
    while frame is not None and QUIET[frame.f_code.co_filename]:
        frame = frame.f_back
    return frame


def is_final(place: Place) -> bool:
    """Whether a finaliser is among the innermost frames."""
    if len(place) == 4:  # the usual one first
        return FINALISER in (place[0].co_name, place[2].co_name)
    return any(code.co_name == FINALISER for code in place[::2])


def text(place: Place) -> list[str]:
    """One line for each frame that is not quiet: ``app.py:12 in load``, innermost first."""
    lines = [
        (code, offset)
        for code, offset in zip(place[::2], place[1::2], strict=True)
        if not QUIET[code.co_filename]
    ] or [(place[n], place[n + 1]) for n in range(0, min(2, len(place)), 2)]
    return [
        f"{short(code.co_filename)}:{_line(code, off)} in {code.co_name}" for code, off in lines
    ]


def where(place: Place) -> str:
    """The innermost frame in words."""
    lines = text(place)
    return lines[0] if lines else "an unknown place"


def stable(place: Place) -> str:
    """A name that survives edits above it: file and function, without the line."""
    line = where(place)
    head, _, function = line.partition(" in ")
    return f"{head.rsplit(':', 1)[0]} {function}"


def short(filename: str) -> str:
    """A path as a reader would write it: from the working directory, or from site-packages."""
    _, found, rest = filename.rpartition(f"site-packages{os.sep}")
    if found:
        return rest
    folder = _cwd + os.sep
    return filename[len(folder) :] if filename.startswith(folder) else filename


_cwd = os.getcwd() if os.path.isdir(".") else os.sep


def _line(code: CodeType, offset: int) -> int:
    for start, end, line in code.co_lines():
        if start <= offset < end and line is not None:
            return line
    return code.co_firstlineno
