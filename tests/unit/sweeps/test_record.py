"""What a sweep's record makes of trials that a command left behind."""

import json
import os
import pickle
import sqlite3
from contextlib import closing

import pytest
from optuna.trial import TrialState

from dfnas_ray.errors import StorageError
from dfnas_ray.storage.location import Location
from dfnas_ray.sweeps import study_file
from dfnas_ray.sweeps.config import SweepConfig
from dfnas_ray.sweeps.record import SweepRecord, trial_folder

SWEEP = {"settings": {"synthesis.method.tau": {"uniform": [1, 2]}}, "objectives": ["domain_gap"], "trials": 3}


@pytest.mark.parametrize(
    ("result", "state"),
    [
        ({"figures": {"domain_gap": 0.5, "semantics": 0.9}, "rounds": 2}, TrialState.COMPLETE),
        ({"figures": {"domain_gap": float("nan")}, "rounds": 2}, TrialState.FAIL),
        ({"figures": {"semantics": 0.9}, "rounds": 2}, TrialState.FAIL),
        ({"error": "the loss is not finite"}, TrialState.FAIL),
        (None, TrialState.WAITING),
    ],
    ids=["measured", "not-a-number", "no-objective", "error", "no-result"],
)
def test_a_trial_left_running_is_settled_by_its_result(tmp_path, result, state):
    config, folder = SweepConfig.model_validate(SWEEP), Location.parse(str(tmp_path))
    with SweepRecord.opened(config, folder) as record:
        number = record.ask(0).number
        if result is not None:
            (trial_folder(folder, number) / "result.json").write_bytes(json.dumps(result).encode())
        record.recover()
    with SweepRecord.opened(config, folder) as record:  # it can be read again
        (trial,) = record.trials()
        assert trial.state is state
        assert record.num_open() == (3 if state is TrialState.WAITING else 2)
        assert trial.values == ([0.5] if state is TrialState.COMPLETE else None)


ALTERED = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'{"figures": {"domain_gap": 0.5}}',
    b'{"figures": [], "rounds": 2}',
    b'{"figures": {"domain_gap": "low"}, "rounds": 2}',
    b'{"figures": {"domain_gap": 0.5}, "rounds": -2}',
    b'{"figures": {"domain_gap": 0.5}, "rounds": 2, "mood": "good"}',
]


@pytest.mark.parametrize("content", ALTERED)
def test_a_trial_whose_result_was_altered_is_named_and_goes_back_to_the_queue(tmp_path, content):
    config, folder, said = SweepConfig.model_validate(SWEEP), Location.parse(str(tmp_path)), []
    with SweepRecord.opened(config, folder) as record:
        file = trial_folder(folder, record.study.ask().number) / "result.json"
        file.write_bytes(content)
        record.recover(said.append)
        (trial,) = record.trials()
        assert trial.state is TrialState.WAITING
    (line,) = said
    assert str(file) in line
    assert not file.exists()


def test_a_result_of_another_trial_is_named_and_removed(tmp_path):
    config, folder, said = SweepConfig.model_validate(SWEEP), Location.parse(str(tmp_path)), []
    with SweepRecord.opened(config, folder) as record:
        file = trial_folder(folder, record.ask(0).number) / "result.json"
        file.write_json({"number": 7, "figures": {"domain_gap": 0.5}, "rounds": 2})
        record.recover(said.append)
        assert [trial.state for trial in record.trials()] == [TrialState.WAITING]
    assert "it is the result of trial 7" in said[0]


@pytest.mark.parametrize("name", ["a?b", "a%20b", "50%", "{a}", "a#b c"])
def test_a_study_lies_in_the_folder_of_its_sweep_whatever_the_name_of_that(tmp_path, name):
    config = SweepConfig.model_validate(SWEEP)
    for folder in (tmp_path / name, tmp_path / f"{name}c"):
        with SweepRecord.opened(config, Location.parse(folder)) as record:
            assert record.ask(0).number == 0  # and no trial of another sweep
        assert [file.name for file in folder.iterdir()] == ["study.db"]
    assert {path.name for path in tmp_path.iterdir()} == {name, f"{name}c"}


def test_a_study_can_be_sent_to_another_process(tmp_path):
    with SweepRecord.opened(SweepConfig.model_validate(SWEEP), Location.parse(tmp_path)) as record:
        record.ask(0)
        assert len(pickle.loads(pickle.dumps(record.storage)).get_all_trials(record.study_id)) == 1


