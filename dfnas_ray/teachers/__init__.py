"""Teachers: a trained classifier, frozen, with what the rest needs to know about it.

Add a source: a module with a config that has ``kind`` and ``load(cache) -> Teacher``, and one line in the union.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from dfnas_ray.teachers.base import Teacher
from dfnas_ray.teachers.checkpoint import CheckpointTeacherConfig
from dfnas_ray.teachers.digits import DigitsTeacherConfig
from dfnas_ray.teachers.torchvision_models import TorchvisionTeacherConfig


def _expand_short_form(value: Any) -> Any:
    """Accept ``torchvision:resnet50`` and ``digits`` for the mappings that they stand for."""
    if isinstance(value, str):
        kind, _, name = value.partition(":")
        return {"kind": kind, "name": name} if name else {"kind": kind}
    return value


TeacherConfig = Annotated[
    CheckpointTeacherConfig | DigitsTeacherConfig | TorchvisionTeacherConfig,
    Field(discriminator="kind"),
    BeforeValidator(_expand_short_form, json_schema_input_type=str | dict[str, Any]),
]

__all__ = [
    "CheckpointTeacherConfig",
    "DigitsTeacherConfig",
    "Teacher",
    "TeacherConfig",
    "TorchvisionTeacherConfig",
]
