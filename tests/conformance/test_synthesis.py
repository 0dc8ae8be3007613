"""Every regulariser and every teacher source of this package keeps what all promise."""

import pytest
import torch
from torchvision.models import resnet18

from dfnas_ray.synthesis.regularizers import REGULARIZERS
from dfnas_ray.teachers import TEACHERS
from dfnas_ray.teachers.cifar_resnet import resnet20
from dfnas_ray.testing import RegularizerSuite, TeacherSuite


class TestRegularizers(RegularizerSuite):
    configs = [REGULARIZERS.find(kind)() for kind in REGULARIZERS.built_in]  # noqa: RUF012


def _settings(kind, folder):
    """Return the settings of a source that loads in seconds, and write the files that they name."""
    torch.manual_seed(0)
    if kind == "digits":
        return {"width": 4, "epochs": 1}
    if kind == "torchvision":
        torch.save(resnet18().state_dict(), folder / "resnet18.pt")
        return {"name": "resnet18", "checkpoint": folder / "resnet18.pt"}
    if kind == "checkpoint":
        torch.save(resnet20().state_dict(), folder / "resnet20.pt")
        values = {"image_shape": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.25,) * 3}
        return {"builder": "dfnas_ray.teachers.cifar_resnet:resnet20", "checkpoint": folder / "resnet20.pt", **values}
    return {}


class TestTeachers(TeacherSuite):
    @pytest.fixture(params=TEACHERS.built_in)
    def config(self, request, tmp_path):
        return TEACHERS.find(request.param)(kind=request.param, **_settings(request.param, tmp_path))
