"""The images that the experiment's own synthesis makes."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from dfnas_ray.seeding import numpy_generator
from dfnas_ray.sources.base import SourceConfig
from dfnas_ray.storage.shards import SyntheticImages


class SyntheticSource(SourceConfig):
    """The synthetic images, which the synthesis stage makes."""

    kind: Literal["synthetic"] = "synthetic"
    labels: Literal["teacher", "shuffled"] = Field(
        "teacher",
        description="shuffled gives every image the stored labels of another one, as a control experiment.",
    )

    is_synthetic: ClassVar[bool] = True

    @property
    def is_labelled(self) -> bool:
        """Whether its labels are meaningful: they are the classes asked for, unless they are shuffled."""
        return self.labels == "teacher"

    @property
    def description(self) -> str:
        """The name of the source in tables."""
        return self.kind if self.labels == "teacher" else f"{self.kind}, shuffled labels"


def shuffle_labels(images: SyntheticImages, seed: int) -> SyntheticImages:
    """Return the images with shuffled labels and logits: each image gets those of another one."""
    order = numpy_generator(seed, "shuffled-labels").permutation(len(images))
    return replace(images, labels=images.labels[order], logits=images.logits[order])
