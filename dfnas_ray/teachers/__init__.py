"""Teachers: a trained classifier, frozen, with its input statistics and the names of its classes.

To add a source, write a module with a config that has ``kind`` and ``load(cache) -> Teacher``. Then add a line for it
to `TEACHERS`, or an entry point in a package of your own.
"""

from typing import Annotated

from dfnas_ray.config.registry import Family
from dfnas_ray.teachers.base import Teacher, TeacherSourceConfig
from dfnas_ray.teachers.checkpoint import CheckpointTeacherConfig
from dfnas_ray.teachers.digits import DigitsTeacherConfig
from dfnas_ray.teachers.hard_digits import HardDigitsTeacherConfig
from dfnas_ray.teachers.huggingface_models import HuggingFaceTeacherConfig
from dfnas_ray.teachers.timm_models import TimmTeacherConfig
from dfnas_ray.teachers.torchvision_models import TorchvisionTeacherConfig

TEACHERS: Family[TeacherSourceConfig] = Family(
    "teacher source",
    TeacherSourceConfig,  # type: ignore[type-abstract]  # only its members are made
    {
        "checkpoint": "dfnas_ray.teachers.checkpoint:CheckpointTeacherConfig",
        "digits": "dfnas_ray.teachers.digits:DigitsTeacherConfig",
        "hard_digits": "dfnas_ray.teachers.hard_digits:HardDigitsTeacherConfig",
        "huggingface": "dfnas_ray.teachers.huggingface_models:HuggingFaceTeacherConfig",
        "timm": "dfnas_ray.teachers.timm_models:TimmTeacherConfig",
        "torchvision": "dfnas_ray.teachers.torchvision_models:TorchvisionTeacherConfig",
    },
    argument="name",
)
"""Every teacher source by its kind. ``torchvision:resnet50`` stands for ``{kind: torchvision, name: resnet50}``."""

TeacherConfig = Annotated[TeacherSourceConfig, TEACHERS]

__all__ = [
    "TEACHERS",
    "CheckpointTeacherConfig",
    "DigitsTeacherConfig",
    "HardDigitsTeacherConfig",
    "HuggingFaceTeacherConfig",
    "Teacher",
    "TeacherConfig",
    "TeacherSourceConfig",
    "TimmTeacherConfig",
    "TorchvisionTeacherConfig",
]
