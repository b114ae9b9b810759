"""``python -m faults``: try faults, and print what became of them; the exit status is 1 if any may not be."""

import sys
from pathlib import Path

import click

from faults.outcomes import BAD, Case, table

KINDS = ("inputs", "files", "kills")


@click.command(context_settings={"show_default": True})
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS), help="Only these kinds of faults.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of all that is drawn.")
@click.option("--kills", "number", type=click.IntRange(min=1), default=200, help="Number of kills.")
@click.option("--short", is_flag=True, help="A sample that takes two minutes.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Also write the table to this file.")
def main(kinds: tuple[str, ...], seed: int, number: int, short: bool, output: Path | None) -> None:
    """Try bad inputs, damaged files and kills, and count what became of them."""
    cases: list[Case] = []
    for kind in kinds or KINDS:
        if kind == "inputs":
            from faults import inputs

            cases += inputs.campaign(seed, 10 if short else 1)
        elif kind == "files":
            from faults import files

            cases += files.campaign(seed, 100 if short else 3200)
        else:
            from faults import kills

            cases += kills.campaign(seed, 4, kills.JOBS[:2]) if short else kills.campaign(seed, number)
    of_kills = [" --short"] if short else [f" --kills {number}"] * ("kills" in (kinds or KINDS))
    options = "".join([*(f" --kind {kind}" for kind in kinds), f" --seed {seed}", *of_kills])
    page = f"`python -m faults{options}`\n\n{table(cases)}"
    click.echo(page)
    if output:
        output.write_text(page)
    sys.exit(any(case.outcome in BAD for case in cases))


if __name__ == "__main__":
    main()
