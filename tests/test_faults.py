"""The campaign of faults: it finds what is wrong with targets that are wrong, and nothing in the project."""

import json
import os
import signal
import warnings
from collections import Counter

import numpy as np
import pytest
from click.testing import CliRunner

import nfn_core
from faults import damage, files, inputs, kills, layouts, outcomes
from faults.__main__ import main
from faults.examples import EXAMPLES
from nfn_core import SpecError
from nfn_core.checks import real_number
from tests import interrupted_jobs as jobs

SEED = 0


def found(cases):
    return Counter(case.outcome for case in cases)


def bad(cases):
    return [case for case in cases if case.outcome in outcomes.BAD]


# Bad inputs


def careful(factor: float) -> float:
    """As it should be."""
    return real_number("factor", factor, "positive")


def swallows(factor: float) -> float:
    """Takes what is wrong for 1, without a word."""
    try:
        return careful(factor)
    except SpecError:
        return 1.0


def changes(factor: float) -> float:
    """Gives something else for another spelling of the same number."""
    return careful(factor) + (type(factor) is not float)


def raises_raw(factor: float) -> float:
    """Leaves it to Python to complain."""
    return real_number("factor", float(factor), "positive")


def names_nothing(factor: float) -> float:
    """Says that something is wrong, and not what."""
    try:
        return careful(factor)
    except SpecError:
        raise SpecError("something is wrong") from None


def tried(monkeypatch, function):
    monkeypatch.setitem(EXAMPLES, "factor", 2.0)
    return inputs.campaign(0, 1, [inputs.target("here", function.__name__, function)])


def test_bad_inputs_are_judged(monkeypatch):
    assert set(found(tried(monkeypatch, careful))) == {"refused by name", "unharmed"}
    cases = bad(tried(monkeypatch, swallows))
    assert {case.outcome for case in cases} == {"silent"}
    assert {"here.swallows.factor = nan", "here.swallows.factor = True"} <= {case.what for case in cases}
    (case,) = bad(tried(monkeypatch, changes))
    assert (case.outcome, case.what) == ("silent", "here.changes.factor as np.float64")
    cases = bad(tried(monkeypatch, raises_raw))
    assert {"here.raises_raw.factor = []", "here.raises_raw.factor = None"} <= {
        c.what for c in cases if c.outcome == "raw"
    }
    assert {"here.raises_raw.factor = True"} == {case.what for case in cases if case.outcome == "silent"}
    cases = bad(tried(monkeypatch, names_nothing))
    assert all(c.outcome == "raw" and "names none of" in c.message for c in cases)
    assert len(cases) > 10


def test_a_new_callable_must_have_an_example(monkeypatch):
    def unheard_of(strange):
        """New."""

    monkeypatch.setattr(nfn_core, "unheard_of", unheard_of, raising=False)
    monkeypatch.setattr(nfn_core, "__all__", [*nfn_core.__all__, "unheard_of"])
    with pytest.raises(outcomes.CampaignError, match=r"nfn_core.unheard_of: no valid example of 'strange'"):
        list(inputs.targets())
    monkeypatch.setitem(EXAMPLES, "unheard_of.strange", 3)
    target = inputs.target("nfn_core", "unheard_of", unheard_of)
    with pytest.raises(outcomes.CampaignError, match="may be anything by its type"):
        list(inputs.trials(target))


def test_every_public_callable_is_tried():
    names = {f"{target.module}.{target.name}" for target in inputs.targets()}
    assert {"nfn_core.NFLayer", "nfn_core.NFLayer.apply", "nfn_core.WeightSpace.mlp", "nfn_core.neuron_group"} <= names
    assert {"nfn_torch.NFModule.forward", "nfn_jax.init", "nfn_conformance.Subject"} <= names
    left = {name for name in inputs.NOT_TRIED if "." not in name}
    assert not left - {name for module in inputs.MODULES for name in module.__all__}


# Damaged files


def save(folder):
    np.arange(64.0).tofile(folder / "numbers.bin")
    return [folder / "numbers.bin"]


def read(folder):
    """As it should be, for a format without a checksum."""
    path = folder / "numbers.bin"
    if not path.is_file() or path.stat().st_size != 512:
        raise SpecError(f"{path} is damaged.")
    return np.nan_to_num(np.fromfile(path))


def read_what_comes(folder):
    """Takes files of any length, and zeros for a missing one."""
    path = folder / "numbers.bin"
    return np.fromfile(path, np.uint8) if path.is_file() else np.zeros(512, np.uint8)


def read_or_die(folder):
    """Ends the process."""
    try:
        return read(folder)
    except SpecError:
        os.kill(os.getpid(), signal.SIGSEGV)


