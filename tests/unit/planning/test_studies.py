"""The time of a study is that of its parts, each counted as often as it is done, on the workers that there is room for."""

import pytest

from dfnas_ray.config.experiment import make_experiment, make_variant
from dfnas_ray.library import plans
from dfnas_ray.planning import estimate, studies
from dfnas_ray.planning.estimate import ExperimentPlan, SearchParts, StageEstimate
from dfnas_ray.workflow.session import Session
from dfnas_ray.workflow.sweep import Sweep

SPACE = {
    "kind": "nasbench_macro",
    "stem_channels": 4,
    "stage_layers": [1, 1],
    "stage_channels": [8, 16],
    "head_channels": 16,
}


def experiment(**sections):
    values = {
        "teacher": "digits",
        "synthesis": {"num_shards": 2, "images_per_shard": 100, "method": {"kind": "inversion", "batch_size": 50}},
        "search": {"space": SPACE, "algorithm": {"kind": "spos", "epochs": 1}},
        "cluster": {"address": "inline"},
    }
    return make_experiment({**values, **sections})


def test_a_truth_is_as_long_as_all_its_trainings_on_the_workers_there_are(digits_teacher, monkeypatch):
    monkeypatch.setattr(studies, "network_seconds", lambda *a: 3.0)
    assert studies.estimate_truth(experiment(), digits_teacher, 10).seconds == 30
    spread = experiment(cluster={"num_cpus": 4, "retraining": {"cpus": 2}})
    start = estimate.overhead(spread.cluster, 1, first=True)
    assert studies.estimate_truth(spread, digits_teacher, 10).seconds == 15 + start


def test_a_sweep_is_as_long_as_its_images_and_students(digits_teacher, monkeypatch):
    monkeypatch.setattr(studies.timing, "time_synthesis", lambda teacher, config, device: config.synthesis.num_shards)
    monkeypatch.setattr(studies.timing, "time_training", lambda *a: 0.01)
    sweep = {
        "settings": {"synthesis.method.tau": {"uniform": [0.5, 1]}},
        "fixed": {"synthesis.num_shards": 1},
        "objectives": ["student_proxy"],
        "trials": 7,
        "student": {"steps": 20, "batch_size": 10},
        "reference": {"settings": 4, "images": 50},
    }
    # 7 trials of one shard and a student of 200 images; 4 reference settings of half a shard.
    found = studies.estimate_sweep(experiment(sweep=sweep), digits_teacher)
    assert found.seconds == pytest.approx(7 * (1 + 2) + 4 / 2)
    assert found.work == "7 trials, 1 at once"
    cheap = studies.estimate_sweep(experiment(sweep={**sweep, "objectives": ["domain_gap"]}), digits_teacher)
    assert cheap.seconds == pytest.approx(7)


@pytest.fixture
def variants():
    given = experiment(
        comparison={
            "variants": {"synthetic": {}, "noise": {"search.images": "noise"}, "more": {"synthesis.num_shards": 4}}
        }
    )
    return {name: make_variant(given, name, 0) for name in given.comparison.variants}


@pytest.fixture
def timed(monkeypatch):
    """What was asked for; every search takes 10 s, a network 2 s, images one second a shard."""
    asked = []

    def estimated(config, teacher):
        asked.append(config)
        stages = [StageEstimate("retraining", "", 2.0)]
        if config.uses_synthesis:
            stages.append(StageEstimate("synthesis", "", float(config.synthesis.num_shards)))
        return ExperimentPlan(tuple(stages), 0, 0, "", SearchParts(6.0, 4.0, 10.0))

    monkeypatch.setattr(studies, "estimate", estimated)
    return asked


def test_a_comparison_counts_searches_and_networks_of_every_seed_and_images_once(digits_teacher, variants, timed):
    found = studies.estimate_comparison(variants, digits_teacher, seeds=5, random=3, ranked=0, searches=True)
    # With each seed: 2 and 4 shards, 3 searches, and beside each result 3 random networks.
    assert found.seconds == pytest.approx(5 * (2 + 4 + 3 * 10 + 3 * (1 + 3) * 2.0))
    assert found.work == "3 variants, 5 seeds, 15 searches, 60 networks retrained"
    assert len(timed) == 2  # noise takes as long as the images that it stands for


def test_a_comparison_by_a_table_retrains_nothing_and_ranks(digits_teacher, variants, timed, monkeypatch):
    monkeypatch.setattr(studies.timing, "time_trial", lambda *a: float(a[-1]))
    found = studies.estimate_comparison(variants, digits_teacher, seeds=2, random=None, ranked=9, searches=False)
    assert found.seconds == pytest.approx(2 * (2 + 4 + 3 * 9))
    assert found.work == "3 variants, 2 seeds, rankings of 9 architectures"


def test_a_long_study_is_announced_before_it_begins_and_a_short_one_is_not(tmp_path, monkeypatch, recorder):
    monkeypatch.setattr(plans, "estimate_sweep", lambda *a: StageEstimate("sweep", "2 trials, 1 at once", 7_200.0))
    config = experiment(
        run_dir=str(tmp_path),
        sweep={"settings": {"synthesis.method.tau": {"uniform": [0.5, 1]}}, "objectives": ["domain_gap"], "trials": 2},
    )
    stage = Sweep(Session(config, recorder))
    monkeypatch.setattr(plans, "BRIEF", float("inf"))
    plans.announce_sweep(stage)
    assert not [line for line in recorder.said if "sweep" in line]
    monkeypatch.setattr(plans, "BRIEF", 0)
    plans.announce_sweep(stage)
    assert recorder.said[-1].startswith("sweep: 2 trials, 1 at once, about 2 h 00 min on this machine, ")
