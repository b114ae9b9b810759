"""Files are whole or absent and as they were written, one process writes in a folder, and errors are one line with a path."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from helpers import KilledError, flipped
from safetensors.numpy import save_file

from reference_experiments.cli.options import reports_errors
from reference_experiments.files import (
    ExperimentError,
    claimed,
    held,
    read_arrays,
    read_json,
    reading,
    write,
    write_arrays,
    write_json,
)

ROOT = Path(__file__).parents[2]
VALUE = {"a": 1.5, "b": ["x", None, {"c": float("nan")}], "d": "é"}


@pytest.mark.parametrize("kind", ["json", "arrays"])
def test_every_flipped_bit_is_found(kind, tmp_path):
    path = tmp_path / "file"
    arrays = {"x": np.arange(3.0), "y": np.zeros((2, 0)), "z": np.array(7, np.int32)}
    if kind == "json":
        write_json(path, VALUE)
        read = read_json
    else:
        write_arrays(path, arrays)
        read = read_arrays
    whole = path.read_bytes()
    for place in range(0, 8 * len(whole), 3):
        path.write_bytes(flipped(whole, place))
        with pytest.raises(ExperimentError, match=f"^{path} (is damaged|has no checksum)"):
            read(path)
    path.write_bytes(whole)
    if kind == "json":
        assert json.dumps(read(path)) == json.dumps(VALUE)
    else:
        found = read(path)
        assert {n: (x.dtype, x.tolist()) for n, x in found.items()} == {
            n: (x.dtype, x.tolist()) for n, x in arrays.items()
        }
    write_json(path, VALUE) if kind == "json" else write_arrays(path, arrays)
    assert path.read_bytes() == whole


def test_files_without_a_checksum(tmp_path):
    path = tmp_path / "old"
    path.write_text(json.dumps(VALUE))
    assert read_json(path, unsealed=True)["d"] == "é"
    with pytest.raises(ExperimentError, match="old has no checksum, so an earlier version wrote it"):
        read_json(path)
    write_json(path, VALUE)
    path.write_bytes(path.read_bytes().replace(b"1.5", b"1.4"))
    with pytest.raises(ExperimentError, match="do not agree with its checksum"):
        read_json(path, unsealed=True)  # where there is one it counts
    save_file({"x": np.zeros(3)}, path)
    with pytest.raises(ExperimentError, match="old has no checksum"):
        read_arrays(path)


@pytest.mark.parametrize("text", [b"[1]", b'"text"', b"3", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe{}", b""])
def test_json_of_other_shapes(text, tmp_path):
    path = tmp_path / "file.json"
    path.write_bytes(text)
    with pytest.raises(ExperimentError, match=r"file.json is damaged, or no JSON object"):
        read_json(path, unsealed=True)


def test_only_ordinary_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for name, message in (
        ("pipe", "is no ordinary file"),
        (".", "is no ordinary file"),
        ("link", "is a link to nothing"),
        ("nothing", "is missing"),
        ("x" * 300, r"cannot be read \(File name too long\)"),
    ):
        for read in (read_json, read_arrays):
            with pytest.raises(ExperimentError, match=message):
                read(tmp_path / name)


@pytest.mark.parametrize("error", [RecursionError("deep"), MemoryError(), KeyError("x"), OverflowError("large")])
def test_whatever_a_reader_raises_names_the_file(error, tmp_path):
    path = tmp_path / "file"
    path.touch()
    with (
        pytest.raises(ExperimentError, match=f"^{path} is damaged, or no table .*: get it again.$"),
        reading(path, "table"),
    ):
        raise error
    with pytest.raises(ExperimentError, match="file is damaged.*of another"), reading(path, "table"):
        raise ExperimentError("of another")  # that names no file
    with pytest.raises(KeyboardInterrupt), reading(path, "table"):
        raise KeyboardInterrupt


# Writing


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})

    def save(p):
        p.write_text("half")
        raise KilledError

    with pytest.raises(KilledError):
        write(path, save)
    assert read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["file.json"]


def test_errors_of_writing_name_the_path(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path, message in (
        (tmp_path / "file" / "x.json", "Not a directory|File exists"),
        (tmp_path / "folder", "Is a directory"),
        (tmp_path / ("x" * 300), "File name too long"),
        (Path("/dev/full/x"), "Not a directory|File exists"),
    ):
        for writer in (write_json, write_arrays):
            with pytest.raises(ExperimentError, match=f"^{path} cannot be written .({message})"):
                writer(path, {})

    def full(p):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(p))

    with pytest.raises(ExperimentError, match=f"^{tmp_path}/a cannot be written .No space left on device..$"):
        write(tmp_path / "a", full)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_contents_are_on_the_disk_before_they_have_their_name(tmp_path, monkeypatch):
    order = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: order.append(("fsync", os.fstat(fd).st_size)) or sync(fd))
    rename = Path.replace
    monkeypatch.setattr(Path, "replace", lambda a, b: order.append(("rename", b.name)) or rename(a, b))
    write(tmp_path / "x", lambda p: p.write_bytes(b"1234"))
    assert order == [("fsync", 4), ("rename", "x")]


def test_writers_of_one_file_do_not_mix(tmp_path):
    path, texts = tmp_path / "x", [c * 10_000 for c in "abcd"]

    def work(text):
        for _ in range(20):
            write(path, lambda p: p.write_text(text))

    threads = [threading.Thread(target=work, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert not path.exists() or path.read_text() in texts
    assert path.read_text() in texts
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), "Error: /a/b: No space left on device.\n"),
        (OSError("no reason"), "Error: OSError: no reason.\n"),
        (ExperimentError("of ours"), "Error: of ours\n"),
    ],
)
def test_commands_tell_errors_in_one_line(error, message):
    @click.command()
    @reports_errors
    def failing():
        raise error

    done = CliRunner().invoke(failing)
    assert (done.exit_code, done.output) == (1, message)


# Folders

HOLD = """
import sys
from pathlib import Path
from reference_experiments.files import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_held_by_one_process_and_a_killed_one_lets_go(tmp_path):
    folder = tmp_path / "folder"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        message = rf"folder is in use by process {process.pid} on \S+ since 20\d\d-.* UTC: wait until it ends"
        for hold in (held(folder), claimed(folder, {})):
            with pytest.raises(ExperimentError, match=message), hold:
                pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert (folder / ".holder").exists()  # it could not tidy up
    with held(folder), held(folder):  # a run may claim what its command holds
        assert str(os.getpid()) in (folder / ".holder").read_text()
    assert not (folder / ".holder").exists()


