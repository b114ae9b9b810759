"""Mutation proof: the healthy layer passes every check, and every deliberate fault is caught by the check it names."""

import importlib.util
from pathlib import Path

import pytest
from nfn_conformance import CHECKS

spec = importlib.util.spec_from_file_location("faults", Path(__file__).parent / "faults.py")
faults = importlib.util.module_from_spec(spec)
spec.loader.exec_module(faults)
FAULTS = list(faults.faults())


def test_faults_are_the_committed_list():
    """``python conformance/suite/faults.py > conformance/suite/faults.txt`` writes it anew."""
    committed = (Path(__file__).parent / "faults.txt").read_text().splitlines()
    assert [fault.line for fault in FAULTS] == committed
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert len(FAULTS) >= 60


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", faults.SPACES)
def test_healthy_layer_passes(name, check):
    assert CHECKS[check](faults.healthy(faults.SPACES[name])).status != "failed"


@pytest.mark.parametrize("check", CHECKS)
def test_healthy_messages_pass(check):
    assert CHECKS[check](faults.message_subject()).status != "failed"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.line)
def test_fault_is_caught(fault):
    for check in fault.caught_by:
        assert CHECKS[check](fault.subject).status == "failed", f"{fault.name} passes {check}"
