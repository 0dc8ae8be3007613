"""Teacher alignment: what is measured, how it is ranked, who is proposed."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from torch import nn

from dfnas_ray.algorithms.alignment import AlignmentConfig
from dfnas_ray.errors import ConfigError
from dfnas_ray.ops.blocks import Classifier
from dfnas_ray.search_spaces import NASBenchMacroConfig

QUICK = {"steps": 4, "batches": 3, "validation_batches": 2, "batch_size": 16, "surrogate": {"trees": 10, "pool": 60}}


def make_alignment(problem, **settings):
    return AlignmentConfig(**{**QUICK, "candidates": 8, "initial": 4, "round_size": 3, **settings}).algorithm(problem)


def run(search, measure):
    rounds = []
    while not search.is_finished:
        rounds.append(search.ask())
        search.tell([measure(genotype) for genotype in rounds[-1]])
    return rounds


def few_twos(genotype):
    return {"agreement": 1.0 - sum(choice != 2 for choice in genotype) / len(genotype)}


@pytest.fixture
def problem(chain, make_problem):
    return make_problem(chain)


def test_rounds_are_random_first_then_proposed_new_and_within_the_limit(chain, make_problem):
    limit = chain.cost(chain.decode("1111")).macs
    search = make_alignment(make_problem(chain, max_macs=limit), criterion="agreement")
    rounds = run(search, few_twos)
    flat = [genotype for round_ in rounds for genotype in round_]
    assert [len(round_) for round_ in rounds] == [3, 1, 3, 1]
    assert len(rounds) == search.config.steps_to_show
    assert len(set(flat)) == 8
    assert all(chain.cost(genotype).macs <= limit for genotype in flat)


def test_the_forest_leads_to_the_best_in_fewer_candidates_than_chance(problem):
    settings = {"criterion": "agreement", "candidates": 30, "initial": 12, "round_size": 6}
    found = []
    for exploration in (0.0, 1.0):
        surrogate = {"trees": 30, "pool": 81, "exploration": exploration}
        rounds = run(make_alignment(problem, surrogate=surrogate, **settings), few_twos)
        found.append([few_twos(genotype)["agreement"] for round_ in rounds[2:] for genotype in round_])
    assert max(found[0]) == 1.0
    assert sum(found[0]) > sum(found[1]) + 3


def test_a_round_that_was_asked_for_is_the_same_after_a_resume(problem):
    search = make_alignment(problem, criterion="agreement")
    for _ in range(2):
        search.tell([few_twos(genotype) for genotype in search.ask()])
    before = search.state_dict()
    asked = search.ask()
    for state in (before, search.state_dict()):
        resumed = make_alignment(problem, criterion="agreement")
        resumed.load_state_dict(state)
        assert resumed.ask() == asked
    assert run(resumed, few_twos) == run(search, few_twos)


def test_an_exhausted_space_ends_the_search(chain, make_problem):
    limit = chain.cost(chain.cheapest()).macs
    search = make_alignment(make_problem(chain, max_macs=limit), candidates=50)
    run(search, lambda genotype: {"train_alignment": 0.5})
    assert 1 <= len(search.measurements) < 50
    assert search.best()[0] == chain.cheapest()


def measured(alignment, stages, loss, agreement, train_alignment, train_loss):
    by_stage = {f"alignment_{number}": value for number, value in enumerate(stages, start=1)}
    return {"alignment": alignment, **by_stage, "loss": loss, "agreement": agreement} | {
        "train_alignment": train_alignment,
        "train_loss": train_loss,
    }


MEASURED = [
    measured(0.9, (0.95, 0.85), loss=3.0, agreement=0.2, train_alignment=0.3, train_loss=5.0),
    measured(0.5, (0.80, 0.20), loss=1.0, agreement=0.6, train_alignment=0.1, train_loss=4.0),
    measured(0.7, (0.75, 0.65), loss=2.0, agreement=0.4, train_alignment=0.2, train_loss=6.0),
]


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        ("alignment", [0.9, 0.5, 0.7]),
        ("train_alignment", [0.3, 0.1, 0.2]),
        ("loss", [-3, -1, -2]),
        ("agreement", [0.2, 0.6, 0.4]),
        ("train_loss", [-5, -4, -6]),
        # Ranks of the first stage 3, 2, 1, of the second 3, 1, 2; of three.
        ("stages", [math.log(3 * 3 / 9), math.log(2 * 1 / 9), math.log(1 * 2 / 9)]),
        # Ranks of alignment 3, 1, 2, of loss 1, 3, 2, of train_loss 2, 3, 1.
        ("rank_sum", [math.log(3 * 1 * 2 / 27), math.log(1 * 3 * 3 / 27), math.log(2 * 2 * 1 / 27)]),
    ],
)
def test_a_criterion_ranks_by_its_figures(problem, criterion, expected):
    assert make_alignment(problem, criterion=criterion).rank(MEASURED) == pytest.approx(expected)


@pytest.mark.parametrize("criterion", ["loss", "rank_sum"])
def test_a_candidate_whose_training_went_astray_is_worst_and_spoils_no_other(problem, criterion):
    search = make_alignment(problem, criterion=criterion, initial=8, round_size=8)
    broken = dict.fromkeys(MEASURED[0], math.nan)
    scores = search.rank([*MEASURED, broken])
    assert scores[:3] == pytest.approx(search.rank(MEASURED))
    assert math.isnan(scores[3])
    asked = search.ask()
    search.tell([broken, *MEASURED, *[broken] * (len(asked) - 4)])
    assert search.best() == (asked[2], max(scores[:3]))
    assert set(search.finalists(3)) == set(asked[1:4])


def test_scores_of_rank_sum_are_those_among_all_candidates_so_far(problem):
    search = make_alignment(problem, initial=6)
    search.ask()
    assert search.tell(MEASURED) == pytest.approx(search.rank(MEASURED))
    search.ask()
    assert search.tell(MEASURED[::-1]) == pytest.approx(search.rank(MEASURED * 2)[2::-1])


def test_every_figure_is_measured_and_within_its_range(problem, chain):
    scorer = make_alignment(problem).scorer()
    (found,) = scorer([chain.decode("1212")])
    # The teacher has stages of 16, 8 and 4 pixels, these chains of 16, 8 and 4.
    stages = [found[f"alignment_{number}"] for number in (1, 2, 3)]
    assert set(found) == set(MEASURED[0]) | {"alignment_3"}
    assert all(0 < value < 1 for value in stages)
    assert found["alignment"] == pytest.approx(sum(stages) / 3)
    assert found["loss"] > 0
    assert found["train_loss"] > 0
    assert 0 < found["train_alignment"] < 1
    assert 0 <= found["agreement"] <= 1


def test_a_candidate_that_is_the_teacher_is_fully_aligned(problem, monkeypatch):
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 3, stride=2, padding=1), Classifier(8, 10)]
    teacher = nn.Sequential(*layers)  # no BatchNorm, which computes otherwise in training
    problem.train.model = problem.validation.model = teacher
    scorer = make_alignment(problem, steps=0, criterion="alignment").scorer()
    monkeypatch.setattr(type(problem.space), "build", lambda self, genotype: teacher)
    (found,) = scorer([problem.space.cheapest()])
    expected = measured(1, (1, 1), loss=0, agreement=1, train_alignment=0, train_loss=0)
    assert found == pytest.approx(expected, abs=1e-5)


def test_the_weight_pulls_features_towards_the_teachers(problem, chain):
    found = {
        weight: make_alignment(problem, weight=weight, steps=20).scorer()([chain.decode("1111")])[0]
        for weight in (0.0, 3.0)
    }
    assert found[3.0]["alignment"] > found[0.0]["alignment"] + 0.02


def test_all_candidates_see_the_same_batches_and_the_teacher_is_left_behind(problem, chain):
    first, second = (make_alignment(problem).scorer() for _ in range(2))
    for ours, theirs in zip(first.train + first.validation, second.train + second.validation, strict=True):
        assert torch.equal(ours.batch.images, theirs.batch.images)
        assert torch.equal(ours.grams, theirs.grams)
    assert (len(first.train), len(first.validation)) == (3, 2)
    sent = pickle.dumps(first)
    assert b"DigitsCNN" not in sent
    assert pickle.loads(sent)([chain.decode("0101")]) == first([chain.decode("0101")])


def test_untrained_networks_can_be_measured(problem, chain):
    (found,) = make_alignment(problem, steps=0, criterion="alignment").scorer()([chain.decode("1111")])
    assert found["train_loss"] == 0
    assert found["alignment"] > 0


def test_a_teacher_without_feature_maps_is_refused(make_problem):
    config = NASBenchMacroConfig(stem_channels=4, stage_layers=(1,), stage_channels=(8,), head_channels=16)
    problem = make_problem(config.space((3, 8, 8), 10))
    with pytest.raises(ConfigError, match="the teacher has none on images of"):
        make_alignment(problem).scorer()


def test_batches_too_small_to_compare_are_refused(chain, make_problem):
    with pytest.raises(ConfigError, match=r"at least 4 images .* unbiased .* training batch has 3\. Raise"):
        make_alignment(make_problem(chain, count=3), unbiased=True).scorer()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"initial": 9}, r"initial \(9\) must not be above candidates \(8\)"),
        ({"rank_sum_of": []}, "rank_sum_of"),
        ({"criterion": "speed"}, "criterion"),
        ({"batch_size": 1}, "batch_size"),
    ],
)
def test_settings_that_cannot_be_are_refused(problem, settings, message):
    with pytest.raises(ValueError, match=message):
        make_alignment(problem, **settings)
