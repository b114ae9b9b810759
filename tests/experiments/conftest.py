"""Fixtures of the experiments' tests."""

import pytest


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    """An empty folder in which images and shapes are looked for."""
    monkeypatch.setenv("NFN_DATA_DIR", str(tmp_path))
    return tmp_path
