"""What the measures of a finished set say of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.synthesis.quality import QualityReport, diversity, semantics
from dfnas_ray.synthesis.verdict import judge

GOOD = {"domain_gap": 0.006, "diversity_relative": 0.38, "diversity_duplicates": 0.0, "agreement": 0.86, "confidence": 0.86,
        "classes": 1.0, "student_agreement": 0.91}  # fmt: skip


def verdict(kind="generator", weight=10.0, **changes):
    quality = {**GOOD, **changes}
    if kind != "generator":
        del quality["student_agreement"]
    config = make_experiment(
        {"teacher": "digits", "synthesis": {"method": kind, "regularizers": {"bn_statistics": {"weight": weight}}}}
    ).synthesis
    return judge(QualityReport(overall=quality, rounds={0: quality}), 10, config)


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


def test_what_was_not_measured_is_not_judged():
    """As of a teacher without BatchNorm, of one image per class, or of an older version."""
    config = make_experiment({"teacher": "digits"}).synthesis.model_copy(
        update={"method": make_experiment({"teacher": "digits", "synthesis": {"method": "inversion"}}).synthesis.method}
    )
    nothing = {"domain_gap": math.nan, "diversity_relative": math.nan, "diversity_duplicates": math.nan}
    assert judge(QualityReport(overall=nothing, rounds={}), 10, config).findings == ()


def test_a_student_that_never_joined_is_said():
    config = make_experiment({"teacher": "digits", "synthesis": {"method": "generator"}}).synthesis
    quality = {name: value for name, value in GOOD.items() if name != "student_agreement"}
    (finding,) = judge(QualityReport(overall=quality, rounds={0: quality}), 10, config).findings
    assert "has learned nothing" in finding.text
    assert "warmup_batches" in finding.advice


def test_soft_labels_of_later_rounds_do_not_count_as_unsure():
    later = {**GOOD, "agreement": 0.2}
    config = make_experiment({"teacher": "digits", "synthesis": {"method": "inversion"}}).synthesis
    report = QualityReport(overall={**later, "agreement": 0.53}, rounds={0: GOOD, 1: later})
    assert judge(report, 10, config).findings == ()


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
