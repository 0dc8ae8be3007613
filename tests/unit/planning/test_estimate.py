import math

import pytest
import torch

from dfnas_ray.algorithms.config import ALGORITHMS
from dfnas_ray.algorithms.proxyless import ProxylessSearch
from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.planning import estimate, timing
from dfnas_ray.planning.estimate import rounded

CPU = torch.device("cpu")
SMALL = {
    "alignment": {"candidates": 4, "initial": 2, "round_size": 2, "steps": 1},
    "random_search": {"candidates": 4, "round_size": 2, "epochs": 1},
    "multi_fidelity": {"candidates": 4, "max_epochs": 3},
}


def experiment(algorithm, space="nasbench_macro", **search):
    small_space = {
        "kind": space,
        "stem_channels": 4,
        "stage_layers": [1, 1],
        "stage_channels": [8, 16],
        "head_channels": 16,
    }
    if space == "darts":
        small_space = {"kind": space, "channels": 4, "layers": 3, "search_channels": 4, "search_layers": 3}
    return make_experiment(
        {
            "teacher": "digits",
            "synthesis": {
                "num_shards": 2,
                "images_per_shard": 200,
                "canvas_margin": 2,
                "method": {"kind": "inversion"},
            },
            "search": {"space": small_space, "algorithm": algorithm, "precision": "float32", **search},
            "cluster": {"address": "inline"},
        }
    )


class Clock:
    """A clock that stands still: what is timed has a length only where the test says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize("kind", sorted(ALGORITHMS.built_in))
def test_every_algorithm_can_be_timed(kind, tiny_teacher):
    config = experiment(
        {"kind": kind, "batch_size": 8, **SMALL.get(kind, {})}, "darts" if kind == "darts" else "nasbench_macro"
    )
    seconds = timing.time_trial(tiny_teacher, config, config.search.trials[0], None, (18, 18), CPU)
    assert seconds > 0
    assert math.isfinite(seconds)


def test_a_search_with_a_small_share_for_validation_can_be_timed(tiny_teacher):
    config = experiment({"kind": "random_search", "batch_size": 8, **SMALL["random_search"]}, validation_fraction=0.001)
    assert timing.time_trial(tiny_teacher, config, config.search.trials[0], None, (18, 18), CPU) > 0


def test_a_search_that_trains_is_as_long_as_its_epochs_on_all_images(tiny_teacher, monkeypatch):
    from dfnas_ray.algorithms.spos import Spos

    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", clock)

    def train_epoch(self):
        clock.now += len(self.train.ids)  # a second for every image
        self.epochs_done += 1
        return {"loss": 0.0}

    monkeypatch.setattr(Spos, "train_epoch", train_epoch)
    config = experiment({"kind": "spos", "epochs": 7, "batch_size": 8}, validation_fraction=0.25)
    seconds = timing.time_trial(tiny_teacher, config, config.search.trials[0], None, (18, 18), CPU)
    images = config.synthesis.images_in_total  # of all rounds that are kept
    assert images == 800
    assert seconds == pytest.approx(7 * 800 * 0.75)


def test_candidates_are_counted_and_look_at_as_many_images_as_there_will_be(tiny_teacher, monkeypatch):
    from dfnas_ray.algorithms.one_shot import OneShotScorer

    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", clock)

    def score(self, genotypes):
        looked_at = sum(len(images) for images in self.calibration) + sum(
            len(batch.images) for batch in self.validation
        )
        clock.now += len(genotypes) * looked_at
        return [{"score": 0.0} for _ in genotypes]

    monkeypatch.setattr(OneShotScorer, "__call__", score)
    evolution = {"generations": 2, "population": 5, "parents": 2, "mutations": 2, "crossovers": 0}
    algorithm = {"kind": "spos", "epochs": 1, "batch_size": 8, "calibration_batches": 2, "evolution": evolution}
    config = experiment(algorithm, validation_fraction=0.25)
    seconds = timing.time_trial(tiny_teacher, config, config.search.trials[0], None, (18, 18), CPU)
    assert seconds == pytest.approx(7 * (2 * 8 + 200), rel=0.05)  # a split in the small is not exactly a quarter


def test_the_whole_is_the_sum_of_its_stages(digits_teacher):
    config = experiment(
        {"kind": "random_search", "candidates": 2, "epochs": 1}, seeds=[0], selection={"finalists": 1, "epochs": 1}
    )
    plan = estimate.estimate(config, digits_teacher)
    assert [stage.stage for stage in plan.stages] == ["synthesis", "search", "retraining", "baseline"]
    assert plan.seconds == pytest.approx(sum(stage.seconds for stage in plan.stages))
    assert plan.search_parts.finalists == 0  # one finalist is compared with nobody
    assert all(stage.start == 0 for stage in plan.stages)  # nothing is started inline


def test_workers_side_by_side_are_those_with_room():
    config = make_experiment({"teacher": "digits", "cluster": {"num_cpus": 8, "synthesis": {"cpus": 3}}}).cluster
    assert estimate.room(config, config.synthesis) == 2
    assert estimate.room(config, config.search) == 8
    inline = make_experiment({"teacher": "digits", "cluster": {"address": "inline"}}).cluster
    assert estimate.room(inline, inline.search) == 1


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "10 s"), (44, "40 s"), (100, "2 min"), (754, "13 min"), (20_000, "5 h 30 min")]
)
def test_an_estimate_has_no_more_figures_than_it_deserves(seconds, text):
    assert rounded(seconds) == text


def test_a_network_near_the_limit_is_within_it(tiny_teacher):
    from dfnas_ray.search_spaces import build_space

    space = build_space(experiment({"kind": "spos"}).search.space[0], (1, 16, 16), 10)
    costs = sorted(space.cost((a, b)).macs for a in range(3) for b in range(3))
    limit = costs[5]
    assert costs[2] <= space.cost(timing.near_limit(space, limit)).macs <= limit
    assert space.cost(timing.near_limit(space, costs[0])).macs == costs[0]


def test_epochs_after_the_warm_up_are_timed_too(tiny_teacher, monkeypatch):
    trained, original = [], ProxylessSearch.train_epoch

    def train_epoch(search):
        metrics = original(search)
        trained.append("alpha_loss" in metrics)
        return metrics

    monkeypatch.setattr(ProxylessSearch, "train_epoch", train_epoch)
    config = experiment({"kind": "proxyless", "epochs": 30, "warmup_epochs": 20, "batch_size": 8})
    timing.time_trial(tiny_teacher, config, config.search.trials[0], None, (18, 18), CPU)
    assert trained == [False, False, False, True, True]
