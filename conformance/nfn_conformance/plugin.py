"""Pytest plugin: the `conformance` fixture, and a JSON report of every measurement.

``conformance(subject, check)`` runs one check, records the measurement, skips where the subject does not provide
what the check needs (never a pass), and fails with the figures. ``--conformance-report FILE`` writes all measurements.
"""

import json
from pathlib import Path
from typing import Any

import pytest

REPORT = pytest.StashKey[list[dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the report's option."""
    group = parser.getgroup("conformance", "conformance of neural functional layers")
    group.addoption("--conformance-report", metavar="FILE", help="write every conformance measurement to a JSON file")


def pytest_configure(config: pytest.Config) -> None:
    """Start an empty report."""
    config.stash[REPORT] = []


@pytest.fixture
def conformance(request: pytest.FixtureRequest) -> Any:
    """Run a check of a subject, record what it measured, and fail or skip by its status."""
    from nfn_conformance.checks import CHECKS  # imported when used: the extra may not be installed

    def run(subject: Any, check: str, seed: int = 0) -> Any:
        found = CHECKS[check](subject, seed)
        request.config.stash[REPORT].append({"subject": subject.name, "seed": seed, **found.as_dict()})
        if found.status == "failed":
            pytest.fail(
                f"{subject.name} fails {check}: {found.value} (limit {found.limit}); {found.note}", pytrace=False
            )
        if found.status == "not provided":
            pytest.skip(f"not provided: {found.note or check}")
        return found

    return run


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the report."""
    path = session.config.getoption("--conformance-report")
    if path:
        Path(path).write_text(json.dumps(session.config.stash[REPORT], indent=2) + "\n")
