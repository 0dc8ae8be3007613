"""Candidates as Tune's trials: who may write a candidate's file, and what halving knows after a break."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler

from dfnas_ray.algorithms import population as core
from dfnas_ray.algorithms.multi_fidelity import Candidate, MultiFidelityConfig, Population
from dfnas_ray.algorithms.population import CandidateFiles, CandidateWorker
from dfnas_ray.algorithms.trials import SearchJob
from dfnas_ray.config.cluster import ClusterConfig
from dfnas_ray.errors import StorageError
from dfnas_ray.execution.inline import Computed
from dfnas_ray.execution.ray import population
from dfnas_ray.execution.ray.executor import RayExecutor
from dfnas_ray.execution.ray.population import CandidateTrial, Closing, Experiment
from dfnas_ray.storage.location import Location
from dfnas_ray.training.student import Validation

CONFIG = MultiFidelityConfig(candidates=9, max_epochs=9, reduction_factor=3)
SPACE = SimpleNamespace(decode=lambda text: text)
BUDGET, SCORE = population._BUDGET, population.SCORE


def reached(number, *losses, is_stopped=False):
    candidate = Candidate(number, f"000{number}", is_stopped=is_stopped)
    for epochs, loss in zip(CONFIG.rungs, losses, strict=False):
        candidate.add(epochs, Validation(loss, 0.5))
    return candidate


# The process of a candidate


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """A process for candidates, with a training that takes no time."""

    class Training:
        epochs_done = 0

        def train_to(self, epochs, keep):
            self.epochs_done = epochs
            return Validation(1.0, 0.5)

    monkeypatch.setattr(core, "CandidateTraining", lambda *arguments: Training())
    worker = object.__new__(CandidateWorker)
    worker.settings, worker.files = CONFIG, CandidateFiles(Location.parse(tmp_path), CONFIG, SPACE)
    worker.trial, worker.device, worker.seed = SimpleNamespace(name="trial"), None, 0
    worker.job = SimpleNamespace(config=SimpleNamespace(distillation=None, precision="float32"))
    worker.space = SPACE
    worker.batches = SimpleNamespace(train=None, validation=None)
    worker.board = SimpleNamespace(start=lambda worker, where: None)
    trial = object.__new__(CandidateTrial)
    trial.worker = worker
    return trial


def test_a_process_that_never_gets_to_a_step_leaves_the_candidate_alone(worker, tmp_path):
    # Tune prepared this process for candidate 1, gave the candidate to another one, and it is over by now.
    worker.worker.files.write(reached(1, 0.9, is_stopped=True))
    before = (tmp_path / "candidate-00001.json").read_bytes()
    worker.reset_config({"candidate": {"number": 1, "genotype": "0001"}})
    worker.reset_config({"candidate": {"number": 2, "genotype": "0002"}})
    assert (tmp_path / "candidate-00001.json").read_bytes() == before
    assert not (tmp_path / "candidate-00002.json").exists()
    assert worker.step()[BUDGET] == 1
    assert json.loads((tmp_path / "candidate-00002.json").read_text())["results"]


def test_what_a_lost_process_reached_is_told_again_before_it_goes_on(worker):
    worker.worker.files.write(reached(1, 0.9))
    worker.reset_config({"candidate": {"number": 1, "genotype": "0001"}})
    first, second = worker.step(), worker.step()
    assert (first[BUDGET], first[SCORE], first["done"]) == (1, -0.9, False)
    assert (second[BUDGET], second[SCORE]) == (3, -1.0)


def test_a_candidate_of_the_same_number_and_another_architecture_is_not_taken_up(worker, tmp_path, caplog):
    worker.worker.files.write(reached(1, 0.9))
    (tmp_path / "candidate-00001.pt").write_bytes(b"the weights of another architecture")
    worker.reset_config({"candidate": {"number": 1, "genotype": "2222"}})
    assert worker.step()[BUDGET] == 1
    found = json.loads((tmp_path / "candidate-00001.json").read_text())
    assert (found["genotype"], len(found["results"])) == ("2222", 1)
    assert "has another architecture now" in caplog.text


@pytest.mark.parametrize("content", ["", "null", "[]", '{"number": -1, "genotype": "0001"}', '{"results": [{}]}'])
def test_a_candidate_whose_file_was_altered_is_named_and_begins_anew(worker, tmp_path, caplog, content):
    (tmp_path / "candidate-00001.json").write_text(content)
    (tmp_path / "candidate-00001.pt").write_bytes(b"weights after some epochs")
    worker.reset_config({"candidate": {"number": 1, "genotype": "0001"}})
    assert worker.step()[BUDGET] == 1
    found = json.loads((tmp_path / "candidate-00001.json").read_text())
    assert (found["genotype"], len(found["results"])) == ("0001", 1)
    assert not (tmp_path / "candidate-00001.pt").exists()
    assert "candidate-00001.json" in caplog.text


def test_a_candidate_whose_file_was_altered_is_not_listed(tmp_path, caplog):
    files = CandidateFiles(Location.parse(tmp_path), CONFIG, SPACE)
    files.write(reached(0, 0.5, 0.4))
    (tmp_path / "candidate-00001.json").write_text("null")
    assert files.candidates() == [reached(0, 0.5, 0.4)]
    assert "candidate-00001.json" in caplog.text


def test_a_candidate_whose_network_is_damaged_is_named_and_begins_anew(worker, tmp_path, caplog):
    worker.worker.files.write(reached(1, 0.9))
    (tmp_path / "candidate-00001.pt").write_bytes(b"half of the weights")
    worker.reset_config({"candidate": {"number": 1, "genotype": "0001"}})
    assert worker.step()[BUDGET] == 1
    found = json.loads((tmp_path / "candidate-00001.json").read_text())
    assert [result["loss"] for result in found["results"]] == [1.0]
    assert (tmp_path / "candidate-00001.pt.damaged").read_bytes() == b"half of the weights"
    assert caplog.text.count("candidate-00001.pt is damaged") == 1


# Halving after a break


def scheduler_of(*candidates):
    experiment = SimpleNamespace(config=CONFIG, seed=0)
    return Experiment.scheduler(experiment, Population(CONFIG, candidates))


def trial(number, name):
    return SimpleNamespace(trial_id=name, config={"candidate": {"number": number}})


def rungs(scheduler):
    """The scores that are known at each rung, by budget."""
    return {milestone: sorted(recorded.values()) for milestone, recorded in scheduler._brackets[0]._rungs}


def test_a_candidate_that_goes_on_enters_no_rung_twice():
    scheduler = scheduler_of(reached(0, 0.1, 0.1), reached(1, 0.2, 0.2, 0.2))
    mine = trial(0, "a-new-name")
    scheduler.on_trial_add(None, mine)
    result = {BUDGET: 3, SCORE: -0.1}
    assert scheduler.on_trial_result(None, mine, result) == TrialScheduler.CONTINUE
    scheduler.on_trial_complete(None, mine, result)
    assert rungs(scheduler) == {9: [], 3: [-0.2, -0.1], 1: [-0.2, -0.1]}


def test_a_candidate_whose_stop_was_not_noted_is_compared_again():
    strong = [reached(number, 0.1, is_stopped=True) for number in range(5)]
    scheduler = scheduler_of(*strong, reached(5, 0.9))
    mine = trial(5, "a-new-name")
    scheduler.on_trial_add(None, mine)
    assert scheduler.on_trial_result(None, mine, {BUDGET: 1, SCORE: -0.9}) == TrialScheduler.STOP


def test_a_candidate_that_was_let_on_is_let_on_again_when_its_process_is_lost():
    scheduler = scheduler_of()
    first = trial(0, "a")
    scheduler.on_trial_add(None, first)
    assert scheduler.on_trial_result(None, first, {BUDGET: 1, SCORE: -0.9}) == TrialScheduler.CONTINUE
    for number in range(1, 6):
        scheduler.on_trial_add(None, trial(number, f"b{number}"))
        scheduler.on_trial_result(None, trial(number, f"b{number}"), {BUDGET: 1, SCORE: -0.1})
    scheduler.on_trial_add(None, first)  # as Tune does with a trial that it starts again
    assert scheduler.on_trial_result(None, first, {BUDGET: 1, SCORE: -0.9}) == TrialScheduler.CONTINUE


# Closing


def test_a_storage_out_of_order_does_not_undo_a_stop(tmp_path, monkeypatch, caplog):
    files = CandidateFiles(Location.parse(tmp_path), CONFIG, SPACE)
    closing = object.__new__(Closing)
    closing.files, closing.config, closing.name, closing.num_over = files, CONFIG, "trial", 0
    closing.write = lambda done, note: None

    def refuse(number):
        raise StorageError("the bucket is gone")

    monkeypatch.setattr(files, "read", refuse)
    closing.on_trial_complete(0, [], trial(3, "a"))
    assert "candidate 3 of trial" in caplog.text
    assert closing.num_over == 1


# How many at once


class Started(Exception):  # noqa: N818 - it is no error
    """Tune would run now."""


@pytest.mark.parametrize(
    ("settings", "cluster", "at_once"),
    [
        ({"proposals": "tpe"}, {"max_cpus": 8}, 8),
        ({"proposals": "tpe"}, {"max_gpus": 4, "search": {"gpus": 0.5}}, 8),
        ({"proposals": "tpe"}, {}, 1),
        ({"proposals": "tpe", "concurrency": 3}, {"max_cpus": 8}, 3),
        ({"proposals": "random"}, {"max_cpus": 8}, None),  # all are known: Tune starts what has room
    ],
)
def test_as_many_candidates_are_proposed_as_the_cluster_may_have_room_for(
    tmp_path, monkeypatch, tiny_experiment, settings, cluster, at_once
):
    started = []

    def fit(trainable, name, config, *others):
        started.append(config)
        raise Started

    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": {"CPU": 1.0}}])  # an autoscaling head
    monkeypatch.setattr(population, "fit", fit)
    monkeypatch.setattr(population.tune, "with_parameters", lambda trainable, **parameters: trainable)
    config = tiny_experiment(tmp_path, f"search.algorithm={json.dumps({'kind': 'multi_fidelity', **settings})}")
    config = config.model_copy(update={"cluster": ClusterConfig(address="auto", **cluster)})
    folder = Location.parse(tmp_path).make_dir()
    job = SearchJob(config.search, config.cluster.search, 0, None, folder)
    teacher = Computed(lambda: SimpleNamespace(image_shape=(1, 16, 16), num_classes=10))
    with pytest.raises(Started):
        RayExecutor(config.cluster, folder).run_trials(
            job, config.search.trials[:1], teacher, Computed(lambda: None), Board()
        )
    assert [tuned.max_concurrent_trials for tuned in started] == [at_once]


class Board:
    """Shows nothing."""

    def writer(self, worker):
        return lambda done, note="": None
