"""Noise and real images: the size and the canvas of the synthetic set, and the labels."""

from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from dfnas_ray.datasets.base import DatasetSourceConfig
from dfnas_ray.errors import DatasetError
from dfnas_ray.ops.regions import center_crop
from dfnas_ray.sources.base import SetSize, draw_all
from dfnas_ray.sources.noise import NoiseSource, noise_canvases
from dfnas_ray.sources.real import RealSource
from dfnas_ray.sources.synthetic import shuffle_labels
from dfnas_ray.teachers.digits import DigitsCNN
from dfnas_ray.training.splits import split_mask

SIZE = SetSize(images=40, rows=20, canvas=(1, 18, 18))


class Numbered:
    """Images whose pixels are all their own number, and whose labels are its last digit."""

    description = "numbered images"

    fingerprint = "numbered"

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return Image.fromarray(np.full((16, 16), index, np.uint8)), index % 10


class Gradient(Numbered):
    def __getitem__(self, index):
        return Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)), 0


class NumberedConfig(DatasetSourceConfig):
    kind: Literal["numbered"] = "numbered"
    count: int = 100
    labels_from: int = 0

    def open(self, setting="evaluation.dataset"):
        dataset = Numbered(self.count)
        if self.labels_from:
            dataset.__class__ = Elsewhere
        return dataset


class Elsewhere(Numbered):
    def __getitem__(self, index):
        return Numbered.__getitem__(self, index)[0], 10


class GradientConfig(NumberedConfig):
    kind: Literal["gradient"] = "gradient"

    def open(self, setting="evaluation.dataset"):
        return Gradient(self.count)


def real(**settings):
    return RealSource.model_construct(dataset=NumberedConfig(), num_images=None, labels="own").model_copy(
        update=settings
    )


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.25), (0.0, 1 / 255), (0.0, 1.0), (0.5, 1.0)])
def test_noise_has_the_pixels_of_photographs_for_any_units_of_the_teacher(make_teacher, mean, std):
    teacher = make_teacher(DigitsCNN(width=4), mean=mean, std=std)
    noise = noise_canvases(teacher, SIZE, 0, 0)
    assert abs(noise.mean() / 255 - 0.5) < 0.02
    assert 0.2 < noise.std() / 255 < 0.25
    is_natural = (mean, std) == (0.5, 0.25)
    assert bool(NoiseSource().inputs(teacher, "search.images")) is not is_natural


def test_ids_are_those_of_shards():
    assert SIZE.ids[[0, 19, 20, 39]].tolist() == [0, 19, 2**32, 2**32 + 19]
    assert 0 < split_mask(SIZE.ids, 0.2, 0).sum() < 40


def test_a_last_shard_may_be_smaller():
    size = SIZE.of(50)
    assert (size.shards, size.rows_of(2), len(size.ids)) == (3, 10, 50)
    assert SIZE.of(7).rows == 7


def test_noise_is_gaussian_around_the_mean_within_valid_pixels(tiny_teacher):
    size = SetSize(400, 400, (1, 18, 18))
    canvases = noise_canvases(tiny_teacher, size, 0, 0)  # the teacher's mean is 0.5, its deviation 0.25
    assert canvases.dtype == np.uint8
    assert canvases.mean() == pytest.approx(127.5, abs=1)
    beyond = (canvases == 0).mean() + (canvases == 255).mean()
    assert beyond == pytest.approx(0.0455, abs=0.005)  # outside of two deviations, clamped
    assert np.array_equal(canvases, noise_canvases(tiny_teacher, size, 0, 0))
    assert not np.array_equal(canvases, noise_canvases(tiny_teacher, size, 1, 0))
    assert not np.array_equal(canvases, noise_canvases(tiny_teacher, size, 0, 1))


def test_real_images_are_drawn_once_each_and_by_seed(tiny_teacher):
    drawn = [draw_all(tiny_teacher, real(), SIZE, seed, "search.images") for seed in (0, 0, 1)]
    numbers = [images.images[:, 0, 0, 0].tolist() for images in drawn]
    assert numbers[0] == numbers[1] != numbers[2]
    assert len(set(numbers[0])) == 40
    assert drawn[0].labels.tolist() == [number % 10 for number in numbers[0]]


def test_a_real_image_is_the_centre_of_its_canvas_and_reflected_around_it(tiny_teacher):
    source = real(dataset=GradientConfig())
    canvas = torch.from_numpy(source.drawer(tiny_teacher, SIZE, 0, "search.images")(0).canvases[:1])
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(center_crop(canvas, (16, 16)), pixels)
    assert canvas[0, 0, 0, 1:-1].tolist() == pixels[0, 0, 1].tolist()
    assert canvas[0, 0, 1:-1, -1].tolist() == pixels[0, 0, :, -2].tolist()


def test_the_size_is_that_of_the_synthetic_set_or_what_the_settings_say():
    assert real().size(SIZE, "search.images") == SIZE
    assert real(num_images="all").size(SIZE, "search.images").images == 100
    assert real(num_images=30).size(SIZE, "search.images").images == 30
    assert NoiseSource(num_images=70).size(SIZE, "search.images").images == 70


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"dataset": NumberedConfig(count=39)},
            r"search.images.dataset: numbered images holds 39 images.*synthetic set.*40",
        ),
        ({"num_images": 101}, r"search.images.dataset: numbered images holds 100 images, but num_images is 101"),
        ({"dataset": NumberedConfig(count=0), "num_images": "all"}, r"numbered images holds no images\. Give another"),
    ],
)
def test_too_few_real_images_are_refused(settings, told):
    with pytest.raises(DatasetError, match=told):
        real(**settings).size(SIZE, "search.images")


def test_a_label_that_the_teacher_has_no_class_for_is_refused_unless_labels_are_not_looked_at(tiny_teacher):
    source = real(dataset=NumberedConfig(labels_from=1))
    with pytest.raises(DatasetError, match=r"search.images.dataset: numbered images, image \d+: label 10.*10 classes"):
        draw_all(tiny_teacher, source, SIZE, 0, "search.images")
    images = draw_all(tiny_teacher, source.model_copy(update={"labels": "teacher"}), SIZE, 0, "search.images")
    assert images.labels.tolist() == images.logits.argmax(1).tolist()


def test_labels_are_the_teachers_view_of_the_centre(tiny_teacher):
    images = draw_all(tiny_teacher, NoiseSource(), SIZE, 0, "search.images")
    centres = torch.from_numpy(images.images[:, :, 1:-1, 1:-1].copy())
    with torch.no_grad():
        expected = tiny_teacher.model(tiny_teacher.normalize(centres))
    np.testing.assert_allclose(images.logits, expected.numpy(), rtol=1e-5, atol=1e-5)
    assert images.labels.tolist() == expected.argmax(1).tolist()
    assert images.ids.tolist() == SIZE.ids.tolist()


def test_shuffled_labels_are_those_of_other_images(tiny_teacher):
    images = draw_all(tiny_teacher, real(), SIZE, 0, "search.images")
    shuffled = shuffle_labels(images, 0)
    assert np.array_equal(shuffled.images, images.images)
    assert not np.array_equal(shuffled.labels, images.labels)
    assert sorted(shuffled.labels) == sorted(images.labels)
    assert shuffled.logits[:, 0].tolist() != images.logits[:, 0].tolist()
