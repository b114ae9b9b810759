"""Pytest plugin: the `conformance` fixture, and a JSON report of every measurement.

``conformance(subject, check)`` runs one check, records the measurement, skips where the subject does not provide
what the check needs (never a pass), and fails with the figures. ``--conformance-report FILE`` writes all measurements.
"""

import json
from pathlib import Path
from typing import Any

import pytest

PROPERTY = "conformance"
"""Property of a test under which its measurements travel, from other processes too."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the report's option."""
    group = parser.getgroup("conformance", "conformance of neural functional layers")
    group.addoption("--conformance-report", metavar="FILE", help="write every conformance measurement to a JSON file")


def pytest_configure(config: pytest.Config) -> None:
    """Collect the measurements if they are asked for, in pytest-xdist's first process."""
    path = config.getoption("--conformance-report")
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Report(Path(path)))


class Report:
    """Measurements of all tests.

    Parameters
    ----------
    path : pathlib.Path
        JSON file to write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.measurements: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the measurements of a test that has ended."""
        if report.when == "teardown":
            found: list[Any] = [value for name, value in report.user_properties if name == PROPERTY]
            self.measurements += found

    def pytest_sessionfinish(self) -> None:
        """Write the report."""
        self.path.write_text(json.dumps(self.measurements, indent=2) + "\n")


@pytest.fixture
def conformance(request: pytest.FixtureRequest) -> Any:
    """Run a check of a subject, record what it measured, and fail or skip by its status."""
    from nfn_conformance.checks import CHECKS  # imported when used: the extra may not be installed

    def run(subject: Any, check: str, seed: int = 0) -> Any:
        found = CHECKS[check](subject, seed)
        request.node.user_properties.append((PROPERTY, {"subject": subject.name, "seed": seed, **found.as_dict()}))
        if found.status == "failed":
            pytest.fail(
                f"{subject.name} fails {check}: {found.value} (limit {found.limit}); {found.note}", pytrace=False
            )
        if found.status == "not provided":
            pytest.skip(f"not provided: {found.note or check}")
        return found

    return run
