"""DARTS: differentiable search over mixtures of all operations.

Source: Liu et al. 2019, arXiv:1806.09055. It is known to fail in three ways:

- Skip connections take over. They are counted (Liang et al. 2019, arXiv:1909.06035).
- The loss becomes sharp in alpha. The Hessian's dominant eigenvalue is watched (Zela et al. 2020, arXiv:1909.09656).
- Alphas drift apart for no reason. Beta-decay can prevent it (Ye et al. 2022, arXiv:2203.01665).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from dfnas_ray.algorithms.architecture_parameters import ArchitectureParameters, check_warmup, likely_architectures
from dfnas_ray.algorithms.base import BaseAlgorithmConfig, SearchAlgorithm, SearchProblem, StateDict
from dfnas_ray.algorithms.unrolled import dominant_eigenvalue, unrolled_alpha_gradient
from dfnas_ray.limits import MANY
from dfnas_ray.ops.precision import autocast, exact_float32
from dfnas_ray.search_spaces.base import Genotype
from dfnas_ray.seeding import derive_seed, seed_everything, torch_generator
from dfnas_ray.training.batches import Batch
from dfnas_ray.training.config import OptimizerConfig
from dfnas_ray.training.distillation import distillation_loss
from dfnas_ray.training.student import Student, read_losses

_POWER_ITERATIONS = 3  # per epoch, from the last epoch's eigenvector: the Hessian changes slowly


class AlphaOptimizerConfig(BaseModel):
    """Adam on the architecture parameters; the defaults are those of DARTS."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lr: float = Field(3e-4, gt=0, description="Step size.")
    betas: tuple[float, float] = Field((0.5, 0.999), description="Decay of the moments.")
    weight_decay: float = Field(1e-3, ge=0)


class CollapseConfig(BaseModel):
    """When a search stops early. It then returns the alphas from before the sign of collapse."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_skips: int | None = Field(
        None,
        ge=0,
        le=MANY,
        description="Stop when the chosen architecture has more skip connections than this (DARTS: in the normal cell).",
    )
    eigenvalue: bool = Field(True, description="Watch the dominant eigenvalue of the loss's Hessian in alpha.")
    eigenvalue_window: int = Field(5, gt=0, le=MANY, description="Epochs over which eigenvalues are averaged.")
    eigenvalue_lookback: int = Field(4, gt=0, le=MANY, description="Epochs back to compare with, and to return to.")
    eigenvalue_ratio: float = Field(
        0.75, gt=0, lt=1, description="Stop when the earlier average is below this share of the current one."
    )


class DartsSearchConfig(BaseAlgorithmConfig):
    """Differentiable search; the defaults are the paper's."""

    kind: Literal["darts"] = "darts"
    order: Literal["first", "second"] = Field(
        "first", description="Gradient of alpha with the current weights, or through one unrolled step of the weights."
    )
    epochs: int = Field(
        50, gt=0, le=MANY, description="Passes over the part of the images from which the weights learn."
    )
    batch_size: int = Field(
        64, gt=0, le=MANY, description="Images per step of the weights, and per step of the alphas."
    )
    optimizer: OptimizerConfig = OptimizerConfig(
        lr=0.025, min_lr=0.001, warmup_fraction=0.0, nesterov=False, weight_decay=3e-4
    )
    alpha_optimizer: AlphaOptimizerConfig = AlphaOptimizerConfig()
    alpha_fraction: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Share of the training images from which the alphas learn; the weights use the rest.",
    )
    warmup_epochs: int = Field(0, ge=0, le=MANY, description="Epochs in which only the weights learn.")
    regularization: Literal["none", "beta"] = Field(
        "none", description="beta: beta-decay on the alphas, as in beta-DARTS."
    )
    beta_weight: float = Field(50.0, gt=0, description="Final weight of beta-decay; it grows linearly from 0.")
    collapse: CollapseConfig = CollapseConfig()

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_warmup(self.epochs, self.warmup_epochs)
        return self

    trains_by_epochs: ClassVar[bool] = True
    cannot_rank: ClassVar[str] = "its alphas weigh operations, not whole architectures"

    @property
    def steps_to_show(self) -> int:
        """The length of the progress bar, in epochs."""
        return self.epochs

    def algorithm(self, problem: SearchProblem) -> DartsSearch:
        """Return the algorithm, ready to run."""
        return DartsSearch(self, problem)


