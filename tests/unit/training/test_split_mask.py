"""Which images are on which side of a split."""

import numpy as np
import pytest

from dfnas_ray.training.batches import split_mask


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
