"""The paper's experiments as data, in the order of its tables.

The preset ``paper`` is appendix D of the paper: tables 12 to 15 and sections D.1 to D.4 and E.5.
"""

from reference_experiments.experiments.base import Experiment
from reference_experiments.experiments.classification import (
    DIGITS,
    SHAPE_MESSAGES,
    SIREN_FIT,
    SIREN_GATES,
    SIREN_MESSAGES,
    SIREN_SIGNS,
    TABLE3,
    TABLE4,
)
from reference_experiments.experiments.editing import CONTRAST, DILATE
from reference_experiments.experiments.generalization import RELU_SCALES, TABLE2, TABLE19
from reference_experiments.experiments.lottery_tickets import TABLE5
from reference_experiments.experiments.study import DILATE_STUDY, GATES_STUDY, SIREN_STUDY

__all__ = ["EXPERIMENTS"]

EXPERIMENTS: dict[str, Experiment] = {
    "table2": TABLE2,
    "table3": TABLE3,
    "table4": TABLE4,
    "table5": TABLE5,
    "table6-dilate": DILATE,
    "table6-contrast": CONTRAST,
    "table19": TABLE19,
    "siren-messages": SIREN_MESSAGES,
    "siren-gates": SIREN_GATES,
    "siren-signs": SIREN_SIGNS,
    "relu-scales": RELU_SCALES,
    "shape-messages": SHAPE_MESSAGES,
    "siren-study": SIREN_STUDY,
    "gates-study": GATES_STUDY,
    "dilate-study": DILATE_STUDY,
    "siren-fit": SIREN_FIT,
    "digits": DIGITS,
}
"""Experiments by the name that the command line has for them."""
