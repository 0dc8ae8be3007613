"""What a sweep's record makes of trials that a command left behind."""

import json

import pytest
from optuna.trial import TrialState

from dfnas_ray.storage.location import Location
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
        number = record.study.ask().number
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
