"""The pytest plugin: its report has every measurement, from one process or several."""

import json
import subprocess
import sys

TESTS = """
import pytest
from nfn_core import WeightSpace
from nfn_conformance import Subject

group = WeightSpace.from_axes({"v": [("h", 5)]}).group("NP")
healthy = Subject("sum", group, make=lambda seed: None, apply=lambda _, u: {"v": u["v"].sum(1, keepdims=True) + u["v"]})
broken = Subject("first", group, make=lambda seed: None, apply=lambda _, u: {"v": u["v"][:, :1] + u["v"]})


@pytest.mark.parametrize("check", ["equivariance", "maximality"])
@pytest.mark.parametrize("subject", [healthy, broken], ids=lambda s: s.name)
def test_layer(subject, check, conformance):
    conformance(subject, check)
"""


def test_report_of_one_process_and_of_two(tmp_path):
    (tmp_path / "test_layer.py").write_text(TESTS)
    found = []
    for processes in ("0", "2"):
        path = tmp_path / f"{processes}.json"
        command = [sys.executable, "-m", "pytest", "test_layer.py", "-n", processes, "--conformance-report", str(path)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert "1 failed, 1 passed, 2 skipped" in done.stdout
        found.append(sorted(json.loads(path.read_text()), key=lambda m: (m["subject"], m["check"])))
    assert found[0] == found[1]
    assert [(m["subject"], m["check"], m["status"]) for m in found[0]] == [
        ("first", "equivariance", "failed"),
        ("first", "maximality", "not provided"),
        ("sum", "equivariance", "passed"),
        ("sum", "maximality", "not provided"),
    ]
