"""pytest --headway-watch: a test fails in which a new risk appears; the run ends with the report.

It decides which findings are new: those whose key has not been seen in the run, nor is in the baseline.
`headway.pytest_plugin` has the options, and loads it before the program's modules make their pools.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

import pytest

from headway import watch
from headway.errors import UsageError
from headway.watch import report as reports
from headway.watch.finding import Finding, text


def register(config: pytest.Config) -> None:
    """Switch it on for this run."""
    baseline = config.getoption("--headway-watch-baseline")
    try:
        known = () if baseline is None else reports.load_baseline(baseline)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error
    level = config.getoption("--headway-watch-level")
    config.pluginmanager.register(_Watching(known, level), "headway-watching")


@final
class _Watching:
    """The plugin when it is on."""

    def __init__(self, known: tuple[str, ...], level: str) -> None:
        self._known = {*known}
        self._level = reports.rank(level)
        self._session = watch.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        try:
            result = yield
        finally:
            new = self._new()  # if it fails by itself: what is new belongs to it, not to the next
        if new:
            said = "\n".join(text(finding.json()) for finding in new)
            pytest.fail(f"headway watch found something new in this test:\n{said}", pytrace=False)
        return result

    def _new(self) -> list[Finding]:
        new = [
            finding
            for finding in self._session.findings()
            if finding.key not in self._known and reports.rank(finding.severity) >= self._level
        ]
        self._known.update(finding.key for finding in new)
        return new

    def pytest_unconfigure(self) -> None:
        watch.stop()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        found = self._session.report(final=True)
        if found["risks"]:
            terminalreporter.section("headway watch")
            terminalreporter.write_line(reports.text(found))