class DartsSearch(SearchAlgorithm):
    """Trains weights on one part of the training images and alphas on the other part, in turn.

    Attributes:
        supernet: All operations on all edges.
        architecture: The alphas.
    """

    def __init__(self, config: DartsSearchConfig, problem: SearchProblem):
        problem.space.check_limit(problem.max_macs)
        self.config, self.space, self.problem = config, problem.space, problem
        self.temperature = problem.distillation.temperature
        self.weight_batches, self.alpha_batches = problem.train.split(config.alpha_fraction, "alpha-split")
        self.num_epochs = config.epochs
        seed_everything(derive_seed(problem.seed, "supernet-weights"))
        device = problem.train.device
        self.supernet = self.space.supernet().to(device)
        generator = torch_generator(problem.seed, "alphas")
        self.architecture = ArchitectureParameters(self.space, generator).to(device)
        self.student = Student(
            self.supernet,
            config.optimizer,
            self.temperature,
            config.epochs * len(self.weight_batches),
            precision=problem.precision,
            average_gradients=problem.average_gradients,
        )
        alpha = config.alpha_optimizer
        self.alpha_optimizer = torch.optim.Adam(
            self.architecture.parameters(), lr=alpha.lr, betas=alpha.betas, weight_decay=alpha.weight_decay
        )
        self._alphas: list[list[Tensor]] = []  # after each epoch
        self._eigenvalues: list[float] = []  # after each epoch in which the alphas learned
        self._eigenvector = torch.randn(
            sum(alpha.numel() for alpha in self.architecture.alphas),
            generator=torch_generator(problem.seed, "eigenvector"),
        )
        self._chosen_epoch: int | None = None  # set when the search stopped early

    @property
    def is_training(self) -> bool:
        """Whether another epoch is to be trained; none after the search has stopped early."""
        return super().is_training and self._chosen_epoch is None

    def train_epoch(self) -> dict[str, float]:
        """Take an alpha step and a weight step on each pair of batches, check for collapse, and return the metrics."""
        train_losses, valid_losses = [], []
        for train, valid in zip(self.weight_batches.epoch(self.epochs_done), self._alpha_stream(), strict=False):
            train_loss, valid_loss = self.step(train, valid)
            train_losses.append(train_loss)
            if valid_loss is not None:
                valid_losses.append(valid_loss)
        self.epochs_done += 1
        self._alphas.append([alpha.detach().cpu().clone() for alpha in self.architecture.alphas])
        genotype = self.space.derive(self.architecture.log_probabilities())
        metrics = {
            "loss": float(np.mean(read_losses(train_losses))),
            "alpha_loss": float(np.mean(read_losses(valid_losses))) if valid_losses else math.nan,
            "skips": float(self.space.num_skips(genotype)),
            "entropy": self.architecture.entropy(),
        }
        if self.epochs_done > self.config.warmup_epochs:  # during warm-up the alphas do not change
            if self.config.collapse.eigenvalue:
                metrics["eigenvalue"] = self._measure_eigenvalue()
                self._eigenvalues.append(metrics["eigenvalue"])
            self._check_collapse(int(metrics["skips"]))
        return metrics

    def step(self, train: Batch, valid: Batch) -> tuple[Tensor, Tensor | None]:
        """Take one alpha step on ``valid``, then one weight step on ``train``; return the losses of weights and alphas.

        During the warm-up of the weights there is no alpha step, and the loss of the alphas is None.
        """
        self.supernet.train()
        alpha_loss = None if self.epochs_done < self.config.warmup_epochs else self._alpha_step(train, valid)
        mixtures = [mixture._replace(weights=mixture.weights.detach()) for mixture in self.architecture.mixtures()]
        return self.student.step(train, lambda images: self.supernet(images, mixtures)), alpha_loss

    def best(self) -> tuple[Genotype, float]:
        """Return the architecture that the alphas favour, and the mean log-probability of its operations."""
        rows = self._final_rows()
        genotype = self.space.derive_within(rows, self.problem.max_macs)
        chosen = zip(rows, self.space.choices(genotype), strict=True)
        return genotype, float(np.mean([row[choice] for row, choice in chosen if choice is not None]))

    def finalists(self, count: int) -> list[Genotype]:
        """Return the architecture that the alphas favour, and other likely ones."""
        return likely_architectures(self.space, self._final_rows(), self.problem.max_macs, count, self.problem.seed)

    def state_dict(self) -> StateDict:
        """Return the state as tensors, numbers and text only."""
        return {
            "epochs_done": self.epochs_done,
            "student": self.student.state_dict(),
            "architecture": self.architecture.state_dict(),
            "alpha_optimizer": self.alpha_optimizer.state_dict(),
            "alphas": self._alphas,
            "eigenvalues": self._eigenvalues,
            "eigenvector": self._eigenvector,
            "chosen_epoch": self._chosen_epoch,
            "torch_rng": torch.get_rng_state(),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Resume exactly where ``state_dict`` was called."""
        self.epochs_done = state["epochs_done"]
        self.student.load_state_dict(state["student"])
        self.architecture.load_state_dict(state["architecture"])
        self.alpha_optimizer.load_state_dict(state["alpha_optimizer"])
        self._alphas = list(state["alphas"])
        self._eigenvalues, self._eigenvector = list(state["eigenvalues"]), state["eigenvector"]
        self._chosen_epoch = state["chosen_epoch"]
        torch.set_rng_state(state["torch_rng"])

    def alpha_loss(self, batch: Batch) -> Tensor:
        """Return the loss of the alphas on a batch: the distillation loss, plus beta-decay if it is set."""
        # The second order's finite differences, and the Hessian, need float32.
        loss = self._loss(batch, self.student.dtype if self.config.order == "first" else torch.float32)
        if self.config.regularization == "beta":
            weight = self.config.beta_weight * self.epochs_done / max(1, self.config.epochs - 1)
            loss = loss + weight * beta_decay(self.architecture.rows())
        return loss

    def _loss(self, batch: Batch, dtype: torch.dtype = torch.float32) -> Tensor:
        with autocast(self.student.device, dtype):
            logits = self.supernet(batch.images.clone(), self.architecture.mixtures())
        return distillation_loss(logits, batch.teacher_logits, self.temperature)

    def _final_rows(self) -> list[np.ndarray[Any, Any]]:
        """Return the log-probabilities at the end, or from before the collapse that stopped the search."""
        alphas = [a.detach().cpu() for a in self.architecture.alphas]
        if self._chosen_epoch is not None:
            alphas = self._alphas[self._chosen_epoch]
        return [row.double().log_softmax(dim=0).numpy() for group in alphas for row in group.unbind()]

    def _alpha_step(self, train: Batch, valid: Batch) -> Tensor:
        alphas = list(self.architecture.parameters())
        losses: list[Tensor] = []

        def valid_loss() -> Tensor:
            loss = self.alpha_loss(valid)
            losses.append(loss.detach())
            return loss

        if self.config.order == "first":
            gradients = list(torch.autograd.grad(valid_loss(), alphas))
        else:
            gradients = self._second_order(train, valid_loss)
        for alpha, gradient in zip(alphas, gradients, strict=True):
            alpha.grad = gradient
        self.problem.average_gradients(alphas)
        self.alpha_optimizer.step()
        return losses[0]

    def _second_order(self, train: Batch, valid_loss: Any) -> list[Tensor]:
        optimizer = self.student.optimizer
        weights = [p for p in self.student.parameters if p.requires_grad]
        group = optimizer.param_groups[0]
        buffers = [optimizer.state.get(weight, {}).get("momentum_buffer") for weight in weights]
        velocity = [
            torch.zeros_like(w) if b is None else group["momentum"] * b for w, b in zip(weights, buffers, strict=True)
        ]
        with exact_float32():
            return unrolled_alpha_gradient(
                lambda: self._loss(train),
                valid_loss,
                weights,
                list(self.architecture.parameters()),
                self.student.learning_rate(self.student.steps_done),
                weight_decay=group["weight_decay"],
                velocity=velocity,
                average=self._average,
            )

    def _alpha_stream(self) -> Iterator[Batch]:
        """Yield batches for the alphas without end, however few images their part has, from where the last epoch ended."""
        return self.alpha_batches.endless(self.epochs_done * len(self.weight_batches))

    def _measure_eigenvalue(self) -> float:
        batch = next(iter(self.alpha_batches.epoch(self.num_epochs)))  # always the same one
        with exact_float32():
            eigenvalue, self._eigenvector = dominant_eigenvalue(
                lambda: self._loss(batch),
                list(self.architecture.parameters()),
                self._eigenvector,
                _POWER_ITERATIONS,
                self._average,
            )
        return eigenvalue

    def _average(self, gradients: list[Tensor]) -> list[Tensor]:
        """Return the average of gradients over the processes that search together."""
        carriers = [torch.nn.Parameter(torch.empty_like(gradient)) for gradient in gradients]
        for carrier, gradient in zip(carriers, gradients, strict=True):
            carrier.grad = gradient.detach()
        self.problem.average_gradients(carriers)
        return [carrier.grad for carrier in carriers if carrier.grad is not None]

    def _check_collapse(self, skips: int) -> None:
        """Stop the search at a sign of collapse, and choose alphas of an earlier epoch, but never of the warm-up."""
        watch, epoch = self.config.collapse, self.epochs_done - 1
        if watch.max_skips is not None and skips > watch.max_skips and epoch > self.config.warmup_epochs:
            self._chosen_epoch = epoch - 1
        elif watch.eigenvalue and has_sharpened(
            self._eigenvalues, watch.eigenvalue_window, watch.eigenvalue_lookback, watch.eigenvalue_ratio
        ):
            self._chosen_epoch = epoch - watch.eigenvalue_lookback


def beta_decay(rows: list[Tensor]) -> Tensor:
    r"""Return the mean over the mixed operations of :math:`\log \sum_i e^{\alpha_i}`: Ye et al. 2022, Eq. 12."""
    return torch.stack([row.logsumexp(dim=0) for row in rows]).mean()


def has_sharpened(eigenvalues: list[float], window: int, lookback: int, ratio: float) -> bool:
    """Return whether the averaged eigenvalue of ``lookback`` epochs ago is below ``ratio`` times the current average.

    Source: Zela et al. 2020, arXiv:1909.09656, Sec. 4.3. Averages are over ``window`` epochs.
    """
    if len(eigenvalues) < window + lookback:
        return False
    present = float(np.mean(eigenvalues[-window:]))
    before = float(np.mean(eigenvalues[-window - lookback : -lookback]))
    return 0 < before < ratio * present
