"""Search with training-free scores: evolution over candidates that are never trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from dfnas_ray.algorithms.base import BaseAlgorithmConfig, Measurement, SearchProblem
from dfnas_ray.algorithms.evolution import EvolutionConfig, RelativeSearch
from dfnas_ray.algorithms.ranks import add_up_ranks
from dfnas_ray.algorithms.zero_cost.proxies import PROXIES, measure_proxy
from dfnas_ray.algorithms.zero_cost.untrained import UntrainedNetwork, initialize
from dfnas_ray.config.member import Name
from dfnas_ray.errors import ConfigError
from dfnas_ray.limits import MANY
from dfnas_ray.ops.networks import channels_last
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import derive_seed, seed_everything, torch_generator
from dfnas_ray.training.batches import Batch


class ZeroCostConfig(BaseAlgorithmConfig):
    """Candidates scored without training, by one proxy or by the sum of several proxies' ranks."""

    kind: Literal["zero_cost"] = "zero_cost"
    proxies: tuple[Annotated[str, Name(PROXIES)], ...] = Field(
        ("az_nas", "synflow", "naswot", "zico"),
        min_length=1,
        description="The proxies that score a candidate; with several, their ranks are added up.",
    )
    az_nas_input: Literal["noise", "images"] = Field(
        "noise", description="Input of the network for AZ-NAS: Gaussian noise, as published, or the images."
    )
    batch_size: int = Field(64, gt=1, le=MANY, description="Images per batch.")
    batches: int = Field(
        2, gt=1, le=MANY, description="Number of batches: ZiCo compares gradients of all, NASWOT uses the first."
    )
    repeats: int = Field(1, gt=0, le=MANY, description="Initialisations over which each figure is averaged.")
    evolution: EvolutionConfig = EvolutionConfig()

    search_settings: ClassVar[frozenset[str]] = frozenset({"evolution"})
    keeps_min_macs: ClassVar[bool] = True

    @model_validator(mode="after")
    def _check(self) -> ZeroCostConfig:
        if len(set(self.proxies)) < len(self.proxies):
            raise ValueError(f"proxies {list(self.proxies)} must be different from each other.")
        return self

    @property
    def label(self) -> str:
        """The name of the algorithm in results; it tells variants of the kind apart."""
        on_images = "(images)" if self.az_nas_input == "images" else ""
        return "+".join(
            proxy.kind + on_images * (proxy.looks_at == "probe") for proxy in map(PROXIES.find, self.proxies)
        )

    @property
    def needs_images(self) -> bool:
        """Whether a score depends on the images."""
        looks_at = {PROXIES.find(name).looks_at for name in self.proxies}
        return "images" in looks_at or ("probe" in looks_at and self.az_nas_input == "images")

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of all figures that are measured, each once."""
        return tuple(dict.fromkeys(figure for name in self.proxies for figure in PROXIES.find(name).figures))

    @property
    def parts(self) -> tuple[Self, ...]:
        """See `RankingFeatures`: one for each proxy."""
        return tuple(self.model_copy(update={"proxies": (name,)}) for name in self.proxies)

    @property
    def steps_to_show(self) -> int:
        """The length of the progress bar, in generations."""
        return self.evolution.generations

    @property
    def num_candidates(self) -> int:
        """See `PlanningFeatures`."""
        return self.evolution.num_candidates

    def algorithm(self, problem: SearchProblem) -> ZeroCost:
        """Return the algorithm, ready to run."""
        return ZeroCost(self, problem)


@dataclass
class ZeroCostScorer:
    """Measures untrained networks.

    Attributes:
        space: The search space of the candidates.
        proxies: Names of the proxies.
        batches: The same images for every candidate, with the teacher's logits.
        probe: (B, C, H, W), the input for AZ-NAS.
        seed: The seed of the initial weights.
        repeats: Initialisations over which each figure is averaged.
    """

    space: SearchSpace
    proxies: tuple[str, ...]
    batches: list[Batch]
    probe: Tensor
    seed: int
    repeats: int = 1

    def __call__(self, genotypes: Sequence[Genotype]) -> list[Measurement]:
        """Return each genotype's figures."""
        return [self._measure(genotype) for genotype in genotypes]

    def to(self, device: torch.device) -> None:
        """Move the images to a device."""
        self.batches = [Batch(*(tensor.to(device) for tensor in batch)) for batch in self.batches]
        self.probe = self.probe.to(device)

    def _measure(self, genotype: Genotype) -> Measurement:
        measured = [self._measure_once(genotype, repeat) for repeat in range(self.repeats)]
        return {name: sum(one[name] for one in measured) / self.repeats for name in measured[0]}

    def _measure_once(self, genotype: Genotype, repeat: int) -> Measurement:
        seed = derive_seed(self.seed, "zero-cost", self.space.encode(genotype), repeat)
        seed_everything(seed)
        network = self.space.build(genotype)
        initialize(network)  # on the CPU: devices draw differently
        network = channels_last(network.to(self.batches[0].images.device)).train()
        candidate = UntrainedNetwork(
            network,
            self.space.blocks(network),
            self.space.cost(genotype),
            self.batches,
            self.probe,
            self.space.image_shape,
            torch.Generator(),
        )
        figures: Measurement = {}
        for name in self.proxies:
            candidate.generator.manual_seed(seed)  # so that no proxy depends on the draws of another one
            figures.update(measure_proxy(name, candidate))
        return figures


class ZeroCost(RelativeSearch):
    """Evolution whose candidates are scored without training."""

    def __init__(self, config: ZeroCostConfig, problem: SearchProblem):
        super().__init__(config.evolution, problem)
        self.config, self.problem = config, problem

    def rank(self, measurements: Sequence[Measurement]) -> list[float]:
        """Return the figure itself if there is only one, else the sum of the logarithms of the ranks by each figure."""
        figures = self.config.figures
        if len(figures) == 1:
            return [measurement[figures[0]] for measurement in measurements]
        return add_up_ranks(measurements, figures)

    def scorer(self) -> ZeroCostScorer:
        """Return a scorer with its own batches, so that measurements do not change between generations."""
        train, wanted = self.problem.train, self.config.batches
        if "zico" in self.config.proxies and train.config.variation is None and len(train) < wanted:
            raise ConfigError(
                f"search.algorithm.batches ({wanted}): zico compares gradients on different images, but {len(train.ids)} images "
                f"of search.images make {len(train)} of {self.config.batch_size}. Set search.algorithm.batch_size to "
                f"{max(2, len(train.ids) // wanted)} or less."
            )
        batches = train.first(wanted)
        probe = batches[0].images
        if self.config.az_nas_input == "noise":
            shape = (self.config.batch_size, *self.space.image_shape)
            noise = torch.randn(shape, generator=torch_generator(self.problem.seed, "zero-cost-noise"))
            probe = noise.to(probe.device, memory_format=torch.channels_last)
        return ZeroCostScorer(self.space, self.config.proxies, batches, probe, self.problem.seed, self.config.repeats)
