"""What results say of a teacher."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict

from dfnas_ray.storage.location import Count, Location
from dfnas_ray.teachers.base import Classes, ImageShape, Teacher

_FILE = "teacher.json"


class TeacherDescription(BaseModel):
    """A teacher without its network: ``teacher.json`` of a run directory, which the last command wrote.

    Attributes:
        sha256: Its fingerprint.
        image_shape: (C, H, W) of one input.
        mean: Per channel, of pixels in [0, 1].
        std: Likewise.
        class_names: In the order of its outputs, if anybody knows.
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
        """Return that of a teacher."""
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
        """Write it into a run directory."""
        (folder / _FILE).write_model(self)

    @classmethod
    def find(cls, folder: Location) -> Self | None:
        """Read it from a run directory, if it is there.

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
        """Return those of a teacher."""
        return cls(
            name=teacher.name,
            params=teacher.cost.params,
            macs=teacher.cost.macs,
            image_shape=teacher.image_shape,
            num_classes=teacher.num_classes,
        )
