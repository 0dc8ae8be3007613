"""Which images are on which side of a split."""

import re

import numpy as np
import pytest

from dfnas_ray.errors import ConfigError
from dfnas_ray.training.splits import check_split, split_mask


def test_an_image_keeps_its_side_when_more_images_come():
    ids = np.arange(20_000, dtype=np.uint64)
    mask = split_mask(ids, 0.2, seed=3)
    np.testing.assert_array_equal(split_mask(ids[500:900], 0.2, seed=3), mask[500:900])
    assert mask.mean() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("other", [{"seed": 4}, {"seed": 3, "name": "another split"}])
def test_another_seed_or_name_is_another_split(other):
    ids = np.arange(20_000, dtype=np.uint64)
    mask = split_mask(ids, 0.2, seed=3)
    both = (split_mask(ids, 0.2, **other) & mask).mean()
    assert both == pytest.approx(0.2 * 0.2, abs=0.01)  # independent of the first


@pytest.mark.parametrize(
    ("count", "fraction", "message"),
    [
        (80, 0.001, r"search\.validation_fraction \(0\.001\) holds out none of 80 images for validation"),
        (8, 0.999, r"search\.validation_fraction \(0\.999\) holds out all of 8 images, and leaves none for training"),
        (2, 0.001, r"none of 2 images"),
    ],
)
def test_a_side_without_an_image_is_refused_with_a_value_that_gives_it_one(count, fraction, message):
    ids = np.arange(count, dtype=np.uint64)
    with pytest.raises(ConfigError, match=message + r".*synthesis\.num_shards") as raised:
        check_split(ids, fraction, 3)
    enough = float(re.search(r"Set it to ([0-9.e-]+) or", str(raised.value)).group(1))
    check_split(ids, enough, 3)
    held_out = split_mask(ids, enough, 3).sum()
    assert held_out == (1 if fraction < 0.5 else count - 1)


def test_one_image_cannot_be_split():
    with pytest.raises(ConfigError, match=r"1 image cannot be split.*Make more"):
        check_split(np.zeros(1, np.uint64), 0.2, 3)
