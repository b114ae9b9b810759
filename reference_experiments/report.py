"""One page of all results: each table compared with the paper's, with a verdict and its reason, and figures."""

import html
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import markdown
import numpy as np

from nfn_core import NFNError
from reference_experiments.experiments import EXPERIMENTS
from reference_experiments.experiments.base import Experiment
from reference_experiments.experiments.paper import PAPER, ROUNDING
from reference_experiments.figures import draw_curves
from reference_experiments.files import ExperimentError, read_json, reading, reason, write
from reference_experiments.runner import OVERFIT_NETWORKS, file_name

__all__ = ["REPRODUCED", "read_results", "report", "verdicts"]

REPRODUCED, ORDER, NOT, MISSING = "reproduced", "same order, different level", "not reproduced", "not run"
STYLE = "<style>body{font:15px sans-serif;max-width:75em;margin:2em auto}td,th{padding:.2em .6em;border-bottom:1px solid #ccc}img{max-width:100%}</style>"

COUNTS = ("training", "validation", "test", "shard")
"""Settings of makers that do not say how a network is made."""

TITLES = {
    "channels": "NF-layers' channels",
    "head_dropout": "head's dropout",
    "fourier": "Fourier features (number, scale)",
    "raw_fourier": "Fourier features of raw weights",
}
"""Settings of networks by other names than their own."""

Runs = Mapping[str, Mapping[str, Sequence[dict[str, Any]]]]
"""Results by dataset and method, one for each seed."""

Results = dict[tuple[str, str, str], dict[str, dict[str, list[dict[str, Any]]]]]
"""Results by experiment, scale and backend, then by dataset and method."""


def report(folder: Path) -> Path:
    """Write ``report.md`` and ``report.html`` for all results under a folder.

    Parameters
    ----------
    folder : pathlib.Path
        Results lie in ``EXPERIMENT-SCALE-BACKEND/DATASET/METHOD-seedN.json`` below it.

    Returns
    -------
    pathlib.Path
        The Markdown page.

    Raises
    ------
    ExperimentError
        If there are no results, or a file is damaged or no result.
    """
    found = read_results(folder)
    for datasets in found.values():
        for rows in datasets.values():
            for results in list(rows.values()):
                rows |= {name: [metrics] for name, metrics in results[-1]["baselines"].items()}
    page = ["# Results compared with the paper\n", _legend()]
    for (name, scale, backend), datasets in found.items():
        try:
            page += _section(folder, name, scale, backend, datasets)
        except NFNError:
            raise
        except Exception as error:  # each is a result, but they do not go together, or no figure can be drawn of one
            where = ", ".join(datasets)
            raise ExperimentError(
                f"{folder}: the results of {name}, {scale}, {backend} on {where} cannot be shown together ({reason(error)}): "
                "run the experiment again."
            ) from error
    missing = [name for name in EXPERIMENTS if name not in {key[0] for key in found}]
    if missing:
        page.append(f"Not run: {', '.join(missing)}.\n")
    text = "\n".join(page)
    write(folder / "report.md", lambda path: path.write_text(text))
    shown = STYLE + markdown.markdown(text, extensions=["tables"])
    write(folder / "report.html", lambda path: path.write_text(shown))
    return folder / "report.md"


def read_results(folder: Path) -> Results:
    """Read all results under a folder.

    Parameters
    ----------
    folder : pathlib.Path
        As `report` takes it.

    Returns
    -------
    dict
        By experiment, scale and backend, in the order of the tables, then by dataset, then by method: a result for each
        seed.

    Raises
    ------
    ExperimentError
        If there are no results, or a file is damaged or no result.
    """
    found: Results = {}
    seen: dict[tuple[str, ...], Path] = {}
    for path in sorted(folder.rglob("*-seed*.json")):
        result = _read_result(path)
        key = (result["experiment"], result["scale"], result["backend"])
        first = seen.setdefault((*key, result["dataset"], path.name), path)
        if first != path:
            raise ExperimentError(f"{path} and {first} are results of the same training: take one of them out.")
        by_method = found.setdefault(key, {}).setdefault(result["dataset"], {})
        by_method.setdefault(result["method"], []).append(result)
    if not found:
        raise ExperimentError(f"{folder} holds no results: run an experiment first, or name the folder of its results.")
    names = list(EXPERIMENTS)
    return dict(sorted(found.items(), key=lambda item: (names.index(item[0][0]), *item[0][1:])))


def _read_result(path: Path) -> dict[str, Any]:
    """Read a result of the runner, and see that it is one and in its place; those of earlier versions have no checksum."""
    result: dict[str, Any] = _plain(read_json(path, unsealed=True))
    with reading(path, "result of `run`", "take it out, or run the experiment again"):
        name, scale, backend, dataset, method = (
            result[k] for k in ("experiment", "scale", "backend", "dataset", "method")
        )
        if path.stem != file_name(method, result["seed"]):
            raise ExperimentError(
                f"{path} is not the result of {path.stem.replace('-seed', ' with seed ')}: take it out."
            )
        np.array([[evaluation[key] for key in ("step", "loss", "metric")] for evaluation in result["curve"]], float)
        rows = {method: [result], **{baseline: [found] for baseline, found in result["baselines"].items()}}
        _table(name, scale, backend, {dataset: rows})  # which takes nothing else
        _made(dataset, {method: [result]})
    return result


