"""Searches and retrainings on noise and on real images, end to end, and that the default path never touches a real one."""

from __future__ import annotations

import json
from typing import Literal

import pytest
from PIL import Image

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.datasets.base import DatasetSourceConfig
from dfnas_ray.datasets.digits import DigitsConfig, load_split
from dfnas_ray.errors import ConfigError, DatasetError
from dfnas_ray.library.experiments import run
from dfnas_ray.report.card import write_card
from dfnas_ray.report.page import write_report
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.manifest import Manifest
from dfnas_ray.storage.run_dir import RunDir
from dfnas_ray.storage.shard_sets import load_shards
from dfnas_ray.workflow import run as order
from dfnas_ray.workflow.session import Session


class TrainingDigits:
    """The digits that the built-in teacher was trained on."""

    description, fingerprint = "training digits", "training digits"

    def __init__(self):
        self.data = load_split("train")

    def __len__(self):
        return len(self.data.labels)

    def __getitem__(self, index):
        return Image.fromarray(self.data.images[index, 0].numpy()), int(self.data.labels[index])


class TrainingDigitsConfig(DatasetSourceConfig):
    kind: Literal["training_digits"] = "training_digits"

    def open(self, setting="evaluation.dataset"):
        return TrainingDigits()


class ForbiddenConfig(DatasetSourceConfig):
    """Real images that nobody may look at."""

    kind: Literal["forbidden"] = "forbidden"

    def open(self, setting="evaluation.dataset"):
        return _Forbidden()


class _Forbidden:
    description, fingerprint = "forbidden images", "forbidden"

    def __len__(self):
        return 10

    def __getitem__(self, index):
        raise AssertionError("a real image was read")


REAL = {"kind": f"{__name__}:TrainingDigitsConfig"}
REAL_IMAGES = json.dumps({"kind": "real", "dataset": REAL})
SMALL = ["synthesis.num_shards=2", "cluster.address=inline"]


@pytest.fixture
def experiment(tiny_values, tmp_path):
    def make(*overrides, **values):
        return make_experiment({**tiny_values(), "run_dir": str(tmp_path / "run"), **values}, [*SMALL, *overrides])

    return make


def only(folder, name):
    (found,) = (folder / name).iterdir()
    return found


def test_nothing_before_the_evaluation_reads_a_real_image(experiment):
    values = {"evaluation": {"dataset": {"kind": f"{__name__}:ForbiddenConfig"}}}
    outcomes = finished(order.retrain, experiment(**values))
    assert {outcome.stage for outcome in outcomes} >= {"retraining", "baseline"}
    with pytest.raises((AssertionError, DatasetError), match="a real image was read"):
        finished(order.evaluate, experiment(**values))


def test_a_search_on_noise_needs_no_synthesis(experiment, tmp_path):
    config = experiment(
        "search.images=noise", "retraining.images={kind: noise, num_images: 50}", "retraining.baseline=false"
    )
    outcomes = run(config)
    assert "synthesis" not in outcomes
    assert outcomes["search"].record.images == outcomes["retraining"].record.images == "noise"
    assert outcomes["search"].record.data_free
    sizes = sorted(Manifest.read(folder).rows for folder in map(_location, (tmp_path / "run" / "images").iterdir()))
    assert sizes == [50, 80]
    assert all(outcome.reused for outcome in run(config).values())


def test_real_images_and_their_labels_train_a_network_which_is_marked_everywhere(experiment, tmp_path):
    config = experiment(
        "allow_real_images=true",
        f"search.images={REAL_IMAGES}",
        f"retraining.images={json.dumps({'kind': 'real', 'dataset': REAL, 'num_images': 'all'})}",
        "retraining.labels={weight: 1}",
        "retraining.epochs=6",
        "retraining.batch_size=64",
    )
    outcomes = run(config)
    record = outcomes["evaluation"].record
    assert not outcomes["search"].record.data_free
    assert not outcomes["retraining"].record.data_free
    assert not record.networks["retraining"].data_free
    assert record.networks["teacher"].data_free
    assert record.networks["retraining"].accuracy > 0.3  # on synthetic images of ten steps it is near 0.1
    (largest,) = (
        folder
        for folder in map(_location, (tmp_path / "run" / "images").iterdir())
        if Manifest.read(folder).rows == 1257
    )
    images = load_shards(largest, Manifest.read(largest))
    assert sorted(images.labels) == sorted(load_split("train").labels.tolist())
    page = (write_report(RunDir(str(tmp_path / "run"))) and tmp_path / "run" / "report.html").read_text()
    assert "This is not data-free" in page
    assert "Searched (not data-free)" in page
    write_card(RunDir(str(tmp_path / "run")))
    card = (tmp_path / "run" / "model-card.md").read_text()
    assert "Not data-free" in card
    assert "\n- data-free" not in card


def test_labels_beside_the_teacher_are_another_network_than_either(experiment):
    agreement = set()
    for labels in ("null", "{weight: 0.5}", "{weight: 1}"):
        config = experiment(f"retraining.labels={labels}", "retraining.baseline=false", "retraining.epochs=1")
        (outcome,) = finished(order.retrain, config)
        agreement.add((outcome.record.loss, outcome.record.validation_loss))
    assert len(agreement) == 3


def test_shuffled_labels_teach_nothing(experiment):
    config = experiment("search.images={kind: synthetic, labels: shuffled}", "search.distillation.labels=stored")
    found = finished(order.search, config)
    assert found.record.images == "synthetic, shuffled labels"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ([f"search.images={REAL_IMAGES}"], r"search.images \(real\) are not data-free.*allow_real_images: true"),
        ([f"retraining.images={REAL_IMAGES}"], r"retraining.images \(real\).*allow_real_images"),
        (["search.images=nois"], r"search.images.*'nois'.*Did you mean noise"),
        (["search.images={kind: synthetic, labels: shuffled}"], r"shuffled does nothing.*distillation.labels to stored"),
        (["search.images=noise", "search.start_after_shards=1"], r"start_after_shards \(1\).*noise"),
        (["retraining.images=noise", "retraining.labels={}"], r"labels needs images that have labels of their own.*noise"),
        (["retraining.labels={}", "retraining.distillation.augmentation={mixup: 0.5}"], r"mixup \(0.5\)"),
        (["retraining.labels={weight: 0}"], r"retraining.labels.weight"),
        (["allow_real_images=true", "retraining.images={kind: real, dataset: {kind: digits}}"],
         r"retraining.images.dataset and evaluation.dataset are the same images"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_one_error(experiment, overrides, told):
    with pytest.raises(ConfigError, match=f"(?s){told}"):
        experiment(*overrides)


def test_too_few_real_images_are_refused_before_anything_is_made(experiment, tmp_path):
    real = {"kind": "real", "dataset": REAL, "num_images": 2000}
    with pytest.raises(
        DatasetError, match=r"search.images.dataset: training digits holds 1,257 images, but num_images is 2,000"
    ):
        run(experiment("allow_real_images=true", f"search.images={json.dumps(real)}"))
    assert not (tmp_path / "run" / "synthesis").exists()


def test_digits_of_the_evaluation_are_not_those_of_training():
    assert len(DigitsConfig().open()) == 540


def _location(path):
    return Location.parse(str(path))


def finished(command, config):
    with Session(config).opened() as session:
        return command(session)
