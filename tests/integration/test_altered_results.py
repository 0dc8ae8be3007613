"""A finished result that somebody altered is never used without a word: it is named, and made again as it was."""

from __future__ import annotations

import shutil

import pytest

from dfnas_ray.errors import StorageError
from dfnas_ray.library import run
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.sealed import remove_altered, seal
from dfnas_ray.workflow.synthesis import Synthesis

RESULTS = (
    "*/*/*.safetensors",
    "*/*/history.json",
    "search/*/*/result.json",
    "search/*/comparison.json",
    "synthesis/*/quality.json",
)


def contents(folder):
    """What a run left, but for times and machines."""
    return {str(file.relative_to(folder)): file.read_bytes() for name in RESULTS for file in folder.glob(name)}


def overwrite(file):
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(len(data[middle : middle + 200]))
    file.write_bytes(bytes(data))


def edit(file):
    text = file.read_text()
    digit = next(index for index, letter in enumerate(text) if letter in "12345678" and text[index - 1] == ".")
    file.write_text(text[:digit] + "9" + text[digit + 1 :])


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("retraining/*/weights.safetensors", overwrite),
        ("baseline/*/network.pt2", lambda file: file.unlink()),
        ("search/*/*/result.json", edit),
        ("search/*/comparison.json", edit),
        ("synthesis/*/quality.json", edit),
        ("evaluation/*/done.json", edit),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_was_altered_is_named_and_made_again(
    tiny_inline_run, tiny_experiment, tmp_path, recorder, pattern, damage
):
    folder = shutil.copytree(tiny_inline_run.folder, tmp_path / "run")
    expected = contents(folder)
    accuracy = tiny_inline_run.outcomes["evaluation"].record.networks
    (file, *_) = sorted(folder.glob(pattern))
    damage(file)
    outcomes = run(tiny_experiment(folder, "cluster.address=inline"), recorder)
    said = [line for line in recorder.said if "was altered or lost since it was made" in line]
    assert len(said) == 1
    assert file.name in said[0]
    assert contents(folder) == expected
    assert outcomes["evaluation"].record.networks == accuracy


def test_a_run_that_nobody_altered_is_taken_as_it_is(tiny_inline_run, tiny_experiment, tmp_path, recorder):
    folder = shutil.copytree(tiny_inline_run.folder, tmp_path / "run")
    outcomes = run(tiny_experiment(folder, "cluster.address=inline"), recorder)
    assert all(outcome.reused for outcome in outcomes.values())
    assert not [line for line in recorder.said if "altered" in line]


def test_a_folder_without_digests_is_of_an_older_version(tmp_path):
    (tmp_path / "weights").write_bytes(b"1")
    assert not remove_altered(Location.parse(tmp_path), pytest.fail)


def test_states_and_shards_are_others_to_check(tmp_path):
    folder = Location.parse(tmp_path)
    for name in ("weights", "state.pt", "shard-00000.parquet", ".lock", "study.db", "x.damaged"):
        (tmp_path / name).write_bytes(b"1")
    seal(folder, b"record")
    (tmp_path / "done.json").write_bytes(b"record")
    for name in ("state.pt", "shard-00000.parquet", ".lock", "study.db", "x.damaged"):
        (tmp_path / name).unlink()
    assert not remove_altered(folder, pytest.fail)
    (tmp_path / "weights").write_bytes(b"2")
    said = []
    assert remove_altered(folder, said.append)
    assert "weights was altered or lost" in said[0]
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize("content", [b"null", b"[]", b"{", b'{"a": 1}', b"[" * 100_000])
def test_digests_that_were_altered_make_all_anew(tmp_path, content):
    folder, said = Location.parse(tmp_path), []
    (tmp_path / "digests.json").write_bytes(content)
    assert remove_altered(folder, said.append)
    assert len(said) == 1
    assert not (tmp_path / "digests.json").exists()


@pytest.mark.parametrize("what", ["the run", "the stage", "the run, and another one is there"])
def test_a_run_directory_that_is_deleted_meanwhile_ends_the_command(
    tiny_experiment, tmp_path, recorder, what, monkeypatch
):
    folder = tmp_path / "run"
    work = Synthesis.work

    def deleted_meanwhile(stage):
        record = work(stage)
        shutil.rmtree(folder if what != "the stage" else stage.location.path)
        if "another" in what:
            (folder / "synthesis").mkdir(parents=True)
            (folder / ".lock").touch()
        return record

    monkeypatch.setattr(Synthesis, "work", deleted_meanwhile)
    with pytest.raises(StorageError, match="was deleted or moved while this command was running"):
        run(tiny_experiment(folder, "cluster.address=inline"), recorder)
