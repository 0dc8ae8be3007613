"""What the measures of a finished set say of it."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.planning.recipe import complete
from dfnas_ray.synthesis.checks import check_synthesis
from dfnas_ray.synthesis.quality import QualityReport, diversity, semantics
from dfnas_ray.synthesis.verdict import judge
from dfnas_ray.teachers.base import freeze_teacher
from dfnas_ray.testing.small import small_teacher

GOOD = {"domain_gap": 0.006, "diversity_relative": 0.38, "diversity_duplicates": 0.0, "agreement": 0.86, "confidence": 0.86,
        "classes": 1.0, "student_agreement": 0.91}  # fmt: skip


def verdict(kind="generator", weight=10.0, **changes):
    quality = {**GOOD, **changes}
    if kind != "generator":
        del quality["student_agreement"]
    config = make_experiment(
        {"teacher": "digits", "synthesis": {"method": kind, "regularizers": {"bn_statistics": {"weight": weight}}}}
    ).synthesis
    return judge(QualityReport(overall=quality, rounds={0: quality}), small_teacher(), config)


@pytest.mark.parametrize("kind", ["generator", "inversion"])
def test_nothing_speaks_against_a_good_set_and_the_figures_stand_beside_their_references(kind):
    found = verdict(kind)
    assert found.findings == ()
    assert found.lines == (found.summary,)
    assert "domain gap 0.00600 (at most 0.100)" in found.summary
    assert ("student" in found.summary) == (kind == "generator")


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        ({"domain_gap": 0.21}, "statistics", "domain gap 0.210; sound sets had at most"),
        ({"diversity_relative": 0.08}, "alike", "is 8\u202f% of that of any two images"),
        ({"diversity_duplicates": 0.25}, "alike", "25.0\u202f% have a near copy"),
        ({"agreement": 0.11}, "unsure", "in 11\u202f% of the images its likeliest class is the one asked for"),
        ({"classes": 0.4}, "classes", "hardly ever sees 60\u202f% of its classes"),
        ({"student_agreement": 0.28}, "student", "names the same class in 28\u202f%"),
    ],
)
def test_one_measure_out_of_range_is_one_finding_with_its_figure_and_advice(change, kind, says):
    found = verdict(**change)
    (finding,) = found.findings
    assert finding.kind == kind
    assert says in finding.text
    assert "synthesis." in finding.advice
    assert ("dfnas sweep" in found.summary) == (kind != "student")  # that is no fault of the images


def test_advice_is_for_the_synthesizer_at_hand():
    assert "synthesis.method=generator" in verdict("inversion", diversity_relative=0.1).findings[0].advice
    assert "synthesis.method=inversion" in verdict("generator", diversity_relative=0.1).findings[0].advice
    without = verdict("inversion", 0.0, domain_gap=0.3).findings[0]
    assert "bn_statistics.weight, which is 0" in without.advice


def layers(*first, features=4, classes=10):
    return nn.Sequential(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, classes))


class Own(nn.Module):
    """A layer whose weights nothing draws anew."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.gain * x


TEACHERS = {
    "BatchNorm": (layers(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), (16, 16)),
    "none": (layers(nn.Conv2d(1, 4, 3), nn.ReLU()), (16, 16)),
    "no student": (layers(nn.Conv2d(1, 4, 3), Own(), nn.BatchNorm2d(4), nn.ReLU()), (16, 16)),
    "odd": (layers(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), (15, 20)),
    "one size": (nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(256, 10)), (16, 16)),
}
STUDENT = {"warmup_batches": 1, "steps": 5}
METHODS = {
    "generator": {"kind": "generator", "batch_size": 15, "student": STUDENT},
    "no student": {"kind": "generator", "batch_size": 15, "student": None},
    "inversion": {"kind": "inversion", "batch_size": 15, "warmup_steps": 1, "scales": [{"scale": 1, "steps": 20}]},
}


def changes(advice):
    """Yield the settings that an advice names, as options of ``--set``: those that belong together in one list."""
    options = [option.rstrip(".").strip("'") for option in re.findall(r"--set ('[^']*'|\S+)", advice)]
    if options:
        yield options
    for path in re.findall(r"(?:\(|raise )(synthesis\.[\w.]+\w)", advice):
        values = {"scales": "[{scale: 1, steps: 40}]", "warmup_batches": 0}
        yield [f"{path}={values.get(path.split('.')[-1], 11)}"]
    for path, value in re.findall(r"Set (\S+), which is 0, to (\d+)", advice):
        yield [f"{path}={value}"]


