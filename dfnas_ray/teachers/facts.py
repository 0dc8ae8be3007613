"""What results record about a teacher."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict

from dfnas_ray.storage.location import Count, Location
from dfnas_ray.teachers.base import Classes, ImageShape, Teacher

_FILE = "teacher.json"


class TeacherDescription(BaseModel):
    """A teacher without its network: ``teacher.json`` of a run directory, which the last command wrote.

    Attributes:
        sha256: The fingerprint of the teacher.
        image_shape: (C, H, W) of one input.
        mean: Mean per channel, of pixels in [0, 1].
        std: Standard deviation per channel, of the same pixels.
        class_names: Names of the classes in the order of the outputs; None if they are unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    image_shape: ImageShape
    num_classes: Classes
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] | None = None

    @classmethod
    def of(cls, teacher: Teacher) -> Self:
        """Return the description of a teacher."""
        return cls(
            name=teacher.name,
            sha256=teacher.fingerprint,
            image_shape=teacher.image_shape,
            num_classes=teacher.num_classes,
            mean=teacher.mean,
            std=teacher.std,
            class_names=teacher.class_names,
        )

    def write(self, folder: Location) -> None:
        """Write the description into a run directory."""
        (folder / _FILE).write_model(self)

    @classmethod
    def find(cls, folder: Location) -> Self | None:
        """Return the description in a run directory; None if there is none.

        Raises:
            StorageError: it is of another version, or was altered.
        """
        file = folder / _FILE
        return file.read_model(cls) if file.exists() else None


class TeacherFacts(BaseModel):
    """A teacher's name and size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    params: Count
    macs: Count
    image_shape: ImageShape
    num_classes: Classes

    @classmethod
    def of(cls, teacher: Teacher) -> Self:
        """Return the facts of a teacher."""
        return cls(
            name=teacher.name,
            params=teacher.cost.params,
            macs=teacher.cost.macs,
            image_shape=teacher.image_shape,
            num_classes=teacher.num_classes,
        )
