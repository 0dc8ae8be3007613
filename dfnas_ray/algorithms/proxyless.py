"""ProxylessNAS: alphas are learned through sampled paths, so memory does not grow with the number of operations.

Source: Cai et al. 2019, arXiv:1812.00332, Sec. 3 (binary gates, two sampled paths, REINFORCE, expected latency).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from dfnas_ray.algorithms.architecture_parameters import ArchitectureParameters, check_warmup, likely_architectures
from dfnas_ray.algorithms.base import BaseAlgorithmConfig, SearchAlgorithm, SearchProblem, StateDict, diverged
from dfnas_ray.limits import MANY
from dfnas_ray.ops.mixed import Mixture
from dfnas_ray.ops.precision import autocast
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.search_spaces.latency import load_latency_table, read_latency_table
from dfnas_ray.seeding import derive_seed, numpy_generator, seed_everything, torch_generator
from dfnas_ray.training.batches import Batch
from dfnas_ray.training.config import OptimizerConfig
from dfnas_ray.training.distillation import distillation_loss
from dfnas_ray.training.student import Student, read_losses


class MacsTermConfig(BaseModel):
    """The logarithm of the expected MACs, added to the loss of the alphas."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["macs"] = "macs"
    weight: float = Field(0.1, ge=0, description="0 leaves the cost to search.max_macs alone.")

    def table(self, space: SearchSpace) -> tuple[list[np.ndarray[Any, Any]], float]:
        """Return the MACs of each option by mixed operation, and the MACs that every architecture has."""
        return space.cost_table.macs, float(space.cost_table.fixed_total.macs)


