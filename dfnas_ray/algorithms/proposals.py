"""Architectures proposed by Optuna's TPE: every decision of the search space is a categorical parameter.

The study is kept in memory. After an interruption it is rebuilt from the candidates' files.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from dfnas_ray.algorithms.multi_fidelity import Candidate, Population
from dfnas_ray.algorithms.random_search import draw_new
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import derive_seed, numpy_generator

_MAX_TRIES = 50  # proposals outside the limits or already known, before a new architecture is drawn at random


def num_startup_trials(num_trials: int) -> int:
    """Return how many of ``num_trials`` trials are drawn at random before a sampler learns from them."""
    return min(10, max(4, num_trials // 3))


def tpe_sampler(seed: int, startup: int) -> TPESampler:
    """Return a sampler that treats running trials as bad ones, so that it does not propose similar ones."""
    return TPESampler(seed=seed % 2**32, n_startup_trials=startup, multivariate=True, constant_liar=True)


class Proposal(NamedTuple):
    """A candidate to be trained."""

    number: int
    genotype: str


class ArchitectureStudy:
    """Proposes only new architectures within the limits.

    Optuna ranks a pruned trial below all complete ones, first by its last step and then by its value there. With epochs
    as steps, this is the order of a `Population`. So a candidate that was stopped early is reported to the study as
    pruned, never as complete with the value of a short training. A proposal outside the limits is reported as pruned
    without a value. That ranks last and does not use up a trial. A known proposal is reported as failed, and TPE does
    not learn from it.

    The first candidates are the same as with random proposals.

    Args:
        population: The known candidates. Finished ones are added to the study, open ones are proposed again.
        space: The search space.
        max_macs: Largest number of MACs, or None.
        seed: The seed of all random draws.
        min_macs: Smallest number of MACs, or None.
    """

    def __init__(
        self,
        population: Population,
        space: SearchSpace,
        max_macs: int | None,
        seed: int,
        min_macs: int | None = None,
    ):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.config, self.space = population.config, space
        self.max_macs, self.min_macs = max_macs, min_macs
        self.numbers = {candidate.genotype: candidate.number for candidate in population.candidates}
        self._under_way = {one.genotype for one in population.candidates if self.config.is_open(one)}
        self._trials: dict[int, Trial] = {}  # by the candidate's number
        self._rng = numpy_generator(seed, "proposals", len(self.numbers))
        startup = num_startup_trials(self.config.candidates)
        sampler = tpe_sampler(derive_seed(seed, "tpe", len(self.numbers)), startup)
        self.study = optuna.create_study(direction="maximize", sampler=sampler)
        self._distributions: dict[str, BaseDistribution] = {
            f"{n}": CategoricalDistribution(range(k)) for n, k in enumerate(space.num_choices)
        }
        for candidate in population.candidates:
            if candidate.genotype not in self._under_way:
                self.study.add_trial(self._frozen(candidate))
        for text in sorted(self._under_way, key=self.numbers.__getitem__):
            self._enqueue(space.decode(text))
        for genotype in self.config.draw(space, max_macs, seed, min_macs)[:startup]:
            if space.encode(genotype) not in self.numbers:
                self._enqueue(genotype)

    def propose(self) -> Proposal | None:
        """Return the next candidate, open ones of an earlier command first; None if there is no new one in the limits."""
        for attempt in range(_MAX_TRIES + 2):
            if attempt == _MAX_TRIES:
                known = {self.space.decode(text) for text in self.numbers}
                drawn = draw_new(self.space, self._rng, self.max_macs, 1, known, self.min_macs)
                if not drawn:
                    break
                self._enqueue(drawn[0])
            trial = self.study.ask(self._distributions)
            genotype = tuple(trial.params[name] for name in self._distributions)
            text = self.space.encode(genotype)
            is_new = text in self._under_way or text not in self.numbers
            is_within = self.space.is_within(genotype, self.max_macs, self.min_macs)
            if is_new and is_within:
                self._under_way.discard(text)
                number = self.numbers.setdefault(text, 1 + max(self.numbers.values(), default=-1))
                self._trials[number] = trial
                return Proposal(number, text)
            self.study.tell(trial, state=TrialState.FAIL if is_within else TrialState.PRUNED)
        return None

    def observe(self, number: int, epochs: int, score: float) -> None:
        """Record a candidate's score at a rung; NaN (a diverged training) and repeated calls are ignored."""
        trial = self._trials[number]
        known = self.study._storage.get_trial(trial._trial_id).intermediate_values
        if not math.isnan(score) and epochs not in known:
            trial.report(score, epochs)

    def end(self, number: int, epochs: int, score: float) -> None:
        """Record how a candidate ended: complete if it reached the highest rung, else pruned."""
        if epochs < self.config.max_epochs or math.isnan(score):
            self.observe(number, epochs, score)
            self.study.tell(self._trials[number], state=TrialState.PRUNED)
        else:
            self.study.tell(self._trials[number], score)

    def fail(self, number: int) -> None:
        """Record that a candidate could not be trained."""
        self.study.tell(self._trials[number], state=TrialState.FAIL)

    def _enqueue(self, genotype: Genotype) -> None:
        self.study.enqueue_trial(self._parameters(genotype))

    def _parameters(self, genotype: Genotype) -> dict[str, int]:
        return dict(zip(self._distributions, genotype, strict=True))

    def _frozen(self, candidate: Candidate) -> FrozenTrial:
        scores = {result["epochs"]: self.config.score(result) for result in candidate.results}
        values = {epochs: score for epochs, score in scores.items() if not math.isnan(score)}
        final = values.get(self.config.max_epochs)
        return optuna.trial.create_trial(
            state=TrialState.PRUNED if final is None else TrialState.COMPLETE,
            value=final,
            params=self._parameters(self.space.decode(candidate.genotype)),
            distributions=self._distributions,
            intermediate_values=values,
        )
