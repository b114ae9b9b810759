"""Fixtures of the experiments' tests."""

import pytest
from helpers import write_dataset
from separable import separable_networks


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    """An empty folder in which images and shapes are looked for."""
    monkeypatch.setenv("NFN_DATA_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def dataset(tmp_path):
    """Networks that are easy to classify."""
    return write_dataset(tmp_path / "data", separable_networks())