@pytest.mark.parametrize("weight", [0, 2])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", TEACHERS)
def test_every_advice_is_accepted(name, method, weight):
    model, size = TEACHERS[name]
    teacher = freeze_teacher(name, model, (1, *size), (0.5,), (0.25,))
    if (name, weight) == ("none", 2) or (name, method) == ("no student", "generator"):
        return  # no set could have been made
    terms = {"bn_statistics": {"weight": weight}}
    synthesis = {"num_shards": 2, "images_per_shard": 105, "method": METHODS[method], "regularizers": terms}
    given = {"teacher": "digits", "synthesis": synthesis, "search": {"space": "nasbench201"}}
    config = make_experiment(given)
    check_synthesis(teacher, config.synthesis, config.synthesis.method)
    bad = {"domain_gap": 0.9, "diversity_relative": 0.01, "diversity_duplicates": 0.9, "agreement": 0.0, "classes": 0.1}
    if name == "none":
        del bad["domain_gap"]
    reports = [{**bad, "student_agreement": 0.1}, bad] if config.synthesis.method.has_student else [bad]
    found = [
        finding for one in reports
        for finding in judge(QualityReport(overall=one, rounds={0: one}), teacher, config.synthesis).findings
    ]  # fmt: skip
    assert len({finding.kind for finding in found}) == len(bad) - 1 + config.synthesis.method.has_student
    count = 0
    for finding in found:
        for options in changes(finding.advice):
            for values in (given, complete(config, teacher).model_dump(mode="json")):  # as in the run directory
                changed = complete(make_experiment(values, options), teacher).synthesis
                check_synthesis(teacher, changed, changed.method)
                count += 1
    assert count >= 2 * len(found) - 2


def test_without_batch_norm_other_ways_are_advised():
    teacher = freeze_teacher("plain", TEACHERS["none"][0], (1, 16, 16), (0.5,), (0.25,))
    for kind, way in (("generator", "synthesis.method.student.steps"), ("inversion", "synthesis.method.rounds")):
        synthesis = {"method": kind, "regularizers": {"bn_statistics": {"weight": 0}}}
        config = make_experiment({"teacher": "digits", "synthesis": synthesis}).synthesis
        bad = {**GOOD, "diversity_relative": 0.01}
        (finding,) = judge(QualityReport(overall=bad, rounds={0: bad}), teacher, config).findings
        assert "no BatchNorm" in finding.advice
        assert "bn_statistics" not in finding.advice
        assert way in finding.advice


def test_what_was_not_measured_is_not_judged():
    """As of a teacher without BatchNorm, of one image per class, or of an older version."""
    config = make_experiment({"teacher": "digits"}).synthesis.model_copy(
        update={"method": make_experiment({"teacher": "digits", "synthesis": {"method": "inversion"}}).synthesis.method}
    )
    nothing = {"domain_gap": math.nan, "diversity_relative": math.nan, "diversity_duplicates": math.nan}
    assert judge(QualityReport(overall=nothing, rounds={}), small_teacher(), config).findings == ()


def test_a_student_that_never_joined_is_said():
    config = make_experiment({"teacher": "digits", "synthesis": {"method": "generator"}}).synthesis
    quality = {name: value for name, value in GOOD.items() if name != "student_agreement"}
    (finding,) = judge(QualityReport(overall=quality, rounds={0: quality}), small_teacher(), config).findings
    assert "has learned nothing" in finding.text
    assert "warmup_batches" in finding.advice


def test_soft_labels_of_later_rounds_do_not_count_as_unsure():
    later = {**GOOD, "agreement": 0.2}
    config = make_experiment({"teacher": "digits", "synthesis": {"method": "inversion"}}).synthesis
    report = QualityReport(overall={**later, "agreement": 0.53}, rounds={0: GOOD, 1: later})
    assert judge(report, small_teacher(), config).findings == ()


def test_relative_distance_is_within_a_class_over_any():
    # Two classes at right angles; within each, two features at 60 degrees (cosine 1/2, distance 1/2).
    a, b = np.array([1.0, 0, 0, 0]), np.array([0.5, math.sqrt(0.75), 0, 0])
    c, d = np.array([0, 0, 1.0, 0]), np.array([0, 0, 0.5, math.sqrt(0.75)])
    found = diversity(np.stack([a, b, c, d]), np.array([0, 0, 1, 1]))
    assert found["distance"] == pytest.approx(0.5)
    assert found["relative"] == pytest.approx(0.5 / ((2 * 0.5 + 4 * 1.0) / 6))


def test_classes_count_from_a_third_of_their_share():
    logits = torch.eye(4)[torch.tensor([0] * 8 + [1] * 2 + [2] * 1 + [3] * 1)]  # a share is 3 images, a third is 1
    found = semantics(logits, torch.zeros(12, dtype=torch.long))
    assert found["classes"] == 1.0
    assert found["largest_class"] == pytest.approx(8 / 12)
    assert semantics(logits[:10], torch.zeros(10, dtype=torch.long))["classes"] == 0.5