class LatencyTermConfig(BaseModel):
    """The logarithm of the expected latency, added to the loss of the alphas."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["latency"] = "latency"
    weight: float = Field(0.1, ge=0, description="Weight of the latency term.")
    file: str = Field(description="The target device's table, as `dfnas space latency` writes it.")
    device: str | None = Field(None, description="Name of the target device; by default this machine's device.")

    def table(self, space: SearchSpace) -> tuple[list[np.ndarray[Any, Any]], float]:
        """Return the seconds of each option by mixed operation, and the seconds that every architecture takes."""
        table = load_latency_table(self.file, space, self.device)
        return [np.array(row) for row in table.options], table.fixed


CostTermConfig = Annotated[MacsTermConfig | LatencyTermConfig, Field(discriminator="kind")]


class ProxylessSearchConfig(BaseAlgorithmConfig):
    """Gradient search over sampled paths."""

    kind: Literal["proxyless"] = "proxyless"
    update: Literal["gradient", "reinforce"] = Field(
        "gradient", description="Learn alphas from the gates of two sampled paths, or from rewards of whole paths."
    )
    epochs: int = Field(120, gt=0, le=MANY, description="Passes over the images from which the weights learn.")
    warmup_epochs: int = Field(20, ge=0, le=MANY, description="Epochs in which only the weights learn.")
    batch_size: int = Field(
        128, gt=0, le=MANY, description="Images per step of the weights, and per step of the alphas."
    )
    optimizer: OptimizerConfig = OptimizerConfig(lr=0.05)
    alpha_lr: float = Field(1e-3, gt=0, description="Adam's step size on the alphas.")
    alpha_fraction: float = Field(
        0.3,
        gt=0,
        lt=1,
        description="Share of the training images from which the alphas learn; the weights use the rest.",
    )
    alpha_every: int = Field(1, gt=0, le=MANY, description="Weight steps for each alpha step.")
    reinforce_samples: int = Field(8, gt=0, le=MANY, description="Paths per alpha step of REINFORCE.")
    reinforce_decay: float = Field(
        0.9, ge=0, lt=1, description="Decay of the moving average that rewards are compared with."
    )
    cost: CostTermConfig = MacsTermConfig()

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_warmup(self.epochs, self.warmup_epochs)
        return self

    cannot_rank: ClassVar[str] = "its alphas weigh operations, not whole architectures"
    trains_by_epochs: ClassVar[bool] = True
    unsuitable_spaces: ClassVar[dict[str, str]] = {
        "darts": "a DARTS cell keeps two of several edges per node, and path gates, one per edge, cannot choose edges",
    }

    @property
    def steps_to_show(self) -> int:
        """The length of the progress bar, in epochs."""
        return self.epochs

    @property
    def files(self) -> tuple[str, ...]:
        """The latency table, if there is one."""
        return (self.cost.file,) if isinstance(self.cost, LatencyTermConfig) else ()

    def check_files(self, space: SearchSpace) -> None:
        """Make sure that the latency table belongs to this space; the device is checked by the worker."""
        for file in self.files:
            read_latency_table(file, space)

    def algorithm(self, problem: SearchProblem) -> ProxylessSearch:
        """Return the algorithm, ready to run."""
        return ProxylessSearch(self, problem)


class ProxylessSearch(SearchAlgorithm):
    """Trains weights along one path sampled by the alphas, and alphas from two paths or from rewards."""

    def __init__(self, config: ProxylessSearchConfig, problem: SearchProblem):
        problem.space.check_limit(problem.max_macs)
        self.config, self.space, self.problem = config, problem.space, problem
        self.temperature, device = problem.distillation.temperature, problem.train.device
        self.weight_batches, self.alpha_batches = problem.train.split(config.alpha_fraction, "alpha-split")
        self.num_epochs = config.epochs
        option_costs, self.fixed_cost = config.cost.table(self.space)
        self.option_costs = [torch.tensor(row, dtype=torch.float32, device=device) for row in option_costs]
        seed_everything(derive_seed(problem.seed, "supernet-weights"))
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
        # Without momentum, an alpha whose path was not sampled stays where it is.
        self.alpha_optimizer = torch.optim.Adam(self.architecture.parameters(), lr=config.alpha_lr, betas=(0.0, 0.999))
        self.path_rng = numpy_generator(problem.seed, "paths")
        self.baseline: float | None = None  # of REINFORCE: a moving average of rewards
        self.steps_done = 0

    def train_epoch(self) -> dict[str, float]:
        """Train the weights along sampled paths, and the alphas after every ``alpha_every`` steps; return metrics."""
        losses, alpha_losses = [], []
        is_warm = self.epochs_done >= self.config.warmup_epochs
        stream = self._alpha_stream()
        for batch in self.weight_batches.epoch(self.epochs_done):
            path = self.sample_path()
            losses.append(self.student.step(batch, lambda images, path=path: self.supernet(images, path)))  # type: ignore[misc]
            self.steps_done += 1
            if is_warm and self.steps_done % self.config.alpha_every == 0:
                alpha_losses.append(self.alpha_step(next(stream)))
        self.epochs_done += 1
        genotype = self.space.derive(self.architecture.log_probabilities())
        with torch.no_grad():
            expected = float(self.expected_cost())
        return {
            "loss": float(np.mean(read_losses(losses))),
            **({"alpha_loss": float(np.mean(read_losses(alpha_losses)))} if alpha_losses else {}),
            "skips": float(self.space.num_skips(genotype)),
            "entropy": self.architecture.entropy(),
            f"expected_{self.config.cost.kind}": expected,
        }

    def sample_path(self) -> tuple[int, ...]:
        """Draw one option of each mixed operation according to the probabilities."""
        return tuple(int(self.path_rng.choice(len(p), p=p)) for p in self._numpy_probabilities())

    def expected_cost(self) -> Tensor:
        """Return the expected MACs or seconds of an architecture drawn according to the alphas; differentiable."""
        probabilities = self.architecture.probabilities()
        terms = [(p * cost).sum() for p, cost in zip(probabilities, self.option_costs, strict=True)]
        return torch.stack(terms).sum() + self.fixed_cost

    def alpha_step(self, batch: Batch) -> Tensor:
        """Take one step on the alphas and return the loss along the sampled paths, a scalar on the device."""
        self.supernet.train()
        return self._gate_step(batch) if self.config.update == "gradient" else self._reinforce_step(batch)

    def best(self) -> tuple[Genotype, float]:
        """Return the most likely architecture within the limit, and the mean log-probability of its options."""
        rows = self.architecture.log_probabilities()
        genotype = self.space.derive_within(rows, self.problem.max_macs)
        chosen = zip(rows, self.space.choices(genotype), strict=True)
        return genotype, float(np.mean([row[choice] for row, choice in chosen if choice is not None]))

    def finalists(self, count: int) -> list[Genotype]:
        """Return the most likely architecture within the limit, and others drawn according to the probabilities."""
        rows = self.architecture.log_probabilities()
        return likely_architectures(self.space, rows, self.problem.max_macs, count, self.problem.seed)

    def state_dict(self) -> StateDict:
        """Return the state as tensors, numbers and text only."""
        return {
            "epochs_done": self.epochs_done,
            "steps_done": self.steps_done,
            "student": self.student.state_dict(),
            "architecture": self.architecture.state_dict(),
            "alpha_optimizer": self.alpha_optimizer.state_dict(),
            "path_rng": json.dumps(self.path_rng.bit_generator.state),
            "torch_rng": torch.get_rng_state(),
            "baseline": self.baseline,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Resume exactly where ``state_dict`` was called."""
        self.epochs_done, self.steps_done = state["epochs_done"], state["steps_done"]
        self.student.load_state_dict(state["student"])
        self.architecture.load_state_dict(state["architecture"])
        self.alpha_optimizer.load_state_dict(state["alpha_optimizer"])
        self.path_rng.bit_generator.state = json.loads(state["path_rng"])
        torch.set_rng_state(state["torch_rng"])
        self.baseline = state["baseline"]

    def _gate_step(self, batch: Batch) -> Tensor:
        """Take an alpha step through the binary gates of two sampled options per mixed operation."""
        pairs, gates = self._sample_gates()
        mixtures = [Mixture(pair, gate, constant=(pair[1],)) for pair, gate in zip(pairs, gates, strict=True)]
        with autocast(self.student.device, self.student.dtype):
            logits = self.supernet(batch.images.clone(), mixtures)
        loss = distillation_loss(logits, batch.teacher_logits, self.temperature)
        # Where operations that give zeros cut a node off, the loss does not depend on the gates behind it.
        gate_gradients = torch.autograd.grad(loss, gates, materialize_grads=True)
        rows = self.architecture.rows()
        cost_gradients = self._cost_gradients()
        gradients = []
        for row, pair, gate_gradient, cost_gradient in zip(rows, pairs, gate_gradients, cost_gradients, strict=True):
            sampled = list(pair)
            p = row.detach()[sampled].softmax(dim=0)
            gradient = torch.zeros_like(row)
            gradient[sampled] = p * (gate_gradient - (p * gate_gradient).sum()) + cost_gradient[sampled]
            gradients.append(gradient)
        self._apply(gradients, pairs)
        return loss.detach()

    def _sample_gates(self) -> tuple[list[tuple[int, int]], list[Tensor]]:
        """Draw two options of each mixed operation by probability; the first of each pair is active (gate 1)."""
        pairs, gates = [], []
        for p in self._numpy_probabilities():
            two = self.path_rng.choice(len(p), size=2, replace=False, p=p)
            within = p[two] / p[two].sum()
            active = int(self.path_rng.random() >= within[0])
            pairs.append((int(two[active]), int(two[1 - active])))
            gates.append(torch.tensor([1.0, 0.0], device=self.problem.train.device, requires_grad=True))
        return pairs, gates

    def _apply(self, gradients: list[Tensor], pairs: list[tuple[int, int]]) -> None:
        """Take the step, then shift each sampled pair so that all others keep their probability (Sec. 3.2.1)."""
        before = [
            row.detach()[list(pair)].logsumexp(0) for row, pair in zip(self.architecture.rows(), pairs, strict=True)
        ]
        self._step(gradients)
        with torch.no_grad():
            for row, pair, old in zip(self.architecture.rows(), pairs, before, strict=True):
                first, second = pair
                shift = old - torch.logaddexp(row[first], row[second])
                row[first] += shift
                row[second] += shift

    def _reinforce_step(self, batch: Batch) -> Tensor:
        """Take an alpha step from the rewards of whole paths, without gradients through the supernet (Sec. 3.3.2)."""
        paths = [self.sample_path() for _ in range(self.config.reinforce_samples)]
        losses, rewards = [], []
        for path in paths:
            with torch.no_grad(), autocast(self.student.device, self.student.dtype):
                logits = self.supernet(batch.images.clone(), path)
                losses.append(distillation_loss(logits, batch.teacher_logits, self.temperature))
        for path, loss in zip(paths, read_losses(losses), strict=True):
            cost = self.fixed_cost + sum(float(row[c]) for row, c in zip(self.option_costs, path, strict=True))
            rewards.append(-loss - self.config.cost.weight * float(np.log(max(cost, 1e-12))))
        mean = float(np.mean(rewards))
        baseline = mean if self.baseline is None else self.baseline
        decay = self.config.reinforce_decay
        self.baseline = decay * baseline + (1 - decay) * mean
        gradients = []
        for position, row in enumerate(self.architecture.rows()):
            p, gradient = row.detach().softmax(dim=0), torch.zeros_like(row)
            for path, reward in zip(paths, rewards, strict=True):
                score = -p.clone()
                score[path[position]] += 1.0  # the gradient of the log-probability
                gradient -= (reward - baseline) * score / len(paths)
            gradients.append(gradient)
        self._step(gradients)
        return torch.stack(losses).double().mean()

    def _step(self, gradients: list[Tensor]) -> None:
        remaining = iter(gradients)
        for group in self.architecture.alphas:
            group.grad = torch.stack([next(remaining) for _ in range(len(group))])
        self.problem.average_gradients(self.architecture.parameters())
        self.alpha_optimizer.step()

    def _cost_gradients(self) -> list[Tensor]:
        """Return the gradient of weight * log(expected cost) with respect to each row of alphas."""
        if self.config.cost.weight == 0:
            return [torch.zeros_like(row) for row in self.architecture.rows()]
        term = self.config.cost.weight * self.expected_cost().log()
        found = torch.autograd.grad(term, list(self.architecture.alphas))
        return [row for group in found for row in group.unbind()]

    def _numpy_probabilities(self) -> list[np.ndarray[Any, Any]]:
        rows = [np.exp(row) for row in self.architecture.log_probabilities()]
        if not all(np.isfinite(row).all() for row in rows):  # no path can be drawn
            raise diverged(self.epochs_done + 1)
        return [row / row.sum() for row in rows]

    def _alpha_stream(self) -> Iterator[Batch]:
        return self.alpha_batches.endless(self.steps_done // self.config.alpha_every)
