"""Every regulariser, synthesizer and teacher source of this package keeps what all promise."""

import pytest
import torch
from small_transformers import save_small_resnet
from torchvision.models import resnet18

from dfnas_ray.synthesis.regularizers import REGULARIZERS
from dfnas_ray.synthesis.synthesizers import SYNTHESIZERS
from dfnas_ray.teachers import TEACHERS
from dfnas_ray.teachers.cifar_resnet import resnet20
from dfnas_ray.testing import RegularizerSuite, SynthesizerSuite, TeacherSuite


class TestRegularizers(RegularizerSuite):
    configs = [REGULARIZERS.find(kind)() for kind in REGULARIZERS.built_in]  # noqa: RUF012


QUICK = {
    "inversion": [
        {"batch_size": 10, "scales": [{"scale": 2, "steps": 1}, {"scale": 1, "steps": 2}], "warmup_steps": 0, **changes}
        for changes in ({"rounds": 2}, {"rounds": 3, "keep": "last"})
    ],
    "generator": [
        {"batch_size": 10, "width": 4, "streams": streams, "adaptation_steps": 2, **changes}
        for streams, changes in [
            (1, {"student": {"warmup_batches": 2, "steps": 2, "batch_size": 8}, "calibrated": 0.5}),
            (2, {"student": None, "bn_momentum": 0}),
            (3, {"student": {"warmup_batches": 0, "steps": 1, "batch_size": 8}}),
            (1, {"student": {"warmup_batches": 0, "steps": 1, "batch_size": 8}, "pool_limit": 35}),
        ]
    ],
}  # fmt: skip


class TestSynthesizers(SynthesizerSuite):
    configs = [  # noqa: RUF012
        SYNTHESIZERS.validate({"kind": kind, **settings}) for kind in SYNTHESIZERS.built_in for settings in QUICK[kind]
    ]


def _settings(kind, folder):
    """Return the settings of a source that loads in seconds, and write the files that they name."""
    torch.manual_seed(0)
    if kind in ("digits", "hard_digits"):
        return {"width": 4, "epochs": 1}
    if kind == "torchvision":
        torch.save(resnet18().state_dict(), folder / "resnet18.pt")
        return {"name": "resnet18", "checkpoint": folder / "resnet18.pt"}
    if kind == "timm":
        timm = pytest.importorskip("timm")
        torch.save(timm.create_model("test_resnet").state_dict(), folder / "test_resnet.pt")
        return {"name": "test_resnet", "checkpoint": folder / "test_resnet.pt"}
    if kind == "huggingface":
        return {"name": "small", "checkpoint": save_small_resnet(folder / "small")}
    if kind == "checkpoint":
        torch.save(resnet20().state_dict(), folder / "resnet20.pt")
        values = {"image_shape": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.25,) * 3}
        return {"builder": "dfnas_ray.teachers.cifar_resnet:resnet20", "checkpoint": folder / "resnet20.pt", **values}
    return {}


class TestTeachers(TeacherSuite):
    @pytest.fixture(params=TEACHERS.built_in)
    def config(self, request, tmp_path):
        return TEACHERS.find(request.param)(kind=request.param, **_settings(request.param, tmp_path))
