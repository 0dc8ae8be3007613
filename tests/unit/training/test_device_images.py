"""Images for training, on a device or beside it."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dfnas_ray.testing.small import small_batches, small_images, small_teacher
from dfnas_ray.training.batches import SplitBatches, SyntheticBatches
from dfnas_ray.training.config import DistillationConfig
from dfnas_ray.training.device_images import DeviceImages

CPU = torch.device("cpu")


def test_on_a_cpu_the_canvases_are_used_where_they_are():
    data = small_images()
    images = DeviceImages(data, CPU)
    data.images[5] = 17  # an object store is read only, so this happens in tests alone
    assert bool((images.canvases(torch.tensor([5])) == 17).all())


def test_canvases_that_cannot_be_written_are_read():
    data = small_images()
    for values in vars(data).values():
        values.flags.writeable = False
    batches = SyntheticBatches(DeviceImages(data, CPU), small_teacher(), DistillationConfig(), 16, 0)
    assert len(list(batches.epoch(0))) == 4


def test_all_sides_and_parts_share_one_set():
    split = SplitBatches(small_images(), small_teacher(), DistillationConfig(), 8, 0, CPU, 0.3, 7)
    weights, alphas = split.train.split(0.5, "alphas")
    assert {id(each.images) for each in (split.train, split.validation, weights, alphas)} == {id(split.train.images)}
    assert sorted([*weights.ids, *alphas.ids, *split.validation.ids]) == list(range(64))


@pytest.mark.parametrize(("free", "is_on_device"), [(10**6, True), (30_000, False)])
def test_a_set_too_large_for_the_device_stays_beside_it(monkeypatch, free, is_on_device):
    moved = []
    canvases = SimpleNamespace(nbytes=64 * 18 * 18, device=CPU, to=lambda device: moved.append(device) or canvases)
    images = DeviceImages(small_images(), CPU)
    images._canvases = canvases
    images.logits = images.labels = SimpleNamespace(to=lambda device: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**9))
    images.to(torch.device("cuda"))
    assert moved == [torch.device("cuda") if is_on_device else "cpu"]


def test_centres_are_the_unvaried_batches_and_hold_no_others():
    batches = small_batches()
    batches.use(np.arange(64) % 4 == 0)
    centres = pickle.loads(pickle.dumps(batches.centres()))
    assert centres.images.shape == (16, 1, 16, 16)
    for _ in range(2):
        for ours, theirs in zip(centres, batches.unvaried(), strict=True):
            assert torch.equal(ours.images, theirs.images)
            assert torch.equal(ours.teacher_logits, theirs.teacher_logits)
            ours.images.zero_()
            ours.teacher_logits.zero_()


def test_an_empty_side_has_no_batches():
    batches = small_batches()
    batches.use(np.zeros(64, np.bool_))
    assert list(batches.unvaried()) == []
