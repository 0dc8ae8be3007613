"""Settings of the search stage."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from dfnas_ray.algorithms.base import BaseAlgorithmConfig
from dfnas_ray.algorithms.spos import SposConfig
from dfnas_ray.config.member import OneOrSeveral
from dfnas_ray.config.registry import Family
from dfnas_ray.errors import ConfigError
from dfnas_ray.limits import LARGEST_SEED, MANY, MAX_TRIALS, SEVERAL
from dfnas_ray.ops.precision import Precision
from dfnas_ray.search_spaces import SPACES, NASBenchMacroConfig, SearchSpaceConfig, SpaceConfig
from dfnas_ray.sources import ImagesConfig, SyntheticSource
from dfnas_ray.training.config import DistillationConfig, OptimizerConfig

ALGORITHMS: Family[BaseAlgorithmConfig] = Family(
    "search algorithm",
    BaseAlgorithmConfig,  # type: ignore[type-abstract]  # only its members are made
    {
        "alignment": "dfnas_ray.algorithms.alignment:AlignmentConfig",
        "borda": "dfnas_ray.algorithms.borda:BordaConfig",
        "darts": "dfnas_ray.algorithms.darts:DartsSearchConfig",
        "multi_fidelity": "dfnas_ray.algorithms.multi_fidelity:MultiFidelityConfig",
        "proxyless": "dfnas_ray.algorithms.proxyless:ProxylessSearchConfig",
        "random_search": "dfnas_ray.algorithms.random_search:RandomSearchConfig",
        "spos": "dfnas_ray.algorithms.spos:SposConfig",
        "zero_cost": "dfnas_ray.algorithms.zero_cost.search:ZeroCostConfig",
    },
)
"""Every search algorithm by its kind."""

AlgorithmConfig = Annotated[BaseAlgorithmConfig, ALGORITHMS]


def _parse_limit(value: object) -> object:
    if isinstance(value, str):
        fits, hint = bool(re.fullmatch(r"\d+(\.\d+)?\s*%", value)), ""
    elif isinstance(value, int | float) and not isinstance(value, bool):
        fits = math.isfinite(value) and value == round(value) and value > 1
        hint = f"; did you mean {100 * value:g}%?" if 0 < value <= 1 else ""
    else:
        return value
    if not fits:
        raise ValueError(
            f"it is neither a number of MACs, such as 2000000, nor a share of the teacher's, such as 50%{hint}"
        )
    return value


def distinct(labels: Sequence[str]) -> list[str]:
    """Return the labels, numbered where they occur more than once: a, b, a become a-1, b, a-2."""
    number, seen, named = Counter(labels), Counter[str](), []
    for label in labels:
        seen[label] += 1
        named.append(f"{label}-{seen[label]}" if number[label] > 1 else label)
    return named


class Trial(NamedTuple):
    """One of the searches of an experiment.

    Attributes:
        name: The name of its folder and of its line in the report.
    """

    name: str
    algorithm: AlgorithmConfig
    space: SearchSpaceConfig
    seed: int


class SelectionConfig(BaseModel):
    """How the best of several architectures is chosen: each is trained alone, the same way, and validated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    finalists: int = Field(
        4, gt=0, le=SEVERAL, description="Architectures that each trial submits: its best and the runners-up."
    )
    epochs: int = Field(
        10, gt=0, le=MANY, description="Passes over the synthetic training images for each architecture."
    )
    batch_size: int = Field(64, gt=0, le=MANY, description="Images per step.")
    optimizer: OptimizerConfig = OptimizerConfig()


