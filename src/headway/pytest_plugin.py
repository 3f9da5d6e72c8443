"""``@pytest.mark.headway``: the test's function is not called once, but under every schedule of its tasks.

It decides nothing about schedules (`headway.checker` does). A marked test makes its pools and starts its tasks with
``hw.spawn``; it fails with the shortest schedule that ends badly, and the line that repeats it. The marker takes
`max_schedules` (the budget, 2,000), `seed`, `cancels`, and `complete`: True fails the test too if
the budget was not enough to see all. Fixtures are given as to any test, but made once for all schedules.

``pytest --headway-watch`` is `headway.watch.pytest_watch`, loaded if asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from headway.checker.report import Report

MAX_SCHEDULES = 2000
_KNOWN = ("max_schedules", "seed", "cancels", "complete")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("headway", "headway watch")
    group.addoption(
        "--headway-watch",
        action="store_true",
        help="watch the pools; fail where a new risk appears",
    )
    group.addoption(
        "--headway-watch-level", choices=("note", "warning", "risk"), default="warning",
        help="how grave a finding must be to fail its test (warning)",
    )  # fmt: skip
    group.addoption(
        "--headway-watch-baseline",
        metavar="FILE",
        help="findings that are known, as headway watch writes them",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--headway-watch"):
        from headway.watch.pytest_watch import register

        register(config)
    config.addinivalue_line(
        "markers",
        "headway(max_schedules=2000, seed=None, cancels=0, complete=False): run the test under every schedule of "
        "the tasks it starts with hw.spawn; it fails with the shortest schedule that ends badly",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Check the function of a marked test; None leaves all others to pytest."""
    marker = pyfuncitem.get_closest_marker("headway")
    if marker is None:
        return None
    options = dict(marker.kwargs)
    if marker.args or not options.keys() <= set(_KNOWN):
        said = ", ".join([*map(repr, marker.args), *options])
        pytest.fail(f"headway: the marker takes {', '.join(_KNOWN)} by name; it has {said}", False)
    must_be_complete = options.pop("complete", False)
    options.setdefault("max_schedules", MAX_SCHEDULES)
    names = pyfuncitem._fixtureinfo.argnames
    given = {name: pyfuncitem.funcargs[name] for name in names}
    report = _checked(pyfuncitem, given, options)
    if report.verdict != "ok":
        pytest.fail(report.text(), pytrace=False)
    if must_be_complete and not report.complete:
        pytest.fail(
            f"headway: nothing found, but not all seen within {options['max_schedules']} schedules; "
            f"raise max_schedules, or start fewer tasks\n{report.text()}",
            pytrace=False,
        )
    pyfuncitem.add_report_section("call", "headway", report.text())
    return True


def _checked(item: pytest.Function, given: dict[str, Any], options: dict[str, Any]) -> Report:
    from headway.checker import target
    from headway.errors import UsageError

    where = f"{item.path.name}:{item.originalname}" if not given else ""
    try:
        return target.check(_program(item.obj, given), target=where, sizes=False, **options)
    except UsageError as error:
        pytest.fail(f"headway: {error}", pytrace=False)


def _program(test: Callable[..., Any], given: dict[str, Any]) -> Callable[[], Any]:
    """The test as a function without arguments, of the same name."""
    if not given:
        return test

    def plain() -> None:
        test(**given)

    async def awaited() -> None:
        await test(**given)

    program: Any = awaited if inspect.iscoroutinefunction(test) else plain
    program.__name__ = test.__name__
    return program  # type: ignore[no-any-return]
