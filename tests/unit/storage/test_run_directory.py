"""What each stage made, keyed by everything that it depends on."""

import copy
import errno
import os
import shutil
from functools import partial
from pathlib import Path

import pytest

from dfnas_ray.errors import StorageError
from dfnas_ray.storage.lease import Lease
from dfnas_ray.storage.run_dir import RunDir, fingerprint

INPUTS = {"seed": 0, "teacher": "abc", "search": {"epochs": 2, "space": {"stages": [1, 2]}, "limit": None}}


def changed(path, value):
    inputs = copy.deepcopy(INPUTS)
    inner = inputs
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return inputs


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["seed"], 1),
        (["teacher"], "abd"),
        (["search", "epochs"], 3),
        (["search", "space", "stages"], [2, 1]),
        (["search", "limit"], 0),
        (["search", "extra"], 1),
    ],
)
def test_the_key_changes_with_any_input(tmp_path, path, value):
    run = RunDir(tmp_path)
    stages = [run.stage("search", INPUTS), run.stage("search", changed(path, value))]
    assert stages[0].key != stages[1].key
    assert stages[0].location != stages[1].location


def test_stages_of_the_same_inputs_have_folders_of_their_own(tmp_path):
    run = RunDir(tmp_path)
    assert run.stage("search", INPUTS).key != run.stage("retraining", INPUTS).key


def test_a_fingerprint_ignores_the_order_of_keys_but_not_of_lists():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"b": [1, 2]}) != fingerprint({"b": [2, 1]})


def test_asking_for_a_stage_creates_nothing(tmp_path):
    stage = RunDir(tmp_path / "run").stage("search", INPUTS)
    assert not stage.is_started
    assert not stage.is_done
    assert stage.changes() == []
    assert not (tmp_path / "run").exists()


def test_a_stage_is_done_only_after_its_finish_and_until_it_is_reopened(tmp_path):
    stage = RunDir(tmp_path).stage("search", INPUTS)
    stage.begin()
    assert stage.is_started
    assert not stage.is_done
    stage.done_file.write_json({"best": "0000"})
    assert RunDir(tmp_path).stage("search", INPUTS).is_done
    assert stage.done_file.read_json() == {"best": "0000"}
    stage.reopen()
    stage.reopen()  # no harm
    assert not stage.is_done
    assert stage.is_started


def test_reports_show_a_stage_once_it_is_finished(tmp_path):
    run = RunDir(tmp_path)
    stage = run.stage("search", INPUTS)
    assert run.latest_stage("search") is None
    stage.begin()
    run.set_latest([stage])
    assert run.latest_stage("search") is None
    stage.done_file.write_json({})
    assert run.latest_stage("search") == stage.location
    other = run.stage("synthesis", INPUTS)
    run.set_latest([other])
    assert run.latest() == {"search": stage.location.name, "synthesis": other.location.name}


def test_changes_name_every_dotted_setting_with_old_and_new(tmp_path):
    run = RunDir(tmp_path)
    first = run.stage("search", INPUTS)
    first.begin()
    run.set_latest([first])
    assert first.changes() == []
    inputs = changed(["search", "space", "stages"], (3, 4))  # a tuple, as pydantic gives it
    inputs["seed"] = 7
    assert run.stage("search", inputs).changes() == ["search.space.stages: [1, 2] -> [3, 4]", "seed: 0 -> 7"]


def test_a_deleted_folder_of_the_last_command_explains_nothing_and_harms_nothing(tmp_path):
    run = RunDir(tmp_path)
    first = run.stage("search", INPUTS)
    first.begin()
    run.set_latest([first])
    shutil.rmtree(first.location.path)
    assert run.stage("search", changed(["seed"], 7)).changes() == []
    assert run.latest_stage("search") is None


def test_a_tuple_and_a_list_are_the_same_input(tmp_path):
    run = RunDir(tmp_path)
    first = run.stage("search", changed(["search", "space", "stages"], (1, 2)))
    assert first.key == run.stage("search", INPUTS).key


def test_going_back_to_an_earlier_setting_finds_what_was_made(tmp_path):
    run = RunDir(tmp_path)
    for inputs in (INPUTS, changed(["seed"], 1)):
        stage = run.stage("search", inputs)
        stage.begin()
        stage.done_file.write_json({"seed": inputs["seed"]})
        run.set_latest([stage])
    back = run.stage("search", INPUTS)
    assert back.is_done
    assert back.done_file.read_json() == {"seed": 0}
    assert back.changes() == ["seed: 1 -> 0"]


def test_a_run_directory_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="run_dir"), RunDir(tmp_path / "file" / "run").locked():
        pass


def test_a_second_command_in_the_same_directory_is_refused_until_the_first_ends(tmp_path):
    first, second = RunDir(tmp_path / "run"), RunDir(tmp_path / "run")
    with (
        first.locked(),
        pytest.raises(StorageError, match=r"Another command is working in .*run"),
        second.locked(),
    ):
        pass
    with second.locked():
        pass


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without locks, as some network ones are mounted; a silent command counts as dead after half a second."""

    def flock(file, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    quick = partial(Lease, renew_seconds=0.05, dead_seconds=0.5)
    monkeypatch.setattr("dfnas_ray.storage.run_dir.Lease", quick)


@pytest.mark.filterwarnings("error")
def test_without_locks_a_second_command_is_refused_until_the_first_ends(tmp_path, no_locks):
    first, second = RunDir(tmp_path / "run"), RunDir(tmp_path / "run")
    with first.locked():
        assert Path(first.lock_file.path).is_file(), "workers look for it"
        with (
            pytest.raises(StorageError, match=rf"Another command is working .*process {os.getpid()} on"),
            second.locked(),
        ):
            pass
        (first.location / "latest.json").write_json({})
    with second.locked():
        pass
    assert sorted(os.listdir(tmp_path / "run")) == [".lock", "latest.json"]  # noqa: PTH208 - hidden files, too


def test_without_locks_a_lost_machine_does_not_hold_the_directory_for_ever(tmp_path, no_locks):
    gone = {"host": "lost-node pid:[1]", "pid": 7, "state": "holding"}
    (RunDir(tmp_path).location / ".lease" / "0.json").write_json(gone)
    (tmp_path / ".lock").write_text("7\nlost-node\n")  # as older versions left it
    with RunDir(tmp_path).locked():
        pass


def test_without_locks_a_command_that_writes_nothing_leaves_nothing(tmp_path, no_locks):
    with RunDir(tmp_path / "a" / "b").locked():
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_free_again_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), RunDir(tmp_path).locked():
        raise RuntimeError
    with RunDir(tmp_path).locked():
        pass


def test_a_command_that_writes_nothing_leaves_nothing(tmp_path):
    (tmp_path / "runs").mkdir()
    run = RunDir(tmp_path / "runs" / "a" / "b")
    with pytest.raises(ValueError, match="wrong"), run.locked():
        raise ValueError("wrong")
    assert list((tmp_path / "runs").iterdir()) == []
    with run.locked():
        (run.location / "latest.json").write_json({})
    assert {path.name for path in (tmp_path / "runs" / "a" / "b").iterdir()} == {".lock", "latest.json"}
    with run.locked():  # what was there before stays
        (run.location / "latest.json").delete_file()
    assert (tmp_path / "runs" / "a" / "b").exists()


def test_a_folder_that_vanishes_under_a_command_is_not_missed(tmp_path):
    with RunDir(tmp_path / "run").locked():
        shutil.rmtree(tmp_path / "run")
    assert not (tmp_path / "run").exists()
