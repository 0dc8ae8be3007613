"""A network that takes images as they are: what is inside, and which images are refused rather than misread."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dfnas_ray.errors import ConfigError
from dfnas_ray.training.classifier import ImageClassifier


@pytest.fixture
def classifier():
    """Looks at 4 x 4 pixels of images of up to 6 x 8, and returns the normalised pixels as its logits."""
    return ImageClassifier(nn.Flatten(), (1, 4, 4), [0.5], [0.25], canvas_size=(6, 8))


def test_pixels_are_scaled_and_normalised(classifier):
    images = torch.full((2, 1, 4, 4), 255, dtype=torch.uint8)
    assert torch.equal(classifier(images), torch.full((2, 16), 2.0))  # (1 - 0.5) / 0.25
    assert torch.equal(classifier(images.float() / 255), classifier(images))
    assert torch.equal(classifier(images.double() / 255), classifier(images))


def test_of_a_larger_image_the_centre_is_looked_at(classifier):
    images = torch.randint(0, 256, (2, 1, 6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(classifier(images), classifier(images[:, :, 1:5, 2:6]))
    assert torch.equal(classifier(images[:, :, :5, :7]), classifier(images[:, :, 0:4, 1:5]))  # an odd rest: up and left


@pytest.mark.parametrize("shape", [(1, 1, 7, 8), (1, 1, 6, 9), (1, 1, 3, 4), (1, 3, 4, 4), (1, 4, 4), (64, 64)])
def test_images_of_another_size_are_refused(classifier, shape):
    with pytest.raises(ConfigError, match=r"takes a batch of 1 x 4 x 4 to 1 x 6 x 8"):
        classifier(torch.zeros(shape, dtype=torch.uint8))


def test_a_network_without_canvas_takes_its_input_size_alone():
    with pytest.raises(ConfigError, match=r"takes a batch of 1 x 4 x 4\. Resize"):
        ImageClassifier(nn.Flatten(), (1, 4, 4), [0.5], [0.25])(torch.zeros(1, 1, 5, 4))


def test_floats_of_0_to_255_and_other_integers_are_refused(classifier):
    with pytest.raises(ConfigError, match=r"floats up to 255.*Divide by 255"):
        classifier(torch.full((1, 1, 4, 4), 255.0))
    with pytest.raises(ConfigError, match=r"torch\.int64\. Give uint8"):
        classifier(torch.full((1, 1, 4, 4), 255))
    classifier(torch.full((1, 1, 4, 4), 1.04))  # as bicubic resizing leaves it
    assert classifier(torch.zeros(0, 1, 4, 4)).shape == (0, 16)
