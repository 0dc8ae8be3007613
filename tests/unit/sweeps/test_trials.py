"""One trial of a sweep: all of its shards are made and judged, whatever method makes them."""

from types import SimpleNamespace

import pytest
import torch

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.storage.location import Location
from dfnas_ray.sweeps.trials import SweepJob, run_trial
from dfnas_ray.testing.small import small_teacher

TAU = {"synthesis.method.tau": 1.5}
METHOD = {"kind": "generator", "batch_size": 20, "width": 4, "adaptation_steps": 1, "student": None}


class NoBoard:
    def writer(self, worker):
        return lambda done, note="": None


class Counting(SimpleNamespace):
    """Judges a set by its number of images."""

    def __call__(self, images, device):
        return {"images": len(images)}


def results(folder, num_shards, pruning=None):
    synthesis = {
        "num_shards": num_shards,
        "images_per_shard": 40,
        "canvas_margin": 2,
        "method": {**METHOD, "calibrated": 1.0},
    }
    settings = {"synthesis.method.tau": {"uniform": [1, 2]}}
    sweep = {"settings": settings, "objectives": ["domain_gap"], "pruning": pruning}
    config = make_experiment({"teacher": "digits", "synthesis": synthesis, "sweep": sweep})
    job = SweepJob(config.sweep, config.synthesis, 0, Location.parse(folder))
    return list(run_trial(0, 0, TAU, job, Counting(teacher=small_teacher()), torch.device("cpu"), NoBoard()))


@pytest.mark.parametrize("num_shards", [1, 4])
def test_all_shards_of_a_generator_with_soft_labels_are_judged(num_shards, tmp_path):
    expected = [{"images": 40 * num_shards, "number": 0, "rounds": num_shards, "finished": True}]
    assert results(tmp_path, num_shards) == expected
    assert results(tmp_path, num_shards) == expected, "the same with shards that were committed before"


def test_its_shards_are_compared_at_the_rungs(tmp_path):
    compared = results(tmp_path, 4, {"min_rounds": 1, "reduction_factor": 2})
    assert [(result["rounds"], result["images"], result["finished"]) for result in compared] == [
        (1, 40, False),
        (2, 80, False),
        (4, 160, True),
    ]
