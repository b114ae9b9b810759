"""What the bench's rows say: a table, how far each aim is met, and a plot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from benchmarks.contenders import CONTENDERS, LIMIT, PASSES
from benchmarks.steps import STEP_CONTENDERS

__all__ = ["KEYS", "judge", "plot", "tabulate"]

KEYS = ("workload", "channels", "batch", "group", "dtype", "threads")
PEER, STEP = "nfn 0.1.2", "step"

Row = dict[str, Any]
Found = list[tuple[float, str]]  # values, and where they were found


def ratio(
    over: str, under: str, quantity: str = "median", among: Callable[[Row], bool] = lambda row: True
) -> Callable[[list[dict[str, Row]]], Found]:
    """What finds in cases one contender's quantity over another's."""

    def find(cases: list[dict[str, Row]]) -> Found:
        pairs = [(c[over], c[under]) for c in cases if over in c and under in c]
        return [(a[quantity] / b[quantity], name(a)) for a, b in pairs if a[quantity] and b[quantity] and among(a)]

    return find


def growth(family: Callable[[Row], bool]) -> Callable[[list[dict[str, Row]]], Found]:
    """What finds in cases our largest time an entry over the smallest, among the workloads of a family, for each group."""

    def find(cases: list[dict[str, Row]]) -> Found:
        costs: dict[str, list[tuple[float, str]]] = {}
        for row in (c["nfn_torch"] for c in cases if "nfn_torch" in c):
            if family(row):
                costs.setdefault(row["group"], []).append((row["median"] / row["entries"], name(row)))
        ends = [(max(found), min(found)) for found in costs.values() if len(found) > 1]
        return [(most[0] / least[0], f"{most[1]} over {least[1]}") for most, least in ends]

    return find


def data_share(cases: list[dict[str, Row]]) -> Found:
    """Find in cases the share of our step that reads networks."""
    return [(c["data"]["median"] / c["nfn_torch"]["median"], name(c["data"])) for c in cases if "data" in c]


class Aim(NamedTuple):
    """What is wanted of a pass, the bound, and what finds the values in cases."""

    text: str
    bound: float
    find: Callable[[list[dict[str, Row]]], Found]
    least: bool = False


STEP_AIMS = (
    Aim(
        "ours / limit, SIRENs, 32 channels and more",
        1.3,
        ratio("nfn_torch", LIMIT, among=lambda r: r["channels"] >= 32),
    ),
    Aim("ours / limit, CNN zoo, batch 8", 1.6, ratio("nfn_torch", LIMIT, among=lambda r: r["batch"] == 8)),
    Aim("peer / ours", 1.8, ratio(PEER, "nfn_torch"), least=True),
    Aim("peer compiled / ours", 1.3, ratio(f"{PEER} compiled", "nfn_torch"), least=True),
    Aim("ours compiled / ours", 1, ratio("nfn_torch compiled", "nfn_torch")),
    Aim("ours in JAX / ours", 1.2, ratio("nfn_jax jitted", "nfn_torch")),
    Aim("ours / ours in JAX", 1.2, ratio("nfn_torch", "nfn_jax jitted")),
    Aim("peak memory, ours / peer", 0.6, ratio("nfn_torch", PEER, "peak bytes")),
    Aim("data / ours", 0.05, data_share),
)
AIMS = {
    "cpu": (
        Aim("ours / limit, 64 channels and more", 1.1, ratio("nfn_torch", LIMIT, among=lambda r: r["channels"] >= 64)),
        Aim("ours / limit, fewer channels", 1.3, ratio("nfn_torch", LIMIT, among=lambda r: r["channels"] < 64)),
        Aim("peer / ours", 1.8, ratio(PEER, "nfn_torch"), least=True),
        Aim("peer / ours, MLP", 4.5, ratio(PEER, "nfn_torch", among=lambda r: "MLP" in r["workload"]), least=True),
        Aim("peer compiled / ours", 1, ratio(f"{PEER} compiled", "nfn_torch"), least=True),
        Aim("ours compiled / ours", 1, ratio("nfn_torch compiled", "nfn_torch")),
        Aim("ours in JAX / ours", 1.3, ratio("nfn_jax jitted", "nfn_torch")),
        Aim("peak memory, ours / peer", 0.6, ratio("nfn_torch", PEER, "peak bytes")),
        Aim("peak memory, ours checkpointed / peer", 0.6, ratio("nfn_torch checkpointed", PEER, "peak bytes")),
        Aim("time an entry, over depths", 1.2, growth(lambda r: r["workload"].endswith("layers of 32"))),
        Aim(
            "time an entry, over widths",
            1.2,
            growth(lambda r: r["workload"].startswith("3 layers of") and r["channels"] == 16),
        ),
    ),
    "cuda": (
        Aim("ours / limit", 2, ratio("nfn_torch", LIMIT)),
        Aim("peer / ours", 4, ratio(PEER, "nfn_torch"), least=True),
        Aim("peer compiled / ours", 2, ratio(f"{PEER} compiled", "nfn_torch"), least=True),
    ),
}


def name(row: Row) -> str:
    """A case in words."""
    return "{workload}, {channels} channels, {group}, batch {batch}".format(**row)


def by_case(rows: list[Row]) -> dict[tuple[Any, ...], dict[str, Row]]:
    """Rows of each case and pass, by contender; the reading of networks beside the steps it is part of, as ``"data"``."""
    cases: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        of, contender = (STEP, "data") if row["pass"] == "data" else (row["pass"], row["contender"])
        cases.setdefault((*(row[k] for k in KEYS), of), {})[contender] = row
    return cases


def judge(rows: list[Row], device: str) -> str:
    """One line for each aim, dtype and number of threads: how often it is met, and the worst case."""
    lines = ["| pass | aim | bound | dtype | threads | met | worst | where |", "|" + "---|" * 8]
    settings: dict[str, dict[tuple[str, int], list[dict[str, Row]]]] = {PASSES[1]: {}, STEP: {}}
    for (*_, dtype, threads, which), case in by_case(rows).items():
        if which in settings:
            settings[which].setdefault((dtype, threads), []).append(case)
    for which, aims in ((PASSES[1], AIMS[device]), (STEP, STEP_AIMS)):
        for text, bound, find, least in aims:
            sign = "≥" if least else "≤"
            for (dtype, threads), cases in settings[which].items():
                if found := find(cases):
                    met = sum(value >= bound if least else value <= bound for value, _ in found)
                    worst, where = min(found) if least else max(found)
                    result = f"{met} of {len(found)} | {worst:.2f} | {where}"
                else:
                    result = "not measured | |"
                lines.append(f"| {which} | {text} | {sign} {bound:g} | {dtype} | {threads} | {result} |")
    return "\n".join(lines)


def tabulate(rows: list[Row], passes: tuple[str, ...]) -> str:
    """One line a case: milliseconds of ours, and everything else as a ratio in the same rounds."""
    contenders = STEP_CONTENDERS if passes == (STEP,) else CONTENDERS
    others = [name for name in contenders if name not in ("nfn_torch", LIMIT)]
    peaks = [name for name in ("nfn_torch", "nfn_torch checkpointed") if name in contenders]
    titles = [*KEYS, "pass", "rounds", "nfn_torch (ms)", f"nfn_torch / {LIMIT}"]
    titles += [f"{name} / nfn_torch" for name in others] + [f"peak memory, {name} / {PEER}" for name in peaks]
    titles += ["data / nfn_torch"] if passes == (STEP,) else []
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for key, found in by_case(rows).items():
        if key[-1] not in passes:
            continue
        mine = found["nfn_torch"]

        def over(a: str, b: str, quantity: str, found: dict[str, Row] = found) -> str:
            above, below = (found.get(name, {}).get(quantity) for name in (a, b))
            return f"{above / below:.2f}" if above and below else ""

        spread = 500 * (mine["quartile 3"] - mine["quartile 1"])
        line = [*map(str, (*key, mine["rounds"])), f"{1000 * mine['median']:.1f} ± {spread:.1f}"]
        line += [over("nfn_torch", LIMIT, "median"), *(over(name, "nfn_torch", "median") for name in others)]
        line += [over(name, PEER, "peak bytes") for name in peaks]
        line += [over("data", "nfn_torch", "median")] if passes == (STEP,) else []
        lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines)


def plot(path: Path, rows: list[Row]) -> None:
    """Time of a forward and backward pass, or of a step, over the limit's, for every case that has one and contender."""
    found = {key: case for key, case in by_case(rows).items() if key[-1] != PASSES[0] and LIMIT in case}
    figure = Figure(figsize=(9, 1 + 0.32 * len(found)), layout="constrained")
    panel = figure.subplots()
    for contender in dict.fromkeys([*CONTENDERS, *STEP_CONTENDERS]):
        points = [
            (c[contender]["median"] / c[LIMIT]["median"], y) for y, c in enumerate(found.values()) if contender in c
        ]
        if points and contender != LIMIT:
            panel.plot(*zip(*points, strict=True), "o", label=contender)
    panel.axvline(1, color="0.5")
    panel.set_xscale("log")
    labels = ["{}, {} channels, batch {}, {}, {}, {} threads, {}".format(*key) for key in found]
    panel.set_yticks(range(len(found)), labels)
    panel.invert_yaxis()
    panel.set_xlabel("time / limit")
    if panel.lines[1:]:
        panel.legend(loc="lower right")
    figure.savefig(path)