class SearchConfig(BaseModel):
    """Architecture search on synthetic images: every algorithm in every space, with every seed, is a trial."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: Annotated[tuple[SearchSpaceConfig, ...], OneOrSeveral(SPACES)] = Field(
        (NASBenchMacroConfig(),), description="One search space, or a list of them."
    )
    algorithm: Annotated[tuple[AlgorithmConfig, ...], OneOrSeveral(ALGORITHMS)] = Field(
        (SposConfig(),), description="One algorithm, or a list of them."
    )
    combine: Literal["grid", "pairs"] = Field(
        "grid",
        description="grid: every algorithm in every space; pairs: the first algorithm in the first space, and so on.",
    )
    seeds: tuple[Annotated[int, Field(le=LARGEST_SEED)], ...] = Field(
        (0, 1), min_length=1, description="Every pair of algorithm and space gets one trial per seed."
    )
    images: ImagesConfig = Field(
        SyntheticSource(),
        description="Images on which candidates are trained and judged; real images need allow_real_images.",
    )
    max_macs: Annotated[int | str | None, BeforeValidator(_parse_limit)] = Field(
        "90%", description="Largest MACs of an architecture: a number, a share of the teacher's such as 50%, or null."
    )
    min_macs: Annotated[int | str | None, BeforeValidator(_parse_limit)] = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Smallest MACs of an architecture, as max_macs; null for none. Not for darts and proxyless.",
    )
    start_after_shards: int | None = Field(
        None,
        gt=0,
        le=MANY,
        description="Start when this many shards are ready, and add the others between epochs as they arrive. The "
        "result then depends on when they arrive. null waits for all shards.",
    )
    validation_fraction: float = Field(0.2, gt=0, lt=1, description="Share of the synthetic images for validation.")
    distillation: DistillationConfig = DistillationConfig()
    precision: Precision = Field(
        "auto", description="Precision of the convolutions; auto uses bfloat16 where the hardware supports it."
    )
    selection: SelectionConfig = SelectionConfig()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("space", "algorithm"):
            if not getattr(self, name):
                raise ValueError(f"{name} is an empty list. Give at least one, or leave it out for the default.")
        if self.combine == "pairs" and len(self.space) != len(self.algorithm):
            raise ValueError(
                f"combine: pairs needs as many spaces ({len(self.space)}) as algorithms ({len(self.algorithm)}). Repeat "
                "the shorter list's member, or set combine to grid."
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds} must be different from each other.")
        if (number := len(self.pairs) * len(self.seeds)) > MAX_TRIALS:
            raise ValueError(
                f"{len(self.pairs):,} pair(s) of algorithm and space with {len(self.seeds):,} seeds are {number:,} trials; "
                f"at most {MAX_TRIALS:,} are taken. Give fewer seeds."
            )
        for algorithm, space in self.pairs:
            reason = algorithm.unsuitable_spaces.get(space.kind)
            if reason is not None:
                raise ValueError(
                    f"the algorithm {algorithm.kind} cannot search the space {space.kind}: {reason}. Take another "
                    "algorithm, such as darts or spos, or another space."
                )
        unable = [algorithm.kind for algorithm in self.algorithm if not algorithm.keeps_min_macs]
        if self.min_macs is not None and unable:
            raise ValueError(
                f"min_macs ({self.min_macs}) is not supported by {', '.join(dict.fromkeys(unable))}; only max_macs applies "
                "there. Leave it out, or use spos, borda, zero_cost, alignment, random_search or multi_fidelity."
            )
        if type(self.min_macs) is int and type(self.max_macs) is int and self.min_macs > self.max_macs:
            raise ValueError(
                f"min_macs ({self.min_macs:,}) must not be above max_macs ({self.max_macs:,}). Lower it, or raise the other."
            )
        if self.start_after_shards is not None and self.images != SyntheticSource():
            raise ValueError(
                f"start_after_shards ({self.start_after_shards}) works only with images: synthetic, whose shards arrive one "
                f"by one, and not with images: {self.images.description}. Set it to null."
            )
        if self.images == SyntheticSource(labels="shuffled") and self.distillation.labels == "online":
            raise ValueError(
                "images.labels: shuffled does nothing if the teacher labels every image online. Set distillation.labels to "
                "stored."
            )
        if self.start_after_shards is not None and not any(algorithm.trains_by_epochs for algorithm in self.algorithm):
            kinds = ", ".join(dict.fromkeys(algorithm.kind for algorithm in self.algorithm))
            raise ValueError(
                f"start_after_shards ({self.start_after_shards}) does nothing for {kinds}: candidates are compared on the "
                "whole set. Set it to null, or take an algorithm that trains first, such as spos."
            )
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that trials depend on, except the images; the form is the same as in older runs."""
        waits = self.start_after_shards is None  # older runs do not have the setting
        return self.model_dump(mode="json", exclude={"images", *({"start_after_shards"} if waits else ())})

    @property
    def pairs(self) -> list[tuple[BaseAlgorithmConfig, SpaceConfig]]:
        """All pairs (algorithm, space) that are run."""
        if self.combine == "pairs":
            return list(zip(self.algorithm, self.space, strict=True))
        return [(algorithm, space) for algorithm in self.algorithm for space in self.space]

    @property
    def trials(self) -> list[Trial]:
        """One trial for every pair and every seed."""
        labels = distinct([f"{algorithm.label}-{space.kind}" for algorithm, space in self.pairs])
        return [
            Trial(f"{label}-seed-{seed}", algorithm, space, seed)
            for label, (algorithm, space) in zip(labels, self.pairs, strict=True)
            for seed in self.seeds
        ]

    def macs_limit(self, teacher_macs: int) -> int | None:
        """Return the upper limit in MACs, or None."""
        return _limit_of(self.max_macs, teacher_macs)

    def macs_at_least(self, teacher_macs: int) -> int | None:
        """Return the lower limit in MACs, or None.

        Raises:
            ConfigError: it is above the upper one.
        """
        low, high = _limit_of(self.min_macs, teacher_macs), self.macs_limit(teacher_macs)
        if low is not None and high is not None and low > high:
            raise ConfigError(
                f"search.min_macs ({self.min_macs}, {low:,}) is above search.max_macs ({self.max_macs}, {high:,}). Lower it, "
                "or raise the other."
            )
        return low


def _limit_of(setting: int | str | None, teacher_macs: int) -> int | None:
    if isinstance(setting, str):
        return int(teacher_macs * float(setting.rstrip("% ")) / 100)
    return setting
