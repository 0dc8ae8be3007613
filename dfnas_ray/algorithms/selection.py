"""Selection of the best of several architectures: each is trained alone, in the same short way, and validated."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict, RootModel, model_validator

from dfnas_ray.algorithms.base import SCORE
from dfnas_ray.algorithms.stand_alone import StandAloneScorer
from dfnas_ray.algorithms.trials import HistoryPoint as HistoryPoint
from dfnas_ray.algorithms.trials import SearchJob, TrialResult, make_batches
from dfnas_ray.errors import DfnasError
from dfnas_ray.search_spaces.architecture import Architecture
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import derive_seed
from dfnas_ray.storage.altered import Say, is_intact, read_or_remove
from dfnas_ray.storage.arrivals import WholeSet
from dfnas_ray.storage.location import Count, JsonObject, Location
from dfnas_ray.storage.run_dir import fingerprint
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.storage.shared import Shared
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.training.batches import SplitBatches

_TRIALS = "trials.json"
_COMPARISON = "comparison.json"


class Finalist(BaseModel):
    """An architecture that a trial submitted.

    Attributes:
        score: Minus its validation loss after stand-alone training; NaN if that diverged, None if there was no
            comparison.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    genotype: str
    macs: int | None = None
    score: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _genotype_alone(cls, value: Any) -> Any:
        return {"genotype": value} if isinstance(value, str) else value


class TrialSummary(BaseModel):
    """The finalists of a trial, and the best one of them.

    Attributes:
        trial: The name of the trial.
        genotype: The best finalist; ``macs`` and ``params`` are its cost.
        own_score: The score of the algorithm's own choice, on the algorithm's scale.
        finalists: All finalists, the algorithm's own choice first.
        score: The score of the best finalist; None if there was no comparison.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    trial: str
    algorithm: str
    space: str
    seed: int
    genotype: str
    macs: Count
    params: Count
    own_score: float
    finalists: tuple[Finalist, ...]
    score: float | None = None

    @property
    def merit(self) -> float:
        """The number by which trials are compared."""
        return merit(self.own_score if self.score is None else self.score)


class ComparedTrial(TrialSummary):
    """A trial summary with the history of the trial."""

    space_config: JsonObject
    history: tuple[HistoryPoint, ...]
    arrivals: tuple[tuple[int, ...], ...] | None = None

    @classmethod
    def of(cls, result: TrialResult) -> Self:
        """Return a trial before the comparison."""
        values = result.model_dump()
        return cls(**{**values, "finalists": tuple(Finalist(genotype=text) for text in result.finalists)})

    def compared(self, found: Mapping[str, Architecture], scores: Mapping[str, float]) -> Self:
        """Return the trial with its best finalist as its result.

        Args:
            found: Architectures by `name_of`.
            scores: Scores by `name_of`.
        """
        names = [name_of(self, finalist.genotype) for finalist in self.finalists]
        finalists = tuple(
            Finalist(genotype=found[name].text, macs=found[name].cost.macs, score=scores[name]) for name in names
        )
        best = max(names, key=lambda name: merit(scores[name]))
        cost = found[best].cost
        chosen = {"genotype": found[best].text, "macs": cost.macs, "params": cost.params, "score": scores[best]}
        return self.model_copy(update={"finalists": finalists, **chosen})

    def summary(self) -> TrialSummary:
        """Return the trial without its history."""
        return TrialSummary(**{name: getattr(self, name) for name in TrialSummary.model_fields})


class ComparedScores(RootModel[dict[str, float]]):
    """The content of ``comparison.json``: scores of architectures that were trained alone, by `name_of`."""

    @classmethod
    def read(cls, folder: Location, say: Say) -> dict[str, float]:
        """Return the scores recorded in a search's folder. If the file was altered, say so and return none."""
        found = read_or_remove(folder / _COMPARISON, cls, say)
        return {} if found is None else found.root

    def write(self, folder: Location) -> None:
        """Write the scores into a search's folder."""
        (folder / _COMPARISON).write_json(self.root)


class ComparedTrials(RootModel[tuple[ComparedTrial, ...]]):
    """The content of ``trials.json``: all trials of a search."""

    @classmethod
    def read(cls, folder: Location) -> tuple[ComparedTrial, ...]:
        """Return the trials of a finished search from its folder; none if the file does not exist.

        Raises:
            StorageError: the file was written by another version, or was altered.
        """
        file = folder / _TRIALS
        return file.read_model(cls).root if file.exists() else ()

    def write(self, folder: Location) -> None:
        """Write the trials into a search's folder."""
        (folder / _TRIALS).write_model(self, exclude_none=True)

    @staticmethod
    def are_intact(folder: Location, say: Say) -> bool:
        """Return whether a finished search's trials can be read; if they cannot, say why."""
        return is_intact(lambda: (folder / _TRIALS).read_model(ComparedTrials), say)


def name_of(trial: ComparedTrial, genotype: str) -> str:
    """Return a name that two trials share if they found the same architecture in the same space."""
    return f"{trial.space} {genotype} {fingerprint(trial.space_config)[:8]}"


def merit(score: float) -> float:
    """Return a score for comparisons: an architecture whose training diverged (NaN) is below every other."""
    return -math.inf if math.isnan(score) else score


def selection_batches(job: SearchJob, teacher: Teacher, images: SyntheticImages, device: torch.device) -> SplitBatches:
    """Return the batches on which all finalists are trained and judged."""
    seed = derive_seed(job.seed, "selection")
    return make_batches(job, teacher, images, WholeSet(images), job.config.selection.batch_size, seed, device)


def train_alone(job: SearchJob, space: SearchSpace, genotype: Genotype, batches: SplitBatches) -> float:
    """Return minus the validation loss of an architecture trained alone; NaN if its training diverged.

    Args:
        job: The search job, whose `selection` settings apply.
        space: The search space of the architecture.
        genotype: The architecture.
        batches: The result of `selection_batches`.
    """
    settings = job.config.selection
    scorer = StandAloneScorer(
        space,
        batches.train,
        batches.validation,
        job.config.distillation,
        settings.optimizer,
        settings.epochs,
        derive_seed(job.seed, "selection"),
        job.config.precision,
    )
    return scorer([genotype])[0][SCORE]


def check_some_trained(scores: Mapping[str, float], lr: float) -> None:
    """Make sure that the training of at least one architecture did not diverge; a score of NaN means that it did.

    Args:
        scores: Scores by architecture.
        lr: The learning rate of the training, for the message.

    Raises:
        DfnasError: every training diverged.
    """
    if all(map(math.isnan, scores.values())):
        raise DfnasError(
            f"The stand-alone training of all {len(scores)} finalists diverged, so none can be chosen. Lower "
            f"search.selection.optimizer.lr ({lr:g})."
        )


@dataclass(frozen=True)
class TrainAlone:
    """The task of a worker: train one finalist and return its score."""

    job: SearchJob
    found: dict[str, Architecture]
    teacher: Shared[Teacher]
    images: Shared[SyntheticImages]

    def __call__(self, device: torch.device) -> Callable[[str], float]:
        """Return the function that trains one finalist."""
        batches = selection_batches(self.job, self.teacher.get(), self.images.get(), device)

        def train(name: str) -> float:
            architecture = self.found[name]
            return train_alone(self.job, architecture.space, architecture.genotype, batches)

        return train
