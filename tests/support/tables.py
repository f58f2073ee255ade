"""Tables of promises: each row is kept by the tests that name it, and one command prints the table with what was seen.

A test says `@pytest.mark.row("faults", "kernel killed", "the run ends within 3 s")`; `pytest --table=faults` runs the tests of that table alone and prints
it in Markdown. With the fixture `saw` a test adds what it has measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import pytest

NAMES: Final = ("faults", "outcomes", "floods", "threats", "kernels")

SAW: Final = pytest.StashKey[list[str]]()


@dataclass
class Row:
    """One promise, and the tests that keep it."""

    required: str
    passed: int = 0
    failed: list[str] = field(default_factory=list[str])
    seconds: float = 0.0
    saw: list[str] = field(default_factory=list[str])

    @property
    def result(self) -> str:
        """A word for the table; a row of which no test ran to its end is none that was seen."""
        if self.failed:
            return "**FAILED** " + ", ".join(self.failed)
        return f"{self.passed} passed" if self.passed else "**not run**"


class Tables:
    """Gathers one table while its tests run."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rows: dict[str, Row] = {}

    def _row(self, item: pytest.Item) -> list[Row]:
        marks = [mark for mark in item.iter_markers("row") if mark.args[0] == self._name]
        return [self._rows.setdefault(mark.args[1], Row(mark.args[2])) for mark in marks]

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave only the tests of this table."""
        others = [item for item in items if not self._row(item)]
        items[:] = [item for item in items if self._row(item)]
        config.hook.pytest_deselected(items=others)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> object:
        """Enter what became of a test."""
        report: pytest.TestReport = yield
        for row in self._row(item):
            row.seconds += report.duration
            if report.failed or report.skipped:
                row.failed.append(f"{item.nodeid.partition('::')[2]} ({report.outcome} in {report.when})")
            elif report.when == "call":
                row.passed += 1
                row.saw += item.stash.get(SAW, [])
        return report

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table."""
        terminalreporter.section(self._name)
        terminalreporter.write_line("| case | required | seen | tests | seconds |\n|---|---|---|---|---|")
        for case, row in self._rows.items():
            seen = "; ".join(dict.fromkeys(row.saw))
            terminalreporter.write_line(f"| {case} | {row.required} | {seen} | {row.result} | {row.seconds:.1f} |")


@pytest.fixture
def saw(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Adds a few words about what was measured to the rows of this test."""
    words = request.node.stash.setdefault(SAW, [])
    return words.append
