"""What became of each fault, and the table of all."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from nfn_core import NFNError

__all__ = ["BAD", "CampaignError", "Case", "OUTCOMES", "VARYING", "judge", "table"]

OUTCOMES = ("refused by name", "unharmed", "undetectable", "raw", "silent")
"""Refused by an error of the package that names what is wrong; done as if nothing were wrong, rightly; a value in a file
without a checksum is another valid one, which no reader can tell; any other error; or something wrong was taken without a
word."""
BAD = ("raw", "silent")
"""The outcomes that may not be."""
VARYING = ("seconds", "environment", "checksum")
"""What differs from run to run in results: the time, the machine, and the checksum of both."""


class CampaignError(Exception):
    """The campaign itself lacks something, an example of a new argument for instance."""


@dataclass(frozen=True)
class Case:
    """One fault and what became of it.

    Parameters
    ----------
    kind, part : str
        Line of the table.
    what : str
        What reproduces it.
    outcome : str
        One of `OUTCOMES`.
    message : str
        The error, or what was wrong with the result.
    """

    kind: str
    part: str
    what: str
    outcome: str
    message: str = ""


def judge(
    run: Callable[[], Any],
    accepts: Callable[[Any], str],
    names: Collection[str] | None,
    documented: tuple[type[BaseException], ...] = (),
) -> tuple[str, str]:
    """Run something with a fault in it, and judge what becomes of it.

    Parameters
    ----------
    run : callable
        Does it.
    accepts : callable
        From a result to what is wrong with it, empty if nothing is.
    names : collection of str, optional
        Words of which the message of an error must have one; without them it may say what it likes.
    documented : tuple of type
        Errors that this call may raise beside the package's own.

    Returns
    -------
    str, str
        Outcome, and the message that goes with it.
    """
    refusals: tuple[type[BaseException], ...] = (NFNError, *documented)
    try:
        found = run()
    except refusals as error:
        message = f"{type(error).__name__}: {error}"
        if names is None or any(name in str(error) for name in names if name):
            return "refused by name", message
        return "raw", f"names none of {sorted(names)}: {message}"
    except Exception as error:
        return "raw", f"{type(error).__name__}: {error}"
    wrong = accepts(found)
    return ("silent", wrong) if wrong else ("unharmed", "")


def table(cases: Iterable[Case]) -> str:
    """Count outcomes in Markdown, a line for each part of each kind, and below it every case that may not be."""
    cases = list(cases)
    counts = Counter((case.kind, case.part, case.outcome) for case in cases)
    lines = [f"| kind | part | tried | {' | '.join(OUTCOMES)} |", "|---|---|---|" + "---|" * len(OUTCOMES)]

    for kind in dict.fromkeys(case.kind for case in cases):
        parts = list(dict.fromkeys(case.part for case in cases if case.kind == kind))
        for title, chosen in [*((part, [part]) for part in parts), ("**all**", parts)]:
            figures = [sum(counts[kind, part, outcome] for part in chosen) for outcome in OUTCOMES]
            lines.append(f"| {kind} | {title} | {sum(figures):,} | {' | '.join(f'{n:,}' for n in figures)} |")
    wrong = [case for case in cases if case.outcome in BAD]
    lines += [""] + [f"* {c.outcome}, {c.kind}, {c.part}: `{c.what}`: {c.message[:300]}" for c in wrong]
    return "\n".join(lines).rstrip() + "\n"
