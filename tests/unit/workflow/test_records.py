"""What stages leave and read back: details of work, and trials of a sweep that were altered."""

import pytest

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.progress import Silent
from dfnas_ray.storage.location import Location
from dfnas_ray.sweeps.result import TriedTrials
from dfnas_ray.teachers.facts import TeacherFacts
from dfnas_ray.workflow.retraining import History, RetrainingRecord
from dfnas_ray.workflow.run import REPORTED
from dfnas_ray.workflow.session import Session
from dfnas_ray.workflow.stage import Record
from dfnas_ray.workflow.sweep import BestSettings, Sweep, SweptRecord
from dfnas_ray.workflow.synthesis import SynthesisRecord

TEACHER = TeacherFacts(name="digits", params=1, macs=1, image_shape=(1, 8, 8), num_classes=3)


def synthesis_record(**facts):
    known = {"images": 80, "shards": 4, "made_now": 4, "actors": 2, "bytes": 885_000, "seconds": 40.0}
    return SynthesisRecord(quality={}, teacher=TEACHER, **known | facts)


@pytest.mark.parametrize(
    ("record", "detail"),
    [
        (synthesis_record(), "4 shards, 885 kB, 2 actors, 2.00 images/s"),
        (synthesis_record(actors=0, made_now=0), "4 shards, 885 kB, the time of the last 0 shards; "
         "the others were there already"),
        (synthesis_record(seconds_beside_search=10.0), "4 shards, 885 kB, 2 actors, 2.00 images/s, "
         "10 s of it beside the search"),
    ],
)  # fmt: skip
def test_the_detail_of_a_synthesis_says_whose_time_it_is(record, detail, tmp_path):
    assert record.detail(Location.parse(tmp_path)) == detail


def test_the_detail_of_a_training_counts_its_epochs(tmp_path):
    folder = Location.parse(tmp_path)
    record = RetrainingRecord(
        space_config={}, genotype="2", macs=1, params=1, loss=1, validation_loss=1, validation_agreement=1
    )
    assert record.detail(folder) == ""
    History(({"loss": 1.0}, {"loss": 0.5})).write(folder)
    assert record.detail(folder) == "2 epochs"


def test_every_stage_that_is_reported_has_a_name_a_title_and_a_record_of_its_own():
    assert len({stage.name for stage in REPORTED}) == len({stage.title for stage in REPORTED}) == len(REPORTED)
    assert all(issubclass(stage.record, Record) for stage in REPORTED)


class Said(Silent):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.mark.parametrize("content", [b"null", b"5", b'[{"number": 1}]', b"[" * 5000, None])
def test_a_sweep_whose_trials_were_altered_is_described_anew(digits_teacher, tmp_path, content):
    sweep = {"settings": {"synthesis.method.tau": {"choice": [1, 2]}}, "trials": 2}
    values = {"teacher": "digits", "sweep": sweep, "run_dir": str(tmp_path)}
    values |= {"search": {"max_macs": None}, "cluster": {"address": "inline"}}
    listener = Said()
    session = Session(make_experiment(values), listener)
    session.teacher = digits_teacher
    stage = Sweep(session)
    stage.dir.begin()
    best = BestSettings(number=0, settings={}, values=(0.5,), figures={})
    record = SweptRecord(
        asked=2, trials={"complete": 2}, objectives=("student_proxy",), best=best, pareto_front=(0,), data_free=True
    )
    stage.dir.done_file.write_model(record, exclude_none=True)
    file = stage.location / "trials.json"
    file.write_model(TriedTrials(()))
    assert stage.read() == record
    if content is None:
        file.delete_file()
    else:
        file.write_bytes(content)
    assert stage.read() is None
    assert not stage.dir.is_done
    assert len(listener.lines) == 1
    assert "sweep: is described anew" in listener.lines[0]
    assert "trials.json" in listener.lines[0]
