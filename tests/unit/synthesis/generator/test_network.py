"""The network that makes images: which sizes it can have, and what comes out."""

import pytest
import torch

from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.generator.network import ImageGenerator, channels_of, is_reached, logit_moments, start_size


@pytest.mark.parametrize(
    ("size", "start", "doublings"),
    [
        ((8, 8), (4, 4), 1),
        ((16, 16), (8, 8), 1),
        ((18, 18), (9, 9), 1),
        ((32, 32), (8, 8), 2),
        ((36, 36), (9, 9), 2),
        ((224, 224), (7, 7), 5),
        ((256, 256), (8, 8), 5),
        ((32, 64), (8, 16), 2),
    ],
)
def test_a_canvas_is_reached_by_doubling_a_small_map(size, start, doublings):
    assert start_size(size) == (start, doublings)


@pytest.mark.parametrize(
    ("size", "made"),
    [
        ((33, 33), (36, 36)),
        ((38, 38), (40, 40)),
        ((230, 230), (256, 256)),
        ((9, 9), (10, 10)),
        ((7, 7), (8, 8)),
        ((3, 3), (8, 8)),
        ((136, 176), (144, 176)),  # 9 x 11, doubled four times
        ((37, 51), (40, 56)),
        ((128, 3), (128, 8)),
    ],
)
def test_other_canvases_are_the_middle_of_the_next_larger_map(size, made):
    start, doublings = start_size(size)
    assert tuple(side * 2**doublings for side in start) == made
    assert not is_reached(*size)
    assert is_reached(*made)


SHAPES = [
    (30, 40),
    (33, 47),
    (60, 80),
    (100, 120),
    (120, 160),
    (240, 320),
    (180, 320),
    (480, 640),
    (320, 240),
    (8, 100),
]


@pytest.mark.parametrize(
    "size", [*((side, side) for side in range(1, 65)), *SHAPES], ids=lambda size: "x".join(map(str, size))
)
def test_every_size_has_a_default_canvas_and_a_generator_that_makes_it(size):
    canvas = SynthesisConfig.model_validate({"method": "generator"}).canvas_size(*size)
    assert all(0 <= outer - inner <= min(size) / 2 for outer, inner in zip(canvas, size, strict=True))
    with torch.device("meta"):
        assert ImageGenerator(8, canvas, 4, (0.5,), (0.208,))(torch.randn(2, 8)).shape == (2, 1, *canvas)


def test_pixels_of_a_canvas_that_is_cropped_have_the_spread_of_the_teachers_images():
    torch.manual_seed(0)
    images = ImageGenerator(16, (33, 47), 4, (0.3,), (0.1,))(torch.randn(50, 16)).detach()
    assert float(images.mean()) == pytest.approx(0.3, abs=0.001)
    assert float(images.std()) == pytest.approx(0.1, abs=0.005)


@pytest.mark.parametrize(
    ("channels", "size"), [(1, (18, 18)), (3, (36, 36)), (3, (8, 8)), (3, (32, 64)), (3, (33, 47))]
)
def test_images_have_the_size_that_is_asked_for_and_valid_pixels(channels, size):
    torch.manual_seed(0)
    images = ImageGenerator(16, size, 4, (0.5,) * channels, (0.208,) * channels)(torch.randn(6, 16)).detach()
    assert images.shape == (6, channels, *size)
    assert images.dtype == torch.float32
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    assert 0.15 < float(images.std()) < 0.3  # the sigmoid of a standard normal: 0.208


def test_channels_are_halved_where_the_map_doubles_beyond_32_pixels():
    assert [channels_of(side, 48) for side in (8, 9, 16, 18, 32, 36, 64, 128, 256)] == [
        96,
        96,
        96,
        96,
        48,
        48,
        24,
        12,
        6,
    ]
    small, large = (ImageGenerator(16, (side, side), 48, (0.5,) * 3, (0.2,) * 3) for side in (32, 64))
    assert [layer[0].out_channels for layer in small.doublings] == [96, 48]
    assert [layer[0].out_channels for layer in large.doublings] == [96, 48, 24]


@pytest.mark.parametrize(("mean", "std"), [(0.3056, 0.3187), (0.485, 0.229), (0.1307, 0.26), (0.5, 0.1)])
def test_pixels_have_the_mean_and_the_spread_that_the_teacher_was_trained_with(mean, std):
    torch.manual_seed(0)
    images = ImageGenerator(16, (18, 18), 4, (mean,), (std,))(torch.randn(200, 16)).detach()
    assert float(images.mean()) == pytest.approx(mean, abs=0.03)
    assert float(images.std()) == pytest.approx(std, abs=0.03)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.5, 0.5), (0.498, 0.502), (127.5, 64.0), (0.3, 0.0)])
def test_round_numbers_in_place_of_statistics_are_taken_for_such(mean, std):
    assert logit_moments(mean, std) == (0.0, 1.0)
