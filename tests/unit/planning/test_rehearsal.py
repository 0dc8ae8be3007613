"""With a clock that ticks once at every step, the estimate is the number of steps: nothing is left out, or counted twice."""

from itertools import count

import pytest
import torch

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.planning import timing
from dfnas_ray.synthesis import rehearsal

CPU = torch.device("cpu")


@pytest.fixture
def ticking(monkeypatch):
    monkeypatch.setattr(rehearsal.time, "perf_counter", count().__next__)


def synthesis(**settings):
    defaults = {"precision": "float32", "canvas_margin": 2, "compile": False, "flip_probability": 0}
    return make_experiment({"teacher": "digits", "synthesis": {**defaults, **settings}})


def test_inversion_counts_every_step_of_every_scale_and_round(ticking, digits_teacher):
    scales = [{"scale": 2, "steps": 50}, {"scale": 1, "steps": 100}]
    method = {"kind": "inversion", "batch_size": 10, "rounds": 3, "scales": scales, "warmup_steps": 5}
    config = synthesis(num_shards=4, images_per_shard=20, method=method)
    assert timing.time_synthesis(digits_teacher, config, CPU) == pytest.approx(4 * 2 * 3 * 150)


def test_a_generator_counts_its_own_steps_and_those_of_its_students(ticking, digits_teacher):
    student = {"steps": 30, "batch_size": 8, "warmup_batches": 4}
    method = {
        "kind": "generator",
        "batch_size": 10,
        "streams": 2,
        "width": 4,
        "adaptation_steps": 5,
        "student": student,
    }
    config = synthesis(num_shards=4, images_per_shard=100, method=method)
    # 40 batches in two streams: 5 steps each, and all but the first 4 of each stream are followed by 30 of the student.
    assert timing.time_synthesis(digits_teacher, config, CPU) == pytest.approx(40 * 5 + (40 - 2 * 4) * 30)


def test_a_generator_without_a_student_counts_its_own_steps(ticking, digits_teacher):
    method = {"kind": "generator", "batch_size": 10, "width": 4, "adaptation_steps": 3, "student": None}
    config = synthesis(num_shards=2, images_per_shard=50, method=method, regularizers={"adversarial": {"weight": 0}})
    assert timing.time_synthesis(digits_teacher, config, CPU) == pytest.approx(10 * 3)


def test_a_large_network_is_timed_on_few_images_which_stand_for_the_batch(ticking, digits_teacher, monkeypatch):
    monkeypatch.setattr(timing, "STEP_MACS", 2 * digits_teacher.cost.macs)
    assert timing.timed_batch(digits_teacher, 200) == 2
    method = {
        "kind": "inversion",
        "batch_size": 8,
        "rounds": 1,
        "scales": [{"scale": 1, "steps": 20}],
        "warmup_steps": 2,
    }
    config = synthesis(num_shards=1, images_per_shard=16, method=method)
    # 2 batches of 20 steps; a step of 8 images takes as long as 4 of 2.
    assert timing.time_synthesis(digits_teacher, config, CPU) == pytest.approx(2 * 20 * 4)


def test_a_generator_and_its_student_have_batches_of_their_own(ticking, digits_teacher, monkeypatch):
    monkeypatch.setattr(timing, "STEP_MACS", 4 * digits_teacher.cost.macs)
    student = {"steps": 30, "batch_size": 6, "warmup_batches": 4}
    method = {"kind": "generator", "batch_size": 10, "width": 4, "adaptation_steps": 5, "student": student}
    config = synthesis(num_shards=2, images_per_shard=100, method=method)
    # 20 batches of 10, timed with 4; steps of the student of 6, also timed with 4.
    expected = 20 * 5 * 10 / 4 + (20 - 4) * 30 * 6 / 4
    assert timing.time_synthesis(digits_teacher, config, CPU) == pytest.approx(expected)