def test_only_the_main_process_holds_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with claimed(tmp_path / "folder", {"a": 1}):
        assert not (tmp_path / "folder").exists()


def test_a_folder_is_claimed_for_one_run(tmp_path):
    for _ in range(2):
        with claimed(tmp_path, {"a": (1, 2)}):
            assert read_json(tmp_path / "settings.json") == {"a": [1, 2]}
    with pytest.raises(ExperimentError, match="holds a run with settings"), claimed(tmp_path, {"a": 2}):
        pass
    (tmp_path / "settings.json").unlink()
    (tmp_path / "dataset.json").touch()
    with pytest.raises(ExperimentError, match="holds another dataset"), claimed(tmp_path, {"a": 2}):
        pass
    assert not (tmp_path / "settings.json").exists()


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ExperimentError, match="file/x cannot be written to .Not a directory"),
        held(tmp_path / "file/x"),
    ):
        pass


def test_who_claims_a_folder_sweeps_what_killed_runs_left(tmp_path):
    left, kept = tmp_path / "run" / "deep" / ".partial-1.json", tmp_path / "run" / "result.json"
    for path in (left, kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    with claimed(tmp_path / "run", {"seed": 0}):
        assert not left.exists()
    left.write_text("{}")
    with pytest.raises(ExperimentError, match="holds a run with settings"), claimed(tmp_path / "run", {"seed": 1}):
        pass
    assert left.exists()
    assert kept.exists()