def sql(statement, *values):
    def damage(file):
        with closing(sqlite3.connect(file)) as database, database:
            database.execute(statement, values)

    return damage


def overwritten(place, length=4096):
    def damage(file):
        data = bytearray(file.read_bytes())
        data[place : place + length] = bytes(length)
        file.write_bytes(data)

    return damage


def of_another_sweep(file):
    other = {**SWEEP, "settings": {"synthesis.method.tau": {"uniform": [1, 3]}}}
    file.unlink()
    with SweepRecord.opened(SweepConfig.model_validate(other), Location.parse(str(file.parent))) as record:
        record.ask(0)


def in_place(make):
    def damage(file):
        file.unlink()
        make(file)

    return damage


DAMAGE = {
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:5000]),
    "without its end": lambda file: file.write_bytes(file.read_bytes()[:-5000]),
    "a byte": lambda file: file.write_bytes(b"S"),
    "first page": overwritten(0),
    "header": overwritten(0, 100),
    "second page": overwritten(4096),
    "many pages": overwritten(8192, 16384),
    "text": lambda file: file.write_text("no database, but a text that is longer than a header of SQLite is" * 20),
    "a folder": in_place(lambda file: file.mkdir()),
    "a pipe": in_place(lambda file: os.mkfifo(file)),
    "another database": in_place(sql("CREATE TABLE t (x)")),
    "another schema": sql("ALTER TABLE trials RENAME TO tries"),
    "empty": lambda file: file.write_bytes(b""),
    "a trigger": sql("CREATE TRIGGER t AFTER INSERT ON trials BEGIN DELETE FROM studies; END"),
    "a number of trials that is text": sql("UPDATE study_user_attributes SET value_json = '\"many\"'"),
    "no JSON": sql("UPDATE study_user_attributes SET value_json = '{'"),
    "another direction": sql("UPDATE study_directions SET direction = 'MAXIMIZE'"),
    "an unknown state": sql("UPDATE trials SET state = 'GONE'"),
    "a value out of the range": sql("UPDATE trial_params SET param_value = 'x'"),
    "another range": of_another_sweep,
    "a figure that is text": sql(
        "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (1, 'domain_gap', '\"low\"')"
    ),
    "a gap between the trials": sql("UPDATE trials SET number = 5"),
}

IN_EVERY_LANE = ("truncated", "second page", "a pipe", "a trigger", "no JSON")


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(damage, id=name, marks=[] if name in IN_EVERY_LANE else pytest.mark.slow)
        for name, damage in DAMAGE.items()
    ],
)
def test_a_damaged_study_is_named_and_set_aside_and_another_one_begun(tmp_path, damage):
    config, folder, said = SweepConfig.model_validate(SWEEP), Location.parse(str(tmp_path)), []
    with SweepRecord.opened(config, folder) as record:
        record.ask(0)
    damage(tmp_path / "study.db")
    with SweepRecord.opened(config, folder, said.append) as record:
        assert record.num_open() == 3
        record.recover()
        assert record.ask(0).number == 0
    (line,) = said
    assert str(tmp_path / "study.db") in line
    assert "study.db.damaged" in line
    assert len(line) <= 1000
    assert os.path.lexists(tmp_path / "study.db.damaged")


def test_an_undamaged_study_is_gone_on_with(tmp_path):
    config, folder = SweepConfig.model_validate(SWEEP), Location.parse(str(tmp_path))
    with SweepRecord.opened(config, folder) as record:
        first = record.ask(0).params
        record.remember(0, 2, {"domain_gap": 0.5, "semantics": 0.25})
        record.end(0, TrialState.COMPLETE, [0.5])
        record.ask(0)
    with SweepRecord.opened(config, folder, pytest.fail) as record:
        assert record.trial(0).params == first
        assert [trial.state for trial in record.trials()] == [TrialState.COMPLETE, TrialState.RUNNING]


def test_a_study_that_another_command_writes_to_is_not_set_aside(tmp_path, monkeypatch):
    config, folder = SweepConfig.model_validate(SWEEP), Location.parse(str(tmp_path))
    with SweepRecord.opened(config, folder):
        pass
    monkeypatch.setattr(study_file, "_TIMEOUT", 0.1)
    with closing(sqlite3.connect(tmp_path / "study.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match="cannot be read: database is locked"):
            SweepRecord.opened(config, folder, pytest.fail).__enter__()
    assert not (tmp_path / "study.db.damaged").exists()
