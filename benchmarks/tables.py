"""What the bench's rows say: a table, how far each aim is met, and a plot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from benchmarks.contenders import CONTENDERS, LIMIT

__all__ = ["KEYS", "PASSES", "judge", "plot", "tabulate"]

PASSES = ("forward", "forward+backward")
KEYS = ("workload", "channels", "batch", "group", "dtype", "threads")
PEER = "nfn 0.1.2"

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


class Aim(NamedTuple):
    """What is wanted of a forward and backward pass, the bound, and what finds the values in cases."""

    text: str
    bound: float
    find: Callable[[list[dict[str, Row]]], Found]
    least: bool = False


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
    """Rows of each case and pass, by contender."""
    cases: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        cases.setdefault((*(row[k] for k in KEYS), row["pass"]), {})[row["contender"]] = row
    return cases


def judge(rows: list[Row], device: str) -> str:
    """One line for each aim, dtype and number of threads: how often it is met, and the worst case."""
    lines = ["| forward+backward | aim | dtype | threads | met | worst | where |", "|" + "---|" * 7]
    settings: dict[tuple[str, int], list[dict[str, Row]]] = {}
    for (*_, dtype, threads, which), case in by_case(rows).items():
        if which == PASSES[1]:
            settings.setdefault((dtype, threads), []).append(case)
    for text, bound, find, least in AIMS[device]:
        sign = "≥" if least else "≤"
        for (dtype, threads), cases in settings.items():
            if found := find(cases):
                met = sum(value >= bound if least else value <= bound for value, _ in found)
                worst, where = min(found) if least else max(found)
                result = f"{met} of {len(found)} | {worst:.2f} | {where}"
            else:
                result = "not measured | |"
            lines.append(f"| {text} | {sign} {bound:g} | {dtype} | {threads} | {result} |")
    return "\n".join(lines)


def tabulate(rows: list[Row]) -> str:
    """One line a case: milliseconds of ours, and everything else as a ratio in the same rounds."""
    others = [name for name in CONTENDERS if name not in ("nfn_torch", LIMIT)]
    lines = [
        f"| {' | '.join(KEYS)} | pass | rounds | nfn_torch (ms) | nfn_torch / {LIMIT} | "
        + " | ".join(f"{name} / nfn_torch" for name in others)
        + f" | peak memory, nfn_torch / {PEER} | peak memory, checkpointed / {PEER} |",
        "|" + "---|" * (len(KEYS) + 6 + len(others)),
    ]
    for key, found in by_case(rows).items():
        mine = found["nfn_torch"]
        spread = 500 * (mine["quartile 3"] - mine["quartile 1"])
        ratios = [f"{found[n]['median'] / mine['median']:.2f}" if n in found else "" for n in others]
        peaks = [found.get(n, {}).get("peak bytes") for n in ("nfn_torch", "nfn_torch checkpointed", PEER)]
        memory = [f"{peak / peaks[-1]:.2f}" if peak and peaks[-1] else "" for peak in peaks[:-1]]
        limit = f"{mine['median'] / found[LIMIT]['median']:.2f}"
        line = [
            *map(str, (*key, mine["rounds"])),
            f"{1000 * mine['median']:.1f} ± {spread:.1f}",
            limit,
            *ratios,
            *memory,
        ]
        lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines)


def plot(path: Path, rows: list[Row]) -> None:
    """Time of a forward and backward pass over the limit's, for every case and contender."""
    cases = {key[:-1]: found for key, found in by_case(rows).items() if key[-1] == PASSES[1]}
    figure = Figure(figsize=(9, 1 + 0.32 * len(cases)), layout="constrained")
    panel = figure.subplots()
    for contender in CONTENDERS:
        points = [
            (c[contender]["median"] / c[LIMIT]["median"], y) for y, c in enumerate(cases.values()) if contender in c
        ]
        if points and contender != LIMIT:
            panel.plot(*zip(*points, strict=True), "o", label=contender)
    panel.axvline(1, color="0.5")
    panel.set_xscale("log")
    labels = ["{}, {} channels, batch {}, {}, {}, {} threads".format(*key) for key in cases]
    panel.set_yticks(range(len(cases)), labels)
    panel.invert_yaxis()
    panel.set_xlabel("time of forward+backward / limit")
    panel.legend()
    figure.savefig(path)
