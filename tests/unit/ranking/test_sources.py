"""Noise and real images: the size, the canvas and the labels of the synthetic set."""

import numpy as np
import pytest
import torch
from PIL import Image

from dfnas_ray.errors import DatasetError
from dfnas_ray.ops.regions import center_crop
from dfnas_ray.ranking.sources import SetSize, labelled, noise_canvases, real_canvases
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.training.batches import split_mask

SYNTHESIS = SynthesisConfig(
    num_shards=2,
    images_per_shard=10,
    canvas_margin=2,
    method={"kind": "inversion", "batch_size": 10, "rounds": 2, "scales": [{"scale": 1, "steps": 200}]},
)
SIZE = SetSize.of(SYNTHESIS, (1, 16, 16))


class Numbered:
    """Images whose pixels are all their own number; the labels are nonsense."""

    description = "numbered images"

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return Image.fromarray(np.full((16, 16), index, np.uint8)), 999


class Gradient(Numbered):
    def __getitem__(self, index):
        return Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)), 0


def test_the_size_is_that_of_the_synthetic_set():
    assert (SIZE.images, SIZE.canvas) == (40, (1, 18, 18))
    assert SIZE.images == SYNTHESIS.images_in_total
    assert SIZE.ids[[0, 19, 20, 39]].tolist() == [0, 19, 2**32, 2**32 + 19]
    assert 0 < split_mask(SIZE.ids, 0.2, 0).sum() < 40


def test_noise_is_gaussian_around_the_mean_within_valid_pixels(tiny_teacher):
    size = SetSize(1, 400, (1, 18, 18))
    canvases = noise_canvases(tiny_teacher, size, 0)  # the teacher's mean is 0.5, its deviation 0.25
    assert canvases.dtype == np.uint8
    assert canvases.mean() == pytest.approx(127.5, abs=1)
    beyond = (canvases == 0).mean() + (canvases == 255).mean()
    assert beyond == pytest.approx(0.0455, abs=0.005)  # outside of two deviations, clamped
    assert np.array_equal(canvases, noise_canvases(tiny_teacher, size, 0))
    assert not np.array_equal(canvases, noise_canvases(tiny_teacher, size, 1))


def test_real_images_are_drawn_once_each_and_by_seed():
    drawn = [real_canvases(Numbered(100), (1, 16, 16), SIZE, seed)[:, 0, 0, 0].tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 40


def test_a_real_image_is_the_centre_of_its_canvas_and_reflected_around_it():
    canvas = torch.from_numpy(real_canvases(Gradient(40), (1, 16, 16), SIZE, 0)[:1])
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(center_crop(canvas, (16, 16)), pixels)
    assert canvas[0, 0, 0, 1:-1].tolist() == pixels[0, 0, 1].tolist()
    assert canvas[0, 0, 1:-1, -1].tolist() == pixels[0, 0, :, -2].tolist()


def test_too_few_real_images_are_refused():
    with pytest.raises(DatasetError, match=r"benchmark.real: numbered images holds 39 images.*synthetic set.*40"):
        real_canvases(Numbered(39), (1, 16, 16), SIZE, 0)


def test_labels_are_the_teachers_view_of_the_centre(tiny_teacher):
    canvases = noise_canvases(tiny_teacher, SIZE, 0)
    images = labelled(tiny_teacher, canvases, SIZE)
    with torch.no_grad():
        expected = tiny_teacher.model(tiny_teacher.normalize(torch.from_numpy(canvases[:, :, 1:-1, 1:-1].copy())))
    np.testing.assert_allclose(images.logits, expected.numpy(), rtol=1e-5, atol=1e-5)
    assert images.labels.tolist() == expected.argmax(1).tolist()
    assert len(images) == 40
