"""SPOS: a supernet trained along uniformly sampled single paths, then evolution.

Source: Guo et al. 2020, arXiv:1904.00420.
"""

from __future__ import annotations

import copy
import json
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from dfnas_ray.algorithms.base import SCORE, BaseAlgorithmConfig, SearchProblem, StateDict
from dfnas_ray.algorithms.evolution import Evolution, EvolutionarySearch, EvolutionConfig
from dfnas_ray.algorithms.one_shot import Fitness, OneShotScorer
from dfnas_ray.algorithms.path_bins import MacsBins
from dfnas_ray.limits import MANY, SEVERAL
from dfnas_ray.search_spaces.base import Genotype
from dfnas_ray.seeding import derive_seed, numpy_generator, seed_everything
from dfnas_ray.training.config import OptimizerConfig
from dfnas_ray.training.student import Student, read_losses


class SposConfig(BaseAlgorithmConfig):
    """Single-path one-shot search."""

    kind: Literal["spos"] = "spos"
    epochs: int = Field(
        120, gt=0, le=MANY, description="Passes of supernet training over the synthetic training images."
    )
    batch_size: int = Field(128, gt=0, le=MANY, description="Images per step.")
    optimizer: OptimizerConfig = OptimizerConfig()
    train_within_limit: bool = Field(False, description="Train only paths within the limits on MACs.")
    path_bins: int = Field(
        0,
        ge=0,
        le=SEVERAL,
        exclude_if=lambda value: value == 0,
        description="Number of equally wide bins between search.min_macs and search.max_macs; each bin is drawn equally "
        "often, then a path in it. 0: every architecture is equally likely, so most paths have medium MACs.",
    )
    calibration_batches: int = Field(
        8, gt=0, le=MANY, description="Number of batches from which BatchNorm statistics are re-estimated."
    )
    fitness: Fitness = Field(
        "distillation_loss",
        description="Score that evolution maximises: agreement with the teacher, minus the loss, accuracy on the classes "
        "that the images were made for, or the angle by which training turned the weights.",
    )
    evolution: EvolutionConfig = EvolutionConfig()

    trains_by_epochs: ClassVar[bool] = True
    search_settings: ClassVar[frozenset[str]] = frozenset({"evolution"})
    keeps_min_macs: ClassVar[bool] = True

    @property
    def figures(self) -> tuple[str, ...]:
        """See `RankingFeatures`."""
        return (SCORE,)

    @property
    def steps_to_show(self) -> int:
        """The length of the progress bar, in epochs and generations."""
        return self.epochs + self.evolution.generations

    @property
    def num_candidates(self) -> int:
        """See `PlanningFeatures`."""
        return self.evolution.num_candidates

    def images_per_candidate(self, train: int, validation: int) -> float:
        """See `PlanningFeatures`: the images for the BatchNorm statistics, and the validation images."""
        return min(train, self.calibration_batches * self.batch_size) + validation

    def algorithm(self, problem: SearchProblem) -> Spos:
        """Return the algorithm, ready to run."""
        return Spos(self, problem)


class Spos(EvolutionarySearch):
    """Supernet training, then evolution on candidates scored with the shared weights."""

    def __init__(self, config: SposConfig, problem: SearchProblem):
        self.config, self.space, self.problem = config, problem.space, problem
        self.train, self.num_epochs = problem.train, config.epochs
        limits = problem.max_macs, problem.min_macs
        self.evolution = Evolution(self.space, config.evolution, limits[0], problem.seed, limits[1])
        self.bins = MacsBins(self.space, config.path_bins, *limits) if config.path_bins else None
        seed_everything(derive_seed(problem.seed, "supernet-weights"))
        self.supernet = self.space.supernet().to(self.train.device)
        self.initial = copy.deepcopy(self.supernet) if config.fitness == "angle" else None
        self.student = Student(
            self.supernet,
            config.optimizer,
            problem.distillation.temperature,
            config.epochs * len(self.train),
            precision=problem.precision,
            average_gradients=problem.average_gradients,
        )
        self.path_rng = numpy_generator(problem.seed, "paths")

    def train_epoch(self) -> dict[str, float]:
        """Train each batch along one path, drawn uniformly or from the bins, and return the mean loss."""
        losses = []
        for batch in self.train.epoch(self.epochs_done):
            path = self.space.choices(self._draw_path())
            losses.append(self.student.step(batch, lambda images, path=path: self.supernet(images, path)))  # type: ignore[misc]
        self.epochs_done += 1
        return {"loss": float(np.mean(read_losses(losses)))}

    def _draw_path(self) -> Genotype:
        if self.bins is not None:
            return self.bins.draw(self.path_rng)
        problem = self.problem
        limits = (problem.max_macs, problem.min_macs) if self.config.train_within_limit else (None, None)
        return self.space.sample_within(self.path_rng, *limits)

    def scorer(self) -> OneShotScorer:
        """Return a scorer with a copy of the current supernet."""
        # Batches of later epochs, which training does not reach: augmented alike, and the same for every candidate.
        calibration = self.train.first(self.config.calibration_batches, from_epoch=self.num_epochs)
        return OneShotScorer(
            self.space,
            copy.deepcopy(self.supernet),
            [batch.images for batch in calibration],
            self.problem.validation.centres(),
            self.config.fitness,
            self.problem.distillation.temperature,
            self.problem.precision,
            self.problem.validation.labels,
            copy.deepcopy(self.initial),
        )

    def state_dict(self) -> StateDict:
        """Return the state as tensors, numbers and text only."""
        return {
            "epochs_done": self.epochs_done,
            "student": self.student.state_dict(),
            "path_rng": json.dumps(self.path_rng.bit_generator.state),
            "torch_rng": torch.get_rng_state(),
            "evolution": self.evolution.state_dict(),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Resume exactly where ``state_dict`` was called."""
        self.epochs_done = state["epochs_done"]
        self.student.load_state_dict(state["student"])
        self.path_rng.bit_generator.state = json.loads(state["path_rng"])
        torch.set_rng_state(state["torch_rng"])
        self.evolution.load_state_dict(state["evolution"])
