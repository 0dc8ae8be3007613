"""Who proposes: the same after a break, and nothing is run that a study's file holds."""

import json
import pickle
import sqlite3

import numpy as np
import optuna
import pytest
from optuna.samplers import CmaEsSampler
from optuna.storages import RDBStorage

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.sweeps.replayed_cmaes import ReplayedCmaEs
from dfnas_ray.sweeps.samplers import make_sampler, propose

SETTINGS = {
    "synthesis.method.lr": {"log_uniform": [0.01, 1]},
    "synthesis.method.tau": {"uniform": [0.5, 2]},
    "synthesis.method.rounds": {"integer": [1, 9]},
}


def sweep_of(sampler):
    return make_experiment(
        {"teacher": "digits", "sweep": {"settings": SETTINGS, "sampler": sampler, "trials": 30}}
    ).sweep


def proposals(study, sweep, sampler_of, trials):
    """Return the parameters of all trials after so many more, each judged by a smooth function."""
    for _ in range(trials):
        study.sampler = sampler_of(len(study.trials))
        trial = study.ask()
        propose(sweep, trial)
        lr, tau, rounds = (trial.params[path] for path in SETTINGS)
        study.tell(trial, (lr - 0.2) ** 2 + (tau - 1) ** 2 + (rounds / 9 - 0.5) ** 2)
    return [trial.params for trial in study.trials]


def study_in(folder):
    storage = RDBStorage(f"sqlite:///{folder}/study.db")
    return optuna.create_study(study_name="s", storage=storage, direction="minimize", load_if_exists=True)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_replayed_cma_es_is_in_the_state_that_optuna_stores(direction):
    sweep, study = sweep_of("cmaes"), optuna.create_study(direction=direction)
    theirs, ours = (kind(seed=0, n_startup_trials=5) for kind in (CmaEsSampler, ReplayedCmaEs))
    proposals(study, sweep, lambda n: theirs, 40)
    finished = study.trials
    study.sampler = ours
    propose(sweep, study.ask())
    told = [trial for trial in finished if any("optimizer" in name for name in trial.system_attrs)]
    assert len(told) >= 4
    # What Optuna stored when it asked for the last trial of a generation, from the trials before.
    expected = theirs._restore_optimizer(finished)
    replayed = ours._restore_optimizer(finished[: told[-1].number])
    assert replayed.generation == expected.generation >= 4
    for name in ("_mean", "_sigma", "_C", "_p_sigma", "_pc"):
        np.testing.assert_allclose(getattr(replayed, name), getattr(expected, name), rtol=1e-9, atol=1e-12)


def test_a_trial_that_was_complete_too_late_for_its_generation_does_not_change_the_past():
    sweep, study = sweep_of("cmaes"), optuna.create_study()
    sampler = study.sampler = ReplayedCmaEs(seed=0, n_startup_trials=5)
    proposals(study, sweep, lambda n: sampler, 6)
    straggler = study.ask()
    propose(sweep, straggler)
    proposals(study, sweep, lambda n: sampler, 12)
    before = sampler._restore_optimizer([trial for trial in study.trials if trial.state.name == "COMPLETE"])
    study.tell(straggler, -1000.0)  # by far the best
    after = sampler._restore_optimizer(study.trials)
    assert after.generation == before.generation >= 1
    np.testing.assert_array_equal(after._mean, before._mean)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "cmaes", "random"])
def test_after_a_break_the_proposals_go_on_as_without_it(sampler, tmp_path):
    sweep = sweep_of(sampler)
    whole = proposals(optuna.create_study(), sweep, lambda n: make_sampler(sweep, 30, n), 30)
    proposals(study_in(tmp_path), sweep, lambda n: make_sampler(sweep, 30, n), 17)
    assert proposals(study_in(tmp_path), sweep, lambda n: make_sampler(sweep, 30, n), 13) == whole


class Payload:
    """Something that leaves a trace when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (self.trace, "w")


@pytest.mark.parametrize("sampler", [CmaEsSampler, ReplayedCmaEs])
def test_code_in_a_study_is_not_run(sampler, tmp_path):
    sweep, study = sweep_of("cmaes"), study_in(tmp_path)
    proposals(study, sweep, lambda n: ReplayedCmaEs(seed=n, n_startup_trials=5), 20)
    assert not any("optimizer" in name for trial in study.trials for name in trial.system_attrs)
    for trial in study.trials:
        text = pickle.dumps(Payload(str(tmp_path / "trace"))).hex()
        with sqlite3.connect(tmp_path / "study.db") as database:
            database.execute(
                "INSERT INTO trial_system_attributes (trial_id, key, value_json) VALUES (?, 'cma:optimizer:0', ?)",
                (trial._trial_id, json.dumps(text)),
            )
    study = study_in(tmp_path)
    study.sampler = sampler(seed=0, n_startup_trials=5)
    try:
        propose(sweep, study.ask())
    except AttributeError:
        assert sampler is CmaEsSampler  # a file is no optimizer
    assert (tmp_path / "trace").exists() == (sampler is CmaEsSampler), "Optuna's sampler shows that the trap works"
