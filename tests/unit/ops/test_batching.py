"""Batches that are bounded by their bytes."""

from __future__ import annotations

import os

import pytest
import torch

import dfnas_ray
from dfnas_ray.ops.batching import batch_size_for


@pytest.mark.parametrize(
    ("shape", "device", "expected"),
    [
        ((3, 32, 32), "cpu", 256),
        ((1, 16, 16), "cpu", 256),
        ((3, 224, 224), "cpu", 13),
        ((3, 224, 224), "cuda", 111),
        ((3, 10_000, 10_000), "cpu", 1),
    ],
)
def test_large_images_come_few_at_once(shape, device, expected):
    assert batch_size_for(shape, 256, torch.device(device)) == expected


def test_torch_is_asked_for_huge_pages_before_it_is_imported():
    assert dfnas_ray.__version__
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1"
