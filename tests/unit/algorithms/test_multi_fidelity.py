"""Multi-fidelity search without Ray: rungs, the order of candidates, resuming, successive halving."""

from __future__ import annotations

import io
import math

import pytest
import torch
from pydantic import ValidationError

from dfnas_ray.algorithms.base import SearchState
from dfnas_ray.algorithms.multi_fidelity import Candidate, MultiFidelityConfig, Population
from dfnas_ray.algorithms.stand_alone import CandidateTraining, StandAloneScorer
from dfnas_ray.errors import ConfigError, GenotypeError
from dfnas_ray.training.config import OptimizerConfig
from dfnas_ray.training.student import Validation

SMALL = {"candidates": 8, "min_epochs": 1, "max_epochs": 4, "reduction_factor": 2, "batch_size": 16}


def candidate(number, genotype, *losses, rungs=(1, 3, 9)):
    made = Candidate(number, genotype)
    for epochs, loss in zip(rungs, losses, strict=False):
        made.add(epochs, Validation(loss, 1 / (1 + loss)))
    return made


@pytest.mark.parametrize(
    ("settings", "rungs"),
    [
        ({"min_epochs": 1, "max_epochs": 27}, (1, 3, 9, 27)),
        ({"min_epochs": 2, "max_epochs": 20}, (2, 7, 20)),  # 20, 6.67, 2.22
        ({"min_epochs": 3, "max_epochs": 26}, (9, 26)),  # 26, 8.67; 2.89 is below the least
        ({"min_epochs": 1, "max_epochs": 10, "reduction_factor": 2}, (1, 2, 5, 10)),
    ],
)
def test_rungs_divide_the_highest_budget_down_to_the_least(settings, rungs):
    assert MultiFidelityConfig(**settings).rungs == rungs


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"min_epochs": 5, "max_epochs": 3}, "min_epochs (5) must not be above max_epochs (3)"),
        (
            {"min_epochs": 2, "max_epochs": 5},
            "max_epochs (5) must be at least reduction_factor (3) times min_epochs (2)",
        ),
    ],
)
def test_budgets_that_stop_nobody_are_refused_by_name(settings, words):
    with pytest.raises(ValidationError) as caught:
        MultiFidelityConfig(**settings)
    assert words in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("proposals", "tpe"), ("scheduler", "hyperband")])
def test_without_ray_what_only_tune_does_is_refused(chain, make_problem, name, value):
    with pytest.raises(ConfigError, match=f"search.algorithm.{name} \\({value}\\) of multi_fidelity needs Ray Tune"):
        MultiFidelityConfig(**{name: value}).algorithm(make_problem(chain))


def test_the_order_is_by_rung_then_score_then_text():
    config = MultiFidelityConfig(max_epochs=9)
    far, near_good, near_bad = candidate(0, "z", 5, 4), candidate(1, "b", 1), candidate(2, "c", 2)
    tied, diverged = candidate(3, "a", 1), candidate(4, "d", 1, math.nan)
    population = Population(config, [diverged, near_bad, far, tied, near_good])
    assert [c.genotype for c in population.ranked()] == ["z", "a", "b", "c"]
    assert population.best() == (far, -4)
    ranks = config.rank([config.measurement(c) for c in population.candidates])
    assert ranks[:4] == [3, 1, 0, 1]
    assert math.isnan(ranks[4])


def test_agreement_as_a_metric_prefers_more_of_it():
    population = Population(MultiFidelityConfig(metric="agreement"), [candidate(0, "a", 4.0), candidate(1, "b", 1.0)])
    assert population.best()[0].genotype == "b"
    assert population.best()[1] == 0.5


def test_the_history_has_one_entry_per_rung():
    config = MultiFidelityConfig(max_epochs=9)
    history = Population(config, [candidate(0, "a", 3, 2), candidate(1, "b", 4), candidate(2, "c", math.nan)]).history()
    assert [(entry["number"], entry["epochs"], entry["best"]) for entry in history] == [(1, 1, -3), (2, 3, -2)]
    assert history[0]["genotypes"] == ["a", "b", "c"]
    assert history[1]["scores"] == [-2]


