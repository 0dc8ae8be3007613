"""Settings of a benchmark: the table of true accuracies, and the images that rankings use."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dfnas_ray.datasets import DatasetConfig
from dfnas_ray.limits import LARGEST_SEED, MANY
from dfnas_ray.sources import SourceConfig, SyntheticSource
from dfnas_ray.sources.noise import NoiseSource
from dfnas_ray.sources.real import RealSource

Row = Annotated[int, Field(lt=2**63)]
"""The number of a row of the table."""

Source = Literal["synthetic", "noise", "real"]
"""The source of the images that a ranking uses."""


class BenchmarkConfig(BaseModel):
    """Comparison of rankings with true accuracies: every algorithm on every source of images, with every seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str | None = Field(
        None, description="CSV or Parquet file, local or a URI, with one architecture of the search space per row."
    )
    architecture_column: str = Field("arch", description="Column of the genotypes, as text.")
    accuracy_column: str | None = Field(
        None, description="Column of the true accuracies; by default accuracy, or the only column of numbers."
    )
    rows: tuple[Row, Row] | None = Field(
        None, description="[first, end] of the rows that may be used, counted from 0; end is excluded. null: all."
    )
    architectures: int | None = Field(None, gt=2, le=MANY, description="Number of rows drawn from these; null: all.")
    sources: tuple[Source, ...] = Field(
        ("synthetic", "noise"), min_length=1, description="Images that rankings use; real is for comparison."
    )
    real: DatasetConfig | None = Field(
        None, description="Real images for the source real; their labels are not used. Not data-free."
    )
    seeds: tuple[Annotated[int, Field(le=LARGEST_SEED)], ...] = Field(
        (0, 1, 2), min_length=1, description="Root seeds; for each one, all images and weights are drawn anew."
    )
    chunk_size: int = Field(
        8, gt=0, le=MANY, description="Number of architectures that one task measures and records together."
    )

    def source(self, name: Source) -> SourceConfig:
        """Return the settings of a source. Each has as many images as synthesis makes, with the teacher's labels."""
        if name == "real":
            assert self.real is not None
            return RealSource(dataset=self.real, labels="teacher")
        return NoiseSource() if name == "noise" else SyntheticSource()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("sources", "seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} {list(values)} must be different from each other.")
        if min(self.seeds) < 0:
            raise ValueError(f"seeds {list(self.seeds)} must not be negative.")
        if self.rows is not None and not 0 <= self.rows[0] < self.rows[1]:
            raise ValueError(
                f"rows {list(self.rows)} hold no row. Give [first, end] with 0 <= first < end, such as [0, 2000]."
            )
        if "real" in self.sources and self.real is None:
            raise ValueError(
                "the source real needs benchmark.real, a dataset such as {kind: image_folder, path: photos}. Set it, or "
                "remove real from benchmark.sources."
            )
        return self
