"""The function under check: loaded from its file, and run where it disturbs nobody.

It decides nothing about schedules. Loading runs the file as a module of its own, which is not left in
`sys.modules`; whatever is wrong with a target is a `UsageError` of one line.
"""

from __future__ import annotations

import importlib.util
import inspect
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from headway.checker.chance import pinned
from headway.checker.raw import refused
from headway.errors import UsageError


def load(target: str) -> Callable[[], Any]:
    """The function a target names.

    Raises: UsageError if the target is not ``FILE.py:FUNCTION``, or the function needs arguments.
    """
    name, colon, function = target.rpartition(":")
    if not colon or not name.endswith(".py") or not function.isidentifier():
        raise UsageError(f"target {target!r}: write FILE.py:FUNCTION, as in demo.py:main")
    path = Path(name)
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise UsageError(f"target {target!r}: {name} {what}; give the path of a Python file")
    module = _execute(path, target)
    found = getattr(module, function, None)
    if found is None:
        names = [
            n
            for n, v in vars(module).items()
            if inspect.isfunction(v) and v.__module__ == module.__name__
        ]
        have = f"it has {', '.join(names)}" if names else "it has no functions"
        raise UsageError(f"target {target!r}: {name} has no {function}; {have}")
    if not callable(found) or inspect.isclass(found):
        raise UsageError(
            f"target {target!r}: {function} is a {type(found).__name__}, not a function"
        )
    if inspect.isgeneratorfunction(found) or inspect.isasyncgenfunction(found):
        raise UsageError(
            f"target {target!r}: {function} is a generator: calling it runs none of its lines; "
            "wrap it in a function that runs it"
        )
    needed = [
        p.name
        for p in inspect.signature(found).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if needed:
        raise UsageError(
            f"target {target!r}: {function} needs {', '.join(needed)}; "
            "what is checked takes no argument: wrap it in a function that calls it"
        )
    checked: Callable[[], Any] = found
    return checked


def _execute(path: Path, target: str) -> ModuleType:
    name = f"_headway_check_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        with redirect_stdout(sys.stderr):  # standard output is the report's
            spec.loader.exec_module(module)
    except SyntaxError as error:
        place = f"line {error.lineno}" if error.lineno else "it"
        raise UsageError(f"target {target!r}: {place} is not Python: {error.msg}") from error
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())
        raise UsageError(
            f"target {target!r}: loading {path.name} raised {type(error).__name__}: {said}"
        ) from error
    finally:
        sys.path.pop(0)
        del sys.modules[name]
    return module


@contextmanager
def undisturbed(program: Callable[[], Any]) -> Iterator[None]:
    """Raw threads, locks and chance are refused in here, clocks stand still, and what the code prints goes nowhere."""
    module = inspect.getmodule(program) or _namespace(program)
    with refused(module), pinned(module), redirect_stdout(_Nowhere()):
        yield


class _Nowhere(io.TextIOBase):
    """Where code under check prints to: it runs thousands of times."""

    def write(self, text: str) -> int:
        return len(text)


def _namespace(program: Callable[[], Any]) -> Any:
    """Something whose attributes are the program's globals, although it is no module any more."""

    class Globals:
        def __init__(self) -> None:
            self.__dict__ = getattr(program, "__globals__", {})

    return Globals()
