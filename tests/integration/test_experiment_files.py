"""Every file in experiments/ builds its teacher, spaces and algorithms, and takes its first steps at a reduced size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.models

from dfnas_ray import load_experiment
from dfnas_ray.algorithms.base import SearchProblem
from dfnas_ray.ranking.table import read_table
from dfnas_ray.seeding import fixed_threads
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.teachers.checkpoint import build_model
from dfnas_ray.training.batches import SyntheticBatches
from dfnas_ray.training.device_images import DeviceImages

FILES = sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml"))
SMALL = {
    "inversion": {
        "batch_size": 2,
        "rounds": 1,
        "scales": [{"scale": 2, "steps": 1}, {"scale": 1, "steps": 1}],
        "warmup_steps": 0,
    },
    "generator": {
        "batch_size": 2,
        "width": 8,
        "adaptation_steps": 1,
        "streams": 1,
        "student": {"steps": 1, "batch_size": 2, "warmup_batches": 0, "compile": False},
    },
}
SHORT = {"epochs": 1, "warmup_epochs": 0, "batch_size": 2, "calibration_batches": 1, "candidates": 1}


def untrained(teacher, folder):
    """Write untrained weights, as a teacher's settings ask for them."""
    if teacher.kind == "torchvision":
        model = getattr(torchvision.models, teacher.name)()
    else:
        # Of an extra, as lite0 is; the others need nothing, and the 224-pixel generator has unit tests of its own.
        pytest.importorskip(teacher.builder.partition(":")[0])
        model = build_model(teacher.builder, teacher.arguments)
    torch.save(model.state_dict(), folder / "untrained.pt")
    return folder / "untrained.pt"


def reduced(file, folder):
    config = load_experiment(file)
    if config.teacher.kind in ("digits", "hard_digits"):
        teacher = ["teacher.width=4", "teacher.epochs=1"]
    else:
        teacher = [f"teacher.checkpoint={untrained(config.teacher, folder)}"]
    if file.stem.startswith("digits"):
        teacher = ["teacher={kind: digits, width: 4, epochs: 1}", "search.max_macs=null"]
    small = {"num_shards": 1, "images_per_shard": 2, "compile": False}
    small |= {f"method.{name}": value for name, value in SMALL[config.synthesis.method.kind].items()}
    return load_experiment(
        file, [*teacher, *(f"synthesis.{name}={json.dumps(value)}" for name, value in small.items())]
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_experiment_takes_two_steps(file, tmp_path):
    config = reduced(file, tmp_path)
    with fixed_threads(1):  # two would wait for each other on a machine that is busy
        teacher = config.teacher.load(tmp_path)
        *_, made = config.synthesis.method.synthesizer(teacher, config.synthesis, torch.device("cpu")).make(0, 0)
        assert all(np.isfinite(list(point.losses.values())).all() for curve in made.curves for point in curve)
        images = np.tile(made.images, (2, 1, 1, 1))  # a batch for each half of what DARTS learns from
        data = SyntheticImages(
            images=images,
            labels=np.zeros(4, np.int64),
            rounds=np.zeros(4, np.int64),
            logits=np.zeros((4, teacher.num_classes), np.float32),
            ids=np.arange(4, dtype=np.uint64),
        )
        for algorithm, space_config in config.search.pairs:
            settings = {name: value for name, value in SHORT.items() if name in type(algorithm).model_fields}
            if algorithm.kind == "darts":  # what its collapse and its second order do is tested elsewhere
                settings |= {"order": "first", "collapse": algorithm.collapse.model_copy(update={"eigenvalue": False})}
            short = algorithm.model_copy(update=settings)
            space = space_config.space(teacher.image_shape, teacher.num_classes)
            limit = config.search.macs_limit(teacher.cost.macs)
            placed = DeviceImages(data, torch.device("cpu"))
            train, valid = (SyntheticBatches(placed, teacher, config.search.distillation, 2, 0) for _ in range(2))
            problem = SearchProblem(space, train, valid, config.search.distillation, limit, 0, config.search.precision)
            search = short.algorithm(problem)
            if search.is_training:
                assert np.isfinite(search.train_epoch()["loss"])
            else:
                assert np.isfinite(search.rank(search.scorer()(search.ask()[:1]))[0])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_experiment_file_names_itself_and_its_command(file):
    text = file.read_text()
    config = load_experiment(file)
    assert config.name == file.stem
    sections = {"sweep": config.sweep, "compare": config.comparison, "benchmark": config.benchmark}
    command = next((name for name, section in sections.items() if section is not None), "run")
    assert f"dfnas {command} experiments/{file.name}" in text.split("name:")[0]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_table_beside_an_experiment_is_about_all_of_its_space(file, monkeypatch):
    config, root = load_experiment(file), file.parents[1]
    table = config.benchmark and config.benchmark.table
    if not table or not (root / table).exists():
        pytest.skip("it has no table of its own")
    monkeypatch.chdir(root)
    space_config = config.search.space[0]
    space = space_config.space(*space_config.native_input)
    assert len(read_table(config.benchmark, space)) == space.num_architectures