def _plain(value: Any) -> Any:
    """JSON whose texts show as they are in Markdown and HTML: no tags, links or table cells."""
    if isinstance(value, dict):
        return {_plain(key): _plain(x) for key, x in value.items()}
    if isinstance(value, list):
        return [_plain(x) for x in value]
    if not isinstance(value, str):
        return value
    return re.sub(r"([\\`*\[\]|])", r"\\\1", html.escape(" ".join(value.split()), quote=False))


def _trained(runs: Runs) -> Runs:
    """What was trained, and not only measured."""
    return {dataset: {m: r for m, r in rows.items() if "curve" in r[0]} for dataset, rows in runs.items()}


def verdicts(experiment: str, runs: Runs, metric: str) -> dict[tuple[str, str], str]:
    """Judge every row for which the paper has a figure.

    A row is reproduced if its mean is within two standard errors of both sides together from the paper's figure. Its
    order is the paper's if of every other method of that dataset that was run, and that the paper sets clearly apart, it
    lies on the same side here. Clearly apart means that the paper's two intervals are apart by more than rounding can
    make them: half a last place of each figure and of each uncertainty.

    Parameters
    ----------
    experiment : str
        One of `EXPERIMENTS`.
    runs : mapping
        Results by dataset and method.
    metric : str
        What is compared.

    Returns
    -------
    dict of (str, str) to str
        By dataset and method.
    """
    found = {}
    for dataset, rows in PAPER.get(experiment, {}).items():
        theirs = {method: figures[metric] for method, figures in rows.items() if metric in figures}
        ours = {m: summary(results, metric) for m, results in runs.get(dataset, {}).items() if m in theirs}
        for method, (value, error) in theirs.items():
            if method not in ours:
                found[dataset, method] = MISSING
                continue
            mean, standard_error = ours[method]
            others = [m for m in ours if _apart(theirs[m], (value, error), ROUNDING[metric])]
            same = all((theirs[m][0] > value) == (ours[m][0] > mean) for m in others)
            close = abs(mean - value) <= 2 * (error**2 + standard_error**2) ** 0.5
            found[dataset, method] = REPRODUCED if close else ORDER if same and others else NOT
    return found


def _apart(one: tuple[float, float], other: tuple[float, float], rounding: float) -> bool:
    """Whether the intervals of two printed figures are apart, however each number was rounded."""
    gap = abs(one[0] - other[0]) - one[1] - other[1]
    return gap > 2.001 * rounding  # 2, and the rounding of binary numbers


def summary(results: Sequence[Mapping[str, Any]], metric: str) -> tuple[float, float]:
    """Mean and its standard error: over seeds (0 for one), or over the test networks where each has a value."""
    each = [result["per_network"][metric] for result in results if metric in result.get("per_network", {})]
    values = np.mean(each, axis=0) if each else np.array([result["metrics"][metric] for result in results])
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def label(metric: str) -> str:
    """Name of a metric in tables: ``test_tau`` is test τ."""
    words = {"tau": "τ", "r2": "R²", "imp": "IMP"}
    return " ".join(words.get(word, word) for word in metric.split("_"))


def _legend() -> str:
    return (
        "± is the standard error over seeds, in table 5 over initial weights. A row is *reproduced* if it lies within two "
        "standard errors of the paper's figure, has the *same order, different level* if every method that the paper sets "
        "clearly above or below it is on that side here too, and is *not reproduced* otherwise.\n"
    )