def damaged(reader, checked=False):
    return files.campaign(0, 60, [layouts.Layout("numbers", save, reader, checked)])


def test_damaged_files_are_judged():
    cases = damaged(read)
    assert set(found(cases)) == {"refused by name", "undetectable"}
    assert len(cases) == 60
    assert set(found(damaged(read, checked=True))) == {"refused by name", "silent"}
    silent = [case for case in damaged(read_what_comes) if case.outcome == "silent"]
    assert {"cut", "appended", "deleted"} <= {word for case in silent for word in case.what.split()}
    assert "raw" not in found(damaged(read_what_comes))
    cases = [case for case in damaged(lambda folder: np.fromfile(folder / "numbers.bin")[:1]) if case.outcome == "raw"]
    assert {case.message.partition(":")[0] for case in cases} == {"FileNotFoundError", "IsADirectoryError"}
    cases = damaged(read_or_die)
    assert len(cases) == 60
    assert {case.message for case in cases if case.outcome == "raw"} == {"ended the process: SIGSEGV"}


def test_damage_is_drawn_from_the_seed(tmp_path):
    path, whole = tmp_path / "a.json", json.dumps({"a": [1, 2], "b": "x"}).encode()
    for change in damage.DAMAGES:
        done = []
        for _ in range(2):
            path.write_bytes(whole)
            done.append(change(path, whole, np.random.default_rng(3), {path: whole}))
            if path.is_dir():
                path.rmdir()
        assert done[0] == done[1]
    assert damage.same_form(whole, b'{"a": [3, 4], "b": ""}')
    assert not damage.same_form(whole, b'{"a": [3, "4"], "b": ""}')
    assert not damage.same_form(whole, b"{")


# Kills


def killed(*chosen):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a server that pytest sees leave
        return kills.campaign(0, 6, [kills.Job(job.__name__, job) for job in chosen], jobs.nothing)


def test_kills_are_judged(monkeypatch):
    monkeypatch.setattr(kills, "PRELOADED", ["faults.kills", jobs.__name__])  # the jobs need no more
    cases = killed(jobs.whole_or_absent, jobs.half_written, jobs.stumbles)
    by_job = {
        name: found(c for c in cases if c.part == name) for name in ("whole_or_absent", "half_written", "stumbles")
    }
    assert set(by_job["whole_or_absent"]) == {"unharmed"}
    assert "silent" in by_job["half_written"]
    assert "raw" in by_job["stumbles"]
    assert "FileExistsError" in next(case.message for case in cases if case.part == "stumbles")


def test_what_kills_compare(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"seconds": 1, "loss": 2, "inner": [{"environment": {}, "x": 3}]}))
    (tmp_path / "t.md").write_text("| loss | time |\n| 2 | 0.1 |\n")
    (tmp_path / "events.out.tfevents.1").write_text("")
    found = kills.contents(tmp_path)
    assert found == {"a.json": {"loss": 2, "inner": [{"x": 3}]}, "t.md": ["loss ", "2 ", ""]}


# All of it, and the table


def test_the_table_counts_and_names():
    cases = [
        outcomes.Case("inputs", "nfn_core", "f(1)", "unharmed"),
        outcomes.Case("inputs", "nfn_core", "f(2)", "raw", "TypeError: no"),
        outcomes.Case("files", "shard", "cut", "refused by name"),
    ]
    lines = outcomes.table(cases).splitlines()
    assert "| inputs | nfn_core | 2 | 0 | 1 | 0 | 1 | 0 |" in lines
    assert "| files | **all** | 1 | 1 | 0 | 0 | 0 | 0 |" in lines
    assert lines[-1] == "* raw, inputs, nfn_core: `f(2)`: TypeError: no"


@pytest.mark.parametrize(("outcome", "status"), [("unharmed", 0), ("silent", 1), ("raw", 1)])
def test_the_command_ends_by_what_it_found(outcome, status, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "campaign", lambda *_: [outcomes.Case("files", "shard", "cut", outcome)])
    page = tmp_path / "faults.md"
    done = CliRunner().invoke(main, ["--kind", "files", "--short", "--output", str(page)])
    assert done.exit_code == status
    assert page.read_text().startswith("`python -m faults --kind files --seed 0 --short`\n\n| kind |")


@pytest.mark.slow(seconds=30)
def test_the_project_stands_a_sample():
    quick = [layout for layout in layouts.LAYOUTS if layout.slow == 1]
    assert bad(inputs.campaign(SEED, 50)) == []
    assert bad(files.campaign(SEED, len(quick), quick)) == []
