"""What results say of a teacher."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict

from dfnas_ray.storage.location import Count
from dfnas_ray.teachers.base import ImageShape, Teacher


class TeacherFacts(BaseModel):
    """A teacher's name and size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    params: Count
    macs: Count
    image_shape: ImageShape
    num_classes: Count

    @classmethod
    def of(cls, teacher: Teacher) -> Self:
        """Return those of a teacher."""
        return cls(
            name=teacher.name,
            params=teacher.cost.params,
            macs=teacher.cost.macs,
            image_shape=teacher.image_shape,
            num_classes=teacher.num_classes,
        )
