"""Optuna's TPE as the one who proposes architectures: every decision of the search space is a categorical parameter.

The study lives in memory; what it has to know after a break is told to it again from the candidates' files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState
from ray.tune.result import TRAINING_ITERATION
from ray.tune.search import Searcher

from dfnas_ray.algorithms.base import SCORE
from dfnas_ray.algorithms.multi_fidelity import EPOCHS, Candidate, Population
from dfnas_ray.algorithms.random_search import draw_new
from dfnas_ray.execution.ray.tune import StudySearch
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import derive_seed, numpy_generator
from dfnas_ray.sweeps.optuna_samplers import num_startup_trials, tpe_sampler

_STUDY = "architectures"
_MAX_TRIES = 50  # proposals above the limit or known already, before a new architecture is drawn


class ArchitectureSearch(StudySearch):
    """Tune's searcher for a multi-fidelity search; proposes only new architectures within the limit.

    Optuna ranks a trial that was pruned below all that were not, by its last step first and by its value there second: with
    epochs as steps, that is the order of a `Population`. So a candidate that was stopped early is told as pruned, never as
    complete with the value of a short training. A proposal above the limit is told as pruned without any value, which is
    last, and costs no trial; one that is known already is told as failed, which TPE does not learn from.

    The first candidates are those that random proposals would begin with.

    Args:
        population: What is known: candidates that are over are told to the study, open ones are proposed again.
        space: What is searched.
        max_macs: Largest number of MACs, or None.
        seed: Of all draws.
    """

    def __init__(self, population: Population, space: SearchSpace, max_macs: int | None, seed: int):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.population, self.architectures, self.max_macs = population, space, max_macs
        self.numbers = {candidate.genotype: candidate.number for candidate in population.candidates}
        self._under_way = {
            candidate.genotype for candidate in population.candidates if population.config.is_open(candidate)
        }
        self._proposals: dict[str, str] = {}  # Tune's trial: its proposal here
        self._told: dict[str, int] = {}  # Tune's trial: the epochs of the last result that the study knows
        self._rng = numpy_generator(seed, "proposals", len(self.numbers))
        config, storage = population.config, InMemoryStorage()
        startup = num_startup_trials(config.candidates)
        sampler = tpe_sampler(derive_seed(seed, "tpe", len(self.numbers)), startup)
        self.distributions: dict[str, BaseDistribution] = {
            f"{n}": CategoricalDistribution(range(k)) for n, k in enumerate(space.num_choices)
        }
        super().__init__(
            space=dict(self.distributions),
            metric=SCORE,
            mode="max",
            sampler=sampler,
            study_name=_STUDY,
            storage=storage,
        )
        self._study = optuna.load_study(study_name=_STUDY, storage=storage)
        for candidate in population.candidates:
            if candidate.genotype not in self._under_way:
                self._study.add_trial(self._frozen(candidate))
        for text in sorted(self._under_way, key=self.numbers.__getitem__):
            self._enqueue(space.decode(text))
        for genotype in config.draw(space, max_macs, seed)[:startup]:
            if space.encode(genotype) not in self.numbers:
                self._enqueue(genotype)

    def suggest(self, trial_id: str) -> Any:
        """Return the next candidate; that of a restarted command first."""
        for attempt in range(_MAX_TRIES + 2):
            if attempt == _MAX_TRIES:
                known = {self.architectures.decode(text) for text in self.numbers}
                drawn = draw_new(self.architectures, self._rng, self.max_macs, 1, known)
                if not drawn:
                    break
                self._enqueue(drawn[0])
            proposal = f"{trial_id}-{attempt}"
            values = super().suggest(proposal)
            genotype = tuple(values[name] for name in self.distributions)
            text = self.architectures.encode(genotype)
            is_new = text in self._under_way or text not in self.numbers
            is_small = self.max_macs is None or self.architectures.cost(genotype).macs <= self.max_macs
            if is_new and is_small:
                self._proposals[trial_id] = proposal
                self._under_way.discard(text)
                number = self.numbers.setdefault(text, 1 + max(self.numbers.values(), default=-1))
                return {"candidate": {"number": number, "genotype": text}}
            super().on_trial_complete(proposal, None, error=is_small)
        return Searcher.FINISHED  # all architectures within the limit are known

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Report the score at a rung; a diverged training has none."""
        if not math.isnan(result[SCORE]) and self._told.get(trial_id) != result[EPOCHS]:
            self._told[trial_id] = result[EPOCHS]
            super().on_trial_result(self._proposals[trial_id], {**result, TRAINING_ITERATION: result[EPOCHS]})

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study; complete is only what reached the highest rung."""
        if result and (result[EPOCHS] < self.population.config.max_epochs or math.isnan(result[SCORE])):
            self.on_trial_result(trial_id, result)  # Tune keeps the one before a stop from the searcher
            result = None
        super().on_trial_complete(self._proposals[trial_id], result, error)

    def _enqueue(self, genotype: Genotype) -> None:
        self._study.enqueue_trial(self._parameters(genotype))

    def _parameters(self, genotype: Genotype) -> dict[str, int]:
        return dict(zip(self.distributions, genotype, strict=True))

    def _frozen(self, candidate: Candidate) -> FrozenTrial:
        scores = {result["epochs"]: self.population.config.score(result) for result in candidate.results}
        values = {epochs: score for epochs, score in scores.items() if not math.isnan(score)}
        final = values.get(self.population.config.max_epochs)
        return optuna.trial.create_trial(
            state=TrialState.PRUNED if final is None else TrialState.COMPLETE,
            value=final,
            params=self._parameters(self.architectures.decode(candidate.genotype)),
            distributions=self.distributions,
            intermediate_values=values,
        )
