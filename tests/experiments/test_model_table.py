"""The page of real models: its tables are the code's own."""

from pathlib import Path

import pytest

from reference_experiments.demos.model_table import MODELS, model_table, operation_table, row, write_page
from reference_experiments.files import ExperimentError

PAGE = Path(__file__).parents[2] / "docs/models.md"


def test_page_has_the_operations_of_the_code():
    assert operation_table() in PAGE.read_text()


def test_page_has_every_model():
    assert all(f"| {name} |" in PAGE.read_text() for name in MODELS)


def test_row_of_a_small_model():
    cells = [cell.strip() for cell in row("SIREN", MODELS["SIREN 2-32-32-1"]).strip("|").split("|")]
    assert cells[:5] == ["SIREN", "6 / 6", "3", "1,185", "6"]
    rank, orbits = cells[7].split(" = ")
    assert rank == orbits
    assert float(cells[8]) < 1e-12


def test_page_without_markers_is_refused(tmp_path):
    (tmp_path / "page.md").write_text("# nothing")
    with pytest.raises(ExperimentError, match="restore the markers"):
        write_page(tmp_path / "page.md", {"models": lambda: model_table(tmp_path)})
