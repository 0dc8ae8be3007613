"""Batches of a set that grows while it is used."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dfnas_ray.errors import ConfigError
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.teachers.base import freeze_teacher
from dfnas_ray.training.batches import SplitBatches, SyntheticBatches
from dfnas_ray.training.config import DistillationConfig
from dfnas_ray.training.device_images import DeviceImages

SHARDS, ROWS = 4, 25


@pytest.fixture(scope="module")
def whole():
    """100 images; the logits of each begin with its place."""
    rng = np.random.default_rng(0)
    total = SHARDS * ROWS
    ids = (np.arange(SHARDS, dtype=np.uint64)[:, None] << np.uint64(32)) + np.arange(ROWS, dtype=np.uint64)
    logits = rng.normal(size=(total, 5)).astype(np.float32)
    logits[:, 0] = np.arange(total)
    return SyntheticImages(
        images=rng.integers(0, 256, (total, 1, 10, 10), dtype=np.uint8),
        labels=np.zeros(total, np.int64),
        rounds=np.zeros(total, np.int64),
        logits=logits,
        ids=ids.reshape(-1),
    )


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5))
    return freeze_teacher("t", model, (1, 8, 8), (0.5,), (0.5,))


@pytest.fixture
def make(whole, teacher):
    """Return a function that makes batches of the first shards of the planned set."""

    def batches(shards=SHARDS, labels="stored", **changes):
        settings = {"batch_size": 16, "seed": 0, "planned_ids": whole.ids, **changes}
        data = whole.select(np.arange(shards * ROWS))
        placed = DeviceImages(data, torch.device("cpu"))
        return SyntheticBatches(placed, teacher, DistillationConfig(labels=labels), **settings)

    return batches


def split(whole, teacher, shards, planned_ids=None, fraction=0.3):
    data = whole.select(np.arange(shards * ROWS))
    return SplitBatches(
        data, teacher, DistillationConfig(labels="stored"), 16, 0, torch.device("cpu"), fraction, 7, planned_ids
    )


def served(batches, epoch=0):
    """The places of the images of an epoch, batch by batch."""
    return [batch.teacher_logits[:, 0].int().tolist() for batch in batches.epoch(epoch)]


def test_an_epoch_of_the_whole_set_is_what_it_is_without_growth(make, whole):
    for labels in ("stored", "online"):
        plain, grown = make(labels=labels, planned_ids=None), make(1, labels)
        grown.images.replace(whole)
        grown.use(np.ones(len(whole), np.bool_))
        for ours, theirs in zip(grown.epoch(3), plain.epoch(3), strict=True):
            assert torch.equal(ours.images, theirs.images)
            assert torch.equal(ours.teacher_logits, theirs.teacher_logits)


def test_a_part_of_the_set_takes_as_many_steps_and_sees_its_images_equally_often(make):
    part = make(2)
    batches = served(part)
    assert [len(batch) for batch in batches] == [16] * (100 // 16)
    assert len(part) == len(make())
    counts = np.bincount([place for batch in batches for place in batch], minlength=100)
    assert counts[50:].sum() == 0
    assert counts[:50].min() >= 1  # 96 places for 50 images: once through, then 46 of them again
    assert counts[:50].max() == 2
    assert served(part) == batches
    assert served(part, 1) != batches


def test_a_set_smaller_than_a_batch_fills_it(make):
    assert [len(batch) for batch in served(make(1, batch_size=60))] == [60]


def test_two_workers_share_the_images_of_a_part(make):
    ours, theirs = (served(make(2, batch_size=8, rank=rank, world_size=2)) for rank in (0, 1))
    together = [sorted(a + b) for a, b in zip(ours, theirs, strict=True)]
    assert together == [sorted(batch) for batch in served(make(2))]


def test_every_image_keeps_its_side_and_its_part_as_the_set_grows(whole, teacher):
    grown, plain = split(whole, teacher, 1, whole.ids), split(whole, teacher, SHARDS)
    assert (len(grown.train), len(grown.validation)) == (len(plain.train), len(plain.validation))
    assert set(grown.train.ids) <= set(plain.train.ids)
    assert set(grown.validation.ids) <= set(plain.validation.ids)
    parts, expected = grown.train.split(0.4, "alphas"), plain.train.split(0.4, "alphas")
    assert [len(part) for part in parts] == [len(part) for part in expected]
    before = [served(part) for part in parts]
    grown.take(whole)
    for part, whole_part, earlier in zip(parts, expected, before, strict=True):
        assert served(part) == served(whole_part) != earlier
    assert np.array_equal(grown.validation.ids, plain.validation.ids)
    for ours, theirs in zip(grown.validation.unvaried(), plain.validation.unvaried(), strict=True):
        assert torch.equal(ours.images, theirs.images)


def test_a_beginning_without_training_images_is_refused(make):
    with pytest.raises(ConfigError, match=r"synthesis\.images_per_shard, or start with more: search\.start_after"):
        next(make(0).epoch(0))
    with pytest.raises(ConfigError, match=r"search\.start_after_shards"):
        make(0).split(0.5, "alphas")


@pytest.mark.parametrize(("fraction", "side"), [(0.0001, "none of 100 images"), (0.9999, "all of 100 images")])
def test_a_finished_set_with_nothing_on_one_side_is_refused(whole, teacher, fraction, side):
    with pytest.raises(ConfigError, match=rf"search\.validation_fraction \({fraction}\) holds out {side}"):
        split(whole, teacher, 1, whole.ids, fraction)


def test_a_beginning_may_have_nothing_held_out(whole, teacher):
    beginning = whole.select(np.arange(1))
    for fraction in (0.1, 0.9):
        batches = SplitBatches(
            beginning, teacher, DistillationConfig(), 16, 0, torch.device("cpu"), fraction, 7, whole.ids
        )
        assert len(batches.train.ids) + len(batches.validation.ids) == 1


def test_the_teacher_labels_in_the_precision_that_networks_compute_in(make, teacher):
    (exact, *_), (rough, *_) = (list(make(labels="online", precision=p).epoch(0)) for p in ("float32", "bfloat16"))
    assert torch.equal(exact.images, rough.images)
    assert torch.equal(exact.teacher_logits, teacher.model(exact.images))
    assert rough.teacher_logits.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(rough.teacher_logits, teacher.model(rough.images).float())
    assert not torch.equal(rough.teacher_logits, exact.teacher_logits)