def _table(name: str, scale: str, backend: str, runs: Runs) -> list[str]:
    """Title and table of an experiment's results."""
    experiment, theirs = EXPERIMENTS[name], PAPER.get(name, {})
    first = next(iter(next(iter(runs.values())).values()))[0]
    shown = [m for m in first["metrics"] if m.startswith(("test", "train"))]
    printed = [m for m in shown if any(m in figures for rows in theirs.values() for figures in rows.values())]
    judged = verdicts(name, runs, experiment.task.metric)
    tables = f" (tables {', '.join(map(str, experiment.tables))})" if experiment.tables else ""
    titles = ["dataset", "method", "parameters", "seeds", "steps", *map(label, shown)]
    titles += [f"{label(m)} in the paper" for m in printed]
    titles += [f"overfit check on {OVERFIT_NETWORKS} networks", *(["verdict"] if theirs else [])]
    lines = [
        f"## {experiment.title}{tables}, {scale} scale, {backend}\n",
        _difference(experiment, scale, _trained(runs)),
    ]
    lines += ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for dataset, method in dict.fromkeys([*judged, *((d, m) for d, rows in runs.items() for m in rows)]):
        results, figures = runs.get(dataset, {}).get(method, []), theirs.get(dataset, {}).get(method, {})
        known = results[0] if results else {"metrics": {}}
        cells = [dataset, method, f"{known['parameters']:,}" if "parameters" in known else ""]
        cells.append(str(sum("seed" in result for result in results)))
        cells.append(f"{known['recipe']['steps']:,}" if "recipe" in known else "")
        cells += [_figure(*summary(results, m), m) if m in known["metrics"] else "" for m in shown]
        cells += [_figure(*figures[m], m) if m in figures else "" for m in printed]
        cells.append(next((f"{r['overfit_check']:.3f}" for r in results if r.get("overfit_check") is not None), ""))
        cells += [judged.get((dataset, method), "not in the paper")] if theirs else []
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _section(folder: Path, name: str, scale: str, backend: str, runs: Runs) -> list[str]:
    """Table, figures and what the results were made with."""
    lines = _table(name, scale, backend, runs)
    for dataset, rows in _trained(runs).items():
        lines.append("\n" + _made(dataset, rows))
        where = folder / "figures" / re.sub(r"[^\w.-]", "-", f"{name}-{scale}-{backend}-{dataset}")
        best = {method: max(results, key=lambda r: r["curve"][-1]["metric"]) for method, results in rows.items()}
        curves, predictions = (where.with_name(f"{where.name}-{kind}.png") for kind in ("curves", "predictions"))
        draw_curves(curves, rows)
        EXPERIMENTS[name].task.draw(predictions, best)
        lines += [f"\n![{dataset}]({path.relative_to(folder).as_posix()})" for path in (curves, predictions)]
    return [*lines, ""]


def _figure(value: float, error: float, metric: str) -> str:
    digits = 2 if "accuracy" in metric else 3
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _difference(experiment: Experiment, scale: str, runs: Runs) -> str:
    """What sets this scale apart from the paper's: the likely reason where levels differ."""
    ours, paper = experiment.scales[scale], experiment.scales["paper"]
    old = {"config": asdict(ours.config)}  # old results hold no configuration
    first = [old | results[0] for rows in runs.values() for results in rows.values()]
    counts = defaultdict(list)
    for dataset, rows in runs.items():
        for results in rows.values():
            counts[json.dumps(results[0]["data"]["networks"])].append(dataset)
    networks = "; ".join(f"{', '.join(dict.fromkeys(names))}: {c}" for c, names in counts.items())
    parts = [f"networks {networks}".replace('"', "").replace("{", "").replace("}", ""), *_makings(experiment, runs)]
    for part, settings, fields in (
        ("config", paper.config, ("channels", "head", "head_dropout", "fourier", "raw_fourier")),
        ("recipe", paper.recipe, ("steps", "batch", "learning_rate", "warmup", "cosine", "dtype")),
    ):
        theirs = asdict(settings)
        for field in fields:
            values = [_shown(result[part].get(field, False)) for result in first]
            mine = ", ".join(dict.fromkeys(values))
            if mine != _shown(theirs[field]):
                what = TITLES.get(field, field.replace("_", " "))
                parts.append(f"{what} {mine} ({_shown(theirs[field])} at paper scale)")
    return f"What differs from the paper's scale, the likely reason where levels differ: {'; '.join(parts)}.\n"


def _shown(x: Any) -> str:
    """A setting, whether it has been through JSON or not."""
    return str(tuple(x) if isinstance(x, list) else x)


def _makings(experiment: Experiment, runs: Runs) -> Iterator[str]:
    """How networks were made otherwise than at the paper's scale; how many there are is said elsewhere."""
    for dataset, rows in runs.items():
        data = next(iter(rows.values()))[0]["data"]
        maker = experiment.makers.get(dataset)
        theirs = maker("paper", data["seed"], data["backend"]).settings["scale"] if maker and "scale" in data else {}
        values = {key: (data["scale"].get(key), x) for key, x in theirs.items() if key not in COUNTS}
        other = [f"{key.replace('_', ' ')} {one} ({two})" for key, (one, two) in values.items() if one != two]
        if other:
            yield f"making of {dataset} (in brackets at paper scale): {', '.join(other)}"


def _made(dataset: str, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Data, machine, time and upper bound of τ of a dataset's results."""
    results = [result for found in rows.values() for result in found]
    data, tau_upper_bound = results[0]["data"], results[0]["metrics"].get("tau_upper_bound")
    hours = sum(result["seconds"] for result in results) / 3600
    machines = "; ".join(sorted({", ".join(f"{k} {v}" for k, v in r["environment"].items()) for r in results}))
    quality = "".join(f"median {k} {v['median']:.3g}, " for k, v in data.get("quality", {}).items())
    text = f"{dataset}: networks of {quality}shards' SHA-256 together {data['sha256'][:16]}…; trained on {machines}"
    text += f"; {hours:.1f} hours in all."
    notes = dict.fromkeys(note for result in results for note in result.get("notes", ()))
    text += "".join(f" {note}" for note in notes)
    return text + (f" Ties among the test networks limit τ to {tau_upper_bound:.3f}." if tau_upper_bound else "")
