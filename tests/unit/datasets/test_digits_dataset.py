"""The bundled digits."""

import numpy as np
import torch
from pydantic import TypeAdapter
from sklearn.datasets import load_digits

from dfnas_ray.datasets import DatasetConfig
from dfnas_ray.datasets.base import iterate_batches
from dfnas_ray.datasets.digits import load_split


def _rows(images):
    return sorted(image.numpy().tobytes() for image in images)


def test_the_test_split_has_540_images_and_the_train_split_the_other_1257():
    train, test = load_split("train"), load_split("test")
    assert tuple(test.images.shape) == (540, 1, 16, 16)
    assert tuple(train.images.shape) == (1257, 1, 16, 16)
    assert train.images.dtype == test.images.dtype == torch.uint8
    assert train.labels.dtype == test.labels.dtype == torch.int64


def test_the_splits_share_no_image():
    assert not set(_rows(load_split("train").images)) & set(_rows(load_split("test").images))


def test_both_splits_have_the_classes_in_the_proportion_of_the_whole():
    whole = np.bincount(load_digits().target)
    train = load_split("train").labels.bincount().numpy()
    test = load_split("test").labels.bincount().numpy()
    assert (train + test).tolist() == whole.tolist()
    assert np.abs(test - 0.3 * whole).max() < 1


def test_the_split_is_the_same_every_time_and_ignores_the_global_seed():
    np.random.seed(1)
    first = load_split("test")
    np.random.seed(2)
    second = load_split("test")
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)


def test_pixels_use_the_whole_grey_range_and_enlarge_the_original():
    train = load_split("train").images
    assert (train.min().item(), train.max().item()) == (0, 255)
    # Bilinear by 2: the mean of each 2x2 block stays near the original pixel, so the totals agree.
    original = load_digits().images.sum() / 16 / 64
    both = torch.cat([train, load_split("test").images]).float().mean().item() / 255 * 1797
    assert abs(both / original - 1) < 0.02


def test_the_dataset_hands_out_the_test_split():
    dataset = TypeAdapter(DatasetConfig).validate_python({"kind": "digits"}).open()
    assert len(dataset) == 540
    (batch,) = iterate_batches(dataset, (1, 16, 16), num_classes=10, batch_size=540)
    expected = load_split("test")
    assert torch.equal(batch[0], expected.images)
    assert torch.equal(batch[1], expected.labels)
