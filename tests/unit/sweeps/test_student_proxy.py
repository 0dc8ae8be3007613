"""The student proxy: the same work for every trial, and the examination's worst setting counts."""

import numpy as np
import pytest
import torch
from torch import nn

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.errors import DfnasError
from dfnas_ray.search_spaces import NASBenchMacroConfig
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.sweeps.judged import Examination
from dfnas_ray.sweeps.measure import Judge, logit_correlation, proxy_architecture, student_proxy
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.training.config import DistillationConfig


class FirstPixel(nn.Module):
    """Sees class 1 where the first pixel is bright."""

    def __init__(self, threshold):
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold), requires_grad=False)

    def forward(self, x):
        bright = (x[:, 0, 0, 0] > self.threshold).float()
        return torch.stack([1 - bright, bright], 1)


def test_the_reference_setting_with_the_least_correlation_counts():
    teacher = Teacher("t", FirstPixel(0.5), 2, (1, 1, 1), (0.0,), (1.0,))
    # Setting 0: four images, all agreed. Setting 1: of four, one lies between the thresholds.
    pixels = torch.tensor([0, 0, 255, 255, 150, 255, 255, 0], dtype=torch.uint8).view(-1, 1, 1, 1)
    examination = Examination(pixels, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]))
    expected = np.corrcoef([1, 1, 1, 0], [0, 1, 1, 0])[0, 1]  # of two classes, over the images
    assert student_proxy(FirstPixel(0.9), teacher, examination) == pytest.approx(expected)
    assert student_proxy(FirstPixel(0.5), teacher, examination) == pytest.approx(1.0)


def test_the_correlation_is_that_of_numpy_and_knows_no_scale():
    student, teacher = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    expected = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(student.numpy(), teacher.numpy(), strict=True)])
    assert float(logit_correlation(student, teacher)) == pytest.approx(expected, rel=1e-4)
    assert float(logit_correlation(3 * student + 7, teacher)) == pytest.approx(expected, rel=1e-4)


def test_two_classes_are_correlated_over_the_images():
    student, teacher = torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(0))
    margins = [(logits[:, 0] - logits[:, 1]).numpy() for logits in (student, teacher)]
    assert float(logit_correlation(student, teacher)) == pytest.approx(np.corrcoef(*margins)[0, 1], rel=1e-4)


def images_of(count, size=18, classes=10):
    rng = np.random.default_rng(0)
    return SyntheticImages(
        images=rng.integers(0, 256, (count, 1, size, size), dtype=np.uint8),
        labels=np.arange(count) % classes,
        rounds=np.zeros(count, np.int64),
        logits=rng.normal(size=(count, classes)).astype(np.float32),
        ids=np.arange(count, dtype=np.uint64),
    )


def judge(teacher, examination=None, **sweep):
    settings = {"synthesis.method.tau": {"uniform": [1, 2]}}
    config = make_experiment({"teacher": "digits", "sweep": {"settings": settings, "student": {"steps": 2}, **sweep}})
    space = NASBenchMacroConfig(stem_channels=4, stage_layers=(1,), stage_channels=(8,), head_channels=8).space(
        (1, 16, 16), 10
    )
    distillation = DistillationConfig(augmentation={"flip_probability": 0})
    return Judge(config.sweep, teacher, space, (0,), distillation, examination, 0)


def test_a_student_that_diverges_makes_its_trial_fail(tiny_teacher):
    examination = Examination.of([images_of(20), images_of(20)], tiny_teacher, 0.5)
    assert len(examination.images) == 20
    sensible = judge(tiny_teacher, examination)(images_of(40), torch.device("cpu"))
    assert set(sensible) == {"semantics", "diversity", "domain_gap", "student_proxy"}
    student = {"steps": 30, "optimizer": {"lr": 1e30, "clip_norm": 1e30, "warmup_fraction": 0}}
    with pytest.raises(DfnasError, match=r"student_proxy.*training diverged; lower sweep\.student\.optimizer\.lr"):
        judge(tiny_teacher, examination, student=student)(images_of(40), torch.device("cpu"))


def test_a_teacher_without_batch_norm_is_asked_about_all_reference_settings(make_teacher):
    plain = make_teacher(nn.Sequential(nn.Flatten(), nn.Linear(256, 10)))
    examination = Examination.of([images_of(20), images_of(30)], plain, 0.5)
    assert examination.settings.tolist() == [0] * 20 + [1] * 30
    assert "domain_gap" not in judge(plain, examination)(images_of(40), torch.device("cpu"))
    with pytest.raises(DfnasError, match=r"domain_gap.*no BatchNorm layer"):
        judge(plain, examination, objectives=["domain_gap"])(images_of(40), torch.device("cpu"))


def test_the_student_is_the_largest_within_the_limit():
    space = NASBenchMacroConfig(stem_channels=4, stage_layers=(1, 1), stage_channels=(8, 16), head_channels=8).space(
        (1, 16, 16), 10
    )
    limit = space.cost(space.decode("11")).macs
    chosen = proxy_architecture(space, limit, seed=0)
    within = [space.cost(space.decode(a + b)).macs for a in "012" for b in "012"]
    assert space.cost(chosen).macs == max(macs for macs in within if macs <= limit)
