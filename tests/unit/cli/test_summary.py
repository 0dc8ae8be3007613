"""What a command prints at its end, from the records of stages."""

from io import StringIO

import pytest
from rich.console import Console

from dfnas_ray.cli import summary
from dfnas_ray.cli.summary import show_outcomes
from dfnas_ray.storage.location import Location
from dfnas_ray.synthesis.verdict import Finding, Verdict
from dfnas_ray.teachers.facts import TeacherFacts
from dfnas_ray.workflow.evaluation import Evaluation, EvaluationRecord, MeasuredNetwork
from dfnas_ray.workflow.retraining import Baseline, Retraining, RetrainingRecord
from dfnas_ray.workflow.stage import Outcome
from dfnas_ray.workflow.synthesis import Synthesis, SynthesisRecord

TEACHER = TeacherFacts(name="digits", params=1, macs=1, image_shape=(1, 8, 8), num_classes=3)


@pytest.fixture
def printed(monkeypatch):
    """Return a function that shows outcomes and gives back the lines."""

    def show(*outcomes, report=None):
        written = StringIO()
        monkeypatch.setattr(summary, "out", Console(file=written, width=200))
        show_outcomes(outcomes, report)
        return [" ".join(line.split()) for line in written.getvalue().splitlines()]

    return show


def outcome(stage, record, reused=False):
    return Outcome(stage.name, Location.parse(f"/runs/{stage.name}/k"), record, reused)


def test_each_stage_has_a_line_that_says_what_was_made_and_whether_now(printed):
    synthesis = SynthesisRecord(
        images=1600, shards=4, made_now=4, actors=2, bytes=1, quality={}, teacher=TEACHER, seconds=21.25
    )
    retraining = RetrainingRecord(
        space_config={}, genotype="[21]", macs=1, params=1, loss=1, validation_loss=1, validation_agreement=0.6789
    )
    lines = printed(
        outcome(Synthesis, synthesis),
        outcome(Baseline, retraining, reused=True),
        report=Location.parse("/runs/report.html"),
    )
    assert lines == [
        "stage result time where",
        "synthesis 1,600 images in 4 shards 21 s /runs/synthesis/k",
        "baseline [21]: agrees with the teacher on 67.9% kept /runs/baseline/k",
        "Report: /runs/report.html",
    ]


def test_accuracies_stand_in_the_order_of_roles(printed):
    names = {"baseline": 0.5, "retraining": 0.75, "teacher": 1.0}
    networks = {
        name: MeasuredNetwork(architecture=f"a-{name}", accuracy=value, params=1000, macs=20_000)
        for name, value in names.items()
    }
    lines = printed(outcome(Evaluation, EvaluationRecord(dataset="ten digits", images=1000, networks=networks)))
    assert lines[1] == "evaluation 3 networks 0 s /runs/evaluation/k"
    assert lines[2] == "Accuracy on 1,000 real images: ten digits"
    rows = [line.strip("│ ") for line in lines if "a-" in line]
    assert [[cell.strip() for cell in row.split("│")] for row in rows] == [
        ["teacher", "a-teacher", "100.00%", "1,000", "20,000"],
        [Retraining.network, "a-retraining", "75.00%", "1,000", "20,000"],
        ["random, same budget", "a-baseline", "50.00%", "1,000", "20,000"],
    ]


def test_what_speaks_against_images_and_network_is_said(printed):
    verdict = Verdict(
        summary="The images are doubtful.",
        findings=(Finding(kind="statistics", text="They are far away.", advice="Come closer."),),
    )
    synthesis = SynthesisRecord(
        images=16, shards=4, made_now=4, actors=2, bytes=1, quality={}, verdict=verdict, teacher=TEACHER
    )
    facts = {"space_config": {}, "genotype": "2", "macs": 1, "params": 1, "loss": 1, "validation_loss": 1}
    bad, good = (RetrainingRecord(**facts, validation_agreement=value, chance=0.4) for value in (0.4, 0.41))
    lines = printed(outcome(Synthesis, synthesis), outcome(Retraining, bad), outcome(Baseline, good))
    assert " ".join(lines[4:]) == (
        "synthesis: The images are doubtful. · They are far away. Come closer. retraining: The network 2 has learned nothing: on "
        "images held out it agrees with its teacher in 40.0 %, no more than by chance. Look at the images first; then raise "
        "retraining.epochs, or lower retraining.optimizer.lr."
    )
