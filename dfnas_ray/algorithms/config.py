"""Settings of the search stage."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from dfnas_ray.algorithms.spos import SposConfig
from dfnas_ray.search_spaces import NASBenchMacroConfig, SearchSpaceConfig
from dfnas_ray.training.config import DistillationConfig

AlgorithmConfig = SposConfig  # the first of a union by ``kind``


def _parse_limit(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"\d+(\.\d+)?\s*%", value):
        raise ValueError(
            f"{value!r} is neither a number of MACs, such as 2000000, nor a share of the teacher's, such as 50%"
        )
    return value


class SearchConfig(BaseModel):
    """Architecture search on synthetic images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: SearchSpaceConfig = NASBenchMacroConfig()
    algorithm: AlgorithmConfig = SposConfig()
    seeds: tuple[int, ...] = Field((0, 1), min_length=1, description="One trial each; the best on validation wins.")
    max_macs: Annotated[int | str | None, BeforeValidator(_parse_limit)] = Field(
        "90%", description="Largest MACs of a candidate: a number, a share of the teacher's such as 50%, or null."
    )
    validation_fraction: float = Field(0.2, gt=0, lt=1, description="Share of the synthetic images for validation.")
    distillation: DistillationConfig = DistillationConfig()

    def macs_limit(self, teacher_macs: int) -> int | None:
        """Return the limit as a number."""
        if isinstance(self.max_macs, str):
            return int(teacher_macs * float(self.max_macs.rstrip("% ")) / 100)
        return self.max_macs
