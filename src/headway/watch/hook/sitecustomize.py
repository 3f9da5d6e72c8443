"""What Python runs before a watched program: start watching, then do what the next sitecustomize would have.

It decides nothing, and breaks nothing: if watching cannot start, it says so in one line and the program
runs as it would have. Where headway is not installed it is loaded from where it lies, and nothing else
of that place becomes importable.
"""

import os
import sys

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_PACKAGE = os.path.dirname(os.path.dirname(_FOLDER))


def _load() -> None:
    import importlib.util

    try:
        found = importlib.util.find_spec("headway")
    except (ImportError, ValueError):
        found = None
    if found is None:
        spec = importlib.util.spec_from_file_location(
            "headway", os.path.join(_PACKAGE, "__init__.py"), submodule_search_locations=[_PACKAGE]
        )
        if spec is None or spec.loader is None:
            raise ImportError(f"headway is not at {_PACKAGE}")
        module = importlib.util.module_from_spec(spec)
        sys.modules["headway"] = module
        spec.loader.exec_module(module)


def _start() -> None:
    try:
        if sys.version_info < (3, 11):  # noqa: UP036 - whatever Python the program runs on
            raise ImportError(f"Python {sys.version.split()[0]} is older than 3.11")
        _load()
        from headway.watch import boot

        boot.start(os.environ["HEADWAY_WATCH"])
    except Exception as error:
        sys.stderr.write(f"headway: this process is not watched: {error}\n")


def _next() -> None:
    """The sitecustomize that ours stands in front of, if there is one."""
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _FOLDER]
    mine = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
        if mine is not None:
            sys.modules["sitecustomize"] = mine


if __name__ == "sitecustomize" and os.environ.get("HEADWAY_WATCH"):
    _start()
    _next()
