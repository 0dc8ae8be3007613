"""Settings of image synthesis: the set, and the synthesizer that makes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from dfnas_ray.errors import SynthesisError
from dfnas_ray.sources.base import SetSize
from dfnas_ray.synthesis.base import SynthesizerConfig
from dfnas_ray.synthesis.inversion.synthesizer import InversionConfig
from dfnas_ray.synthesis.settings import SetSettings
from dfnas_ray.synthesis.synthesizers import SYNTHESIZERS
from dfnas_ray.teachers.base import ImageShape

_MOVED = {name: name for name in ("batch_size", "rounds", "keep", "tau", "lr", "warmup_steps")} | {"stages": "scales"}
"""Settings that older files have in ``synthesis``, and their names in ``method`` of the inversion."""


class SynthesisConfig(SetSettings):
    """Image synthesis."""

    method: Annotated[SynthesizerConfig, SYNTHESIZERS] = Field(
        InversionConfig(), description="How images are made: the synthesizer and its settings."
    )

    @property
    def has_chains(self) -> bool:
        """Whether a shard goes on from another one."""
        return any(self.method.predecessor(shard, self) is not None for shard in range(self.num_shards))

    @model_validator(mode="before")
    @classmethod
    def _show_where_settings_are(cls, values: Any) -> Any:
        """Reject the settings of an older file, and show the line to write instead."""
        moved = {name: value for name, value in values.items() if name in _MOVED} if isinstance(values, Mapping) else {}
        if moved:
            line = ", ".join(f"{_MOVED[name]}: {_as_yaml(value)}" for name, value in moved.items())
            verb = "belong" if len(moved) > 1 else "belongs"
            # `--set` of one setting alone does not choose the synthesizer.
            kind = "" if "method" in values else "--set synthesis.method.kind=inversion "
            raise ValueError(
                f"{', '.join(moved)} {verb} to the synthesizer. Write method: {{kind: inversion, {line}}}, or on the command "
                f"line {kind}--set synthesis.method.{_MOVED[next(iter(moved))]}=VALUE."
            )
        return values

    @model_validator(mode="before")
    @classmethod
    def _take_regularizers_of_the_method(cls, values: Any) -> Any:
        """Fill in the terms that are not given with the synthesizer's own defaults."""
        given = values.get("regularizers", {}) if isinstance(values, Mapping) else None
        if not isinstance(given, Mapping) or "method" not in values:
            return values
        try:
            terms = SYNTHESIZERS.validate(values["method"]).default_regularizers
        except ValueError:  # the validation of the field reports it
            return values
        merged = dict(given)
        for name, term in terms.items():
            own = given.get(name, {})
            merged[name] = {**term, **own} if isinstance(own, Mapping) else own
        return {**values, "regularizers": merged}

    @model_validator(mode="after")
    def _check(self) -> Self:
        batch = self.method.batch_size
        if self.images_per_shard % batch and "images_per_shard" in self.model_fields_set:  # else it is chosen to suit
            following = -(-self.images_per_shard // batch) * batch
            raise ValueError(
                f"images_per_shard ({self.images_per_shard}) must be a multiple of method.batch_size ({batch}), so "
                f"that every batch has the same BatchNorm statistics. Next multiple: {following}."
            )
        for name, term in self.regularizers.terms().items():
            if "student_logits" in term.observes and not self.method.has_student:
                raise ValueError(
                    f"regularizers.{name}.weight ({term.weight}) is above 0: the term looks at a student in training, and none "
                    "is trained beside these images. Set it to 0, or use method.kind generator with method.student."
                )
        self.method.check_settings(self)
        return self

    @property
    def rows_per_shard(self) -> int:
        """Number of images that a shard keeps."""
        return self.images_per_shard * self.method.num_kept_rounds

    @property
    def images_in_total(self) -> int:
        """Number of rows of the finished set."""
        return self.num_shards * self.rows_per_shard

    def image_steps(self, shards: Iterable[int] | None = None) -> int:
        """Return images times optimiser steps of the given shards, or of all shards. Progress is measured by it."""
        return sum(
            self.method.image_steps(self, shard) for shard in (range(self.num_shards) if shards is None else shards)
        )

    @property
    def num_rounds(self) -> int:
        """Number of rounds of the whole set: those of all shards together."""
        return self.num_shards * self.method.num_rounds

    def size(self, image_shape: ImageShape) -> SetSize:
        """Return how large the finished set is, for a teacher's input (C, H, W)."""
        channels, height, width = image_shape
        rows = self.images_in_total // self.num_shards
        return SetSize(self.images_in_total, rows, (channels, *self.canvas_size(height, width)))

    def canvas_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of a canvas for inputs of this size.

        Raises:
            SynthesisError: there is no canvas for them; names the settings.
        """
        try:
            return self.method.canvas_size(self, height, width)
        except ValueError as error:
            raise SynthesisError(str(error)) from error


def _as_yaml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_as_yaml(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_as_yaml, value)) + "]"
    return str(value)
