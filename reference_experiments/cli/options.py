"""What several commands share: the error decorator, options, arguments."""

from collections.abc import Callable
from errno import EPIPE
from functools import wraps
from pathlib import Path
from typing import Any

import click

from nfn_core import NFNError
from reference_experiments.datasets.generation import SCALES
from reference_experiments.engines.base import BACKENDS
from reference_experiments.files import reason

__all__ = [
    "backend_option",
    "check_option",
    "folder_option",
    "maker_command",
    "reports_errors",
    "scale_option",
    "seed_option",
]

DEFAULT_BACKEND = "torch"
"""Default of every command. Each backend makes its own networks, so `run` finds what `make` made only with the same backend."""

Command = Callable[..., Any]


def reports_errors(command: Command) -> Command:
    """Report the package's errors, and those of the operating system, in a line without a traceback."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except NFNError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno == EPIPE:  # of a reader that has enough: click ends quietly
                raise
            where = f"{error.filename}: " if error.filename is not None else ""
            raise click.ClickException(f"{where}{reason(error)}.") from error

    return wrapped


def backend_option(command: Command) -> Command:
    """Add ``--backend``."""
    choice = click.Choice(BACKENDS)
    return click.option("--backend", type=choice, default=DEFAULT_BACKEND, show_default=True, help="Array library.")(
        command
    )


def scale_option(command: Command) -> Command:
    """Add ``--scale``."""
    return click.option(
        "--scale", type=click.Choice(SCALES), default="small", show_default=True, help="Size of the experiment."
    )(command)


def seed_option(command: Command) -> Command:
    """Add ``--seed``."""
    return click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")(
        command
    )


def check_option(command: Command) -> Command:
    """Add ``--check/--no-check``."""
    return click.option(
        "--check/--no-check", default=True, show_default=True, help="Compare datasets with their checksums first."
    )(command)


def folder_option(text: str) -> Callable[[Command], Command]:
    """Add ``--output``, a folder."""
    return click.option("--output", type=click.Path(file_okay=False, path_type=Path), help=text)


def maker_command(command: Command) -> Command:
    """Add the options that all makers have."""
    for option in (
        folder_option("Folder of the dataset; by default one that its settings name, where `run` finds it."),
        click.option("--gpu", is_flag=True, help="Give each process a GPU."),
        click.option(
            "--devices",
            type=click.IntRange(min=1),
            help="Number of processes; by default one for each core, with --gpu one.",
        ),
        click.option(
            "--scheduler",
            metavar="ADDRESS",
            help="Dask scheduler whose workers make the shards, in place of --devices.",
        ),
        seed_option,
        scale_option,
        backend_option,
    ):
        command = option(command)
    return reports_errors(command)