def test_no_score_at_all_is_an_error_that_names_the_learning_rate():
    with pytest.raises(GenotypeError, match=r"search.algorithm.optimizer.lr \(0.1\)"):
        Population(MultiFidelityConfig(), [candidate(0, "a", math.nan)]).best()


def make_training(problem, text="1210"):
    return CandidateTraining(
        problem.space, problem.space.decode(text), problem.train, problem.validation, problem.distillation,
        OptimizerConfig(), (1, 2, 4), problem.seed,
    )  # fmt: skip


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_training_that_breaks_off_ends_like_an_undisturbed_one(chain, make_problem, stop_after):
    problem = make_problem(chain)
    undisturbed = make_training(problem)
    expected = undisturbed.train_to(4)
    first, saved = make_training(problem), io.BytesIO()
    for _ in range(stop_after):
        first.train_epoch()
    torch.save(first.state_dict(), saved)
    saved.seek(0)
    torch.manual_seed(99)
    resumed = make_training(problem)
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    assert resumed.epochs_done == stop_after
    assert resumed.train_to(4) == expected
    for name, value in undisturbed.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name


def test_the_learning_rate_has_fallen_at_every_rung_and_starts_anew_after_it(chain, make_problem):
    training = make_training(make_problem(chain))
    per_epoch, student = len(training.train), training.student
    factor = lambda step: student.learning_rate(step) / student.config.lr  # noqa: E731
    assert [factor(rung * per_epoch) for rung in (1, 2)] == [1, 1]
    assert [factor(rung * per_epoch - 1) for rung in (1, 2, 4)] == pytest.approx(
        [0.146447, 0.146447, 0.038060], abs=1e-6
    )


def test_a_fixed_number_of_epochs_is_the_same_training_with_one_rung(chain, make_problem):
    problem, genotype = make_problem(chain), chain.decode("0201")
    scorer = StandAloneScorer(
        chain, problem.train, problem.validation, problem.distillation, OptimizerConfig(), 2, problem.seed
    )
    training = CandidateTraining(
        chain, genotype, problem.train, problem.validation, problem.distillation, OptimizerConfig(), (2,), problem.seed
    )
    assert scorer([genotype]) == [{"score": -training.train_to(2).loss}]


def test_halving_trains_the_better_half_farther(chain, make_problem):
    algorithm = MultiFidelityConfig(**SMALL).algorithm(make_problem(chain))
    SearchState(algorithm).run()
    population = algorithm.population
    reached = sorted((c.epochs for c in population.candidates), reverse=True)
    assert reached == [4, 4, 2, 2, 1, 1, 1, 1]
    assert algorithm.epochs_done == algorithm.num_epochs == 8 + 4 + 2
    first = {c.number: population.config.score(c.results[0]) for c in population.candidates}
    promoted = {c.number for c in population.candidates if c.epochs > 1}
    assert min(first[n] for n in promoted) >= max(first[n] for n in first.keys() - promoted)
    assert algorithm._trainings == {}, "no network is kept at the end"


def test_a_candidate_that_diverges_later_calls_nobody_back(chain, make_problem, monkeypatch):
    train_to = CandidateTraining.train_to

    def diverging(self, epochs, *arguments):
        return Validation(math.nan, math.nan) if epochs == 2 else train_to(self, epochs, *arguments)

    monkeypatch.setattr(CandidateTraining, "train_to", diverging)
    algorithm = MultiFidelityConfig(**SMALL).algorithm(make_problem(chain))
    SearchState(algorithm).run()
    assert sum(len(c.results) for c in algorithm.population.candidates) == 8 + 4
    assert algorithm.population.best()[0].epochs == 1
