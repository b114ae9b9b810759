"""Every tutorial runs as it stands, and its last line says that something was learned."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parents[2] / "docs/tutorials"
LEARNED = {  # pattern of a printed number, and the range it must be in
    "classify_inrs_torch": (r"on test networks ([0-9.]+)", 0.5, 1.0),
    "classify_inrs_jax": (r"accuracy on test networks ([0-9.]+)", 0.5, 1.0),
    "predict_accuracy": (r"unseen classifiers: ([0-9.]+)", 0.5, 1.0),
    "edit_network": (r"edited ([0-9.]+)$", 0.0, 0.1),
    "gradients": (r"after ([0-9.]+)", 0.0, 0.01),
    "test_layer": (r"rank ([0-9])[^0-9]*orbits 2, gap [^ ]*'\)$", 1, 1),
}


def test_all_tutorials_are_known():
    assert {path.stem for path in TUTORIALS.glob("*.py")} == set(LEARNED)


@pytest.mark.slow(seconds=20)
@pytest.mark.parametrize("name", LEARNED)
def test_tutorial(name, tmp_path):
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, str(TUTORIALS / f"{name}.py")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pattern, low, high = LEARNED[name]
    found = re.findall(pattern, done.stdout, re.MULTILINE)
    assert found, done.stdout
    assert low <= float(found[-1]) <= high
