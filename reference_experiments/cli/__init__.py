"""Command line of the experiments."""

import click

from reference_experiments.cli.datasets import convert_group, make_group, summarize_command, verify_command
from reference_experiments.cli.demos import models_command, quickstart_command, residual_command, survey_command
from reference_experiments.cli.experiments import gpu_job_command, report_command, reproduce_command, run_command
from reference_experiments.cli.inference import edit_command, predict_command

__all__ = ["main"]


@click.group()
def main() -> None:
    """Experiments of nfn-core."""


for command in (
    quickstart_command,
    run_command,
    gpu_job_command,
    report_command,
    reproduce_command,
    edit_command,
    predict_command,
    make_group,
    convert_group,
    verify_command,
    summarize_command,
    residual_command,
    models_command,
    survey_command,
):
    main.add_command(command)
