"""Settings of a comparison: its variants, its seeds, and its measures."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dfnas_ray.limits import LARGEST_SEED, SEVERAL

VariantName = Annotated[str, Field(pattern=r"^\w[\w .,+-]{0,59}$")]
"""The name of a variant in tables."""

Measure = Literal["search", "ranking"]

FIXED = (
    "name",
    "run_dir",
    "seed",
    "teacher",
    "cluster",
    "evaluation",
    "sweep",
    "benchmark",
    "comparison",
    "allow_real_images",
)
"""Sections that all variants have in common."""


class Margins(BaseModel):
    """Differences that do not matter, declared before anything is measured: a variant may be worse by this much."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    accuracy: float | None = Field(None, ge=0, description="Margin for the architectures found, in points of accuracy.")
    tau: float | None = Field(None, ge=0, description="Margin for the tau of rankings.")

    @property
    def are_given(self) -> bool:
        """Whether a margin is declared."""
        return self.accuracy is not None or self.tau is not None


class ComparisonConfig(BaseModel):
    """The same search under different settings: every variant with every seed.

    Random architectures are trained beside those that a search finds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variants: dict[VariantName, dict[str, Any]] = Field(
        min_length=2,
        max_length=SEVERAL,
        description="The variants by name. Each one is a mapping from dotted settings to values.",
    )
    reference: str | None = Field(
        None, description="The variant with which all others are compared; by default the first."
    )
    seeds: tuple[Annotated[int, Field(ge=0, le=LARGEST_SEED)], ...] = Field(
        (0, 1, 2), min_length=1, description="Root seeds. For each one, all images, weights and random draws are new."
    )
    measures: tuple[Measure, ...] | None = Field(
        None,
        min_length=1,
        description="search: how good the architectures are that a search finds; ranking: how well an algorithm orders "
        "the architectures of benchmark.table. By default search, and also ranking if a table is given.",
    )
    random: int = Field(
        3,
        ge=0,
        le=SEVERAL,
        description="Number of random architectures of the same MACs, retrained beside each one that was found.",
    )
    margins: Margins = Margins()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} must be different from each other.")
        if self.reference is not None and self.reference not in self.variants:
            raise ValueError(f"reference ({self.reference!r}) must be one of the variants: {', '.join(self.variants)}.")
        if self.margins.are_given and not self.random:
            raise ValueError(
                "margins make a claim, and random (0) leaves nothing to hold it against: a search is worth nothing that is "
                "no better than chance. Set random to 3 or more, or leave margins out."
            )
        for name, settings in self.variants.items():
            for path in settings:
                if path.split(".")[0] in FIXED:
                    raise ValueError(
                        f"variants.{name}.{path}: all variants have {path.split('.')[0]} in common. A variant may change "
                        "synthesis, search and retraining."
                    )
        return self

    @property
    def compared_with(self) -> str:
        """The variant with which all others are compared."""
        return self.reference or next(iter(self.variants))
