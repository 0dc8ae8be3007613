"""Regional update."""

from collections import Counter

import pytest
import torch

from dfnas_ray.ops.regions import Region, center_crop, crop, crop_each, draw_places, draw_region


def draw(count, canvas=(6, 7), size=(4, 4), flip_probability=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [draw_region(canvas, size, flip_probability, generator) for _ in range(count)]


def test_every_place_inside_the_canvas_is_drawn_equally_often():
    regions = draw(6_000)
    counts = Counter((region.top, region.left) for region in regions)
    assert set(counts) == {(top, left) for top in range(3) for left in range(4)}
    # 12 places, 500 expected in each, standard deviation 21.4
    assert max(abs(count - 500) for count in counts.values()) < 4 * 21.4


def test_half_of_the_regions_are_mirrored_wherever_they_lie():
    regions = draw(4_000)
    for top in range(3):
        mirrored = [region.mirrored for region in regions if region.top == top]
        assert sum(mirrored) / len(mirrored) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_flip_probability_0_never_mirrors_and_1_always(probability):
    assert {region.mirrored for region in draw(500, flip_probability=probability)} == {bool(probability)}


def test_a_canvas_of_the_inputs_size_has_one_place():
    assert {region[:2] for region in draw(20, canvas=(4, 4))} == {(0, 0)}


def test_the_seed_decides():
    assert draw(50, seed=1) == draw(50, seed=1)
    assert draw(50, seed=1) != draw(50, seed=2)


def test_a_crop_has_the_pixels_of_its_region():
    canvas = torch.arange(20.0).view(1, 1, 4, 5)
    assert crop(canvas, Region(1, 2, mirrored=False), (2, 3))[0, 0].tolist() == [[7, 8, 9], [12, 13, 14]]
    assert crop(canvas, Region(1, 2, mirrored=True), (2, 3))[0, 0].tolist() == [[9, 8, 7], [14, 13, 12]]


def test_only_the_region_receives_gradient_and_mirroring_sends_it_to_the_right_pixel():
    canvas = torch.zeros(1, 1, 3, 4, requires_grad=True)
    weights = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    loss = (crop(canvas, Region(1, 1, mirrored=True), (2, 2)) * weights).sum()
    (gradient,) = torch.autograd.grad(loss, canvas)
    assert gradient[0, 0].tolist() == [[0, 0, 0, 0], [0, 2, 1, 0], [0, 4, 3, 0]]


def test_the_centre_crop_leaves_equal_borders():
    canvas = torch.arange(36.0).view(1, 1, 6, 6)
    assert center_crop(canvas, (2, 4))[0, 0].tolist() == [[13, 14, 15, 16], [19, 20, 21, 22]]
    assert torch.equal(center_crop(canvas, (6, 6)), canvas)


def test_the_centre_crop_of_an_odd_border_is_one_pixel_nearer_to_the_top_left():
    assert center_crop(torch.arange(9.0).view(1, 1, 3, 3), (2, 2))[0, 0].tolist() == [[0, 1], [3, 4]]


def places_crop(canvases, size, flip_probability):
    canvas = tuple(canvases.shape[-2:])
    places = draw_places(len(canvases), canvas, size, flip_probability, torch.Generator().manual_seed(0))
    return crop_each(canvases, places, size)


def test_each_canvas_gets_a_region_of_its_own():
    canvases = torch.arange(2 * 8 * 8, dtype=torch.float32).view(2, 1, 8, 8).expand(2, 3, 8, 8).repeat(50, 1, 1, 1)
    views = places_crop(canvases, (5, 6), 0.0)
    assert views.shape == (100, 3, 5, 6)
    corners = {(int(view[0, 0, 0]) % 64 // 8, int(view[0, 0, 0]) % 8) for view in views}
    assert corners == {(top, left) for top in range(4) for left in range(3)}
    for view, canvas in zip(views, canvases, strict=True):
        top, left = int(view[0, 0, 0] - canvas[0, 0, 0]) // 8, int(view[0, 0, 0] - canvas[0, 0, 0]) % 8
        assert torch.equal(view, canvas[:, top : top + 5, left : left + 6])


def test_every_region_is_mirrored_if_that_is_certain():
    canvases = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    mirrored, plain = (places_crop(canvases, (6, 6), p) for p in (1.0, 0.0))
    assert torch.equal(mirrored, canvases.flip(-1))
    assert torch.equal(plain, canvases)


def test_gradients_reach_the_regions_alone():
    canvases = torch.zeros(1, 1, 6, 6, requires_grad=True)
    places_crop(canvases, (4, 4), 0.5).sum().backward()
    assert canvases.grad.sum() == 16
    assert set(canvases.grad.unique().tolist()) == {0.0, 1.0}
