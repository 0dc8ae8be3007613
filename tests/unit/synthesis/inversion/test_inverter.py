"""Model inversion of one batch."""

import itertools
import math

import pytest
import torch
from torch import nn

from dfnas_ray.errors import SynthesisError
from dfnas_ray.synthesis.inversion.inverter import Inverter, learning_rate
from dfnas_ray.synthesis.inversion.synthesizer import InversionConfig
from dfnas_ray.synthesis.labels import one_hot_targets
from dfnas_ray.synthesis.settings import SetSettings

CPU = torch.device("cpu")
TARGETS = one_hot_targets(torch.tensor([3, 7]), 10)


def make_inverter(teacher, scales=((2, 2), (1, 3)), lr=0.25, **changes):
    settings = SetSettings.model_validate({"compile": False, "precision": "float32", **changes})
    schedule = [{"scale": scale, "steps": steps} for scale, steps in scales]
    return Inverter(teacher, settings, InversionConfig(warmup_steps=0, scales=schedule, lr=lr), CPU)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Recording:
    """Stands in for the objective: notes what it is called with and returns a loss of its own."""

    def __init__(self, loss):
        self.loss, self.images, self.targets = loss, [], []

    def __call__(self, images, targets, step):
        self.images.append(images.detach().clone())
        self.targets.append(targets)
        return {"total": self.loss(images)}


# learning rate


def test_the_learning_rate_warms_up_linearly_and_falls_as_a_cosine():
    rates = [learning_rate(step, steps=12, warmup=4, peak=0.8) for step in range(12)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4] == pytest.approx(0.8)  # the cosine starts at the peak
    assert rates[8] == pytest.approx(0.4)  # half-way
    assert rates[6] == pytest.approx(0.4 * (1 + math.sqrt(0.5)))
    assert rates[10] == pytest.approx(0.4 * (1 - math.sqrt(0.5)))
    assert all(a > b > 0 for a, b in itertools.pairwise(rates[4:]))


def test_without_warm_up_the_first_step_is_at_the_peak():
    assert learning_rate(0, steps=10, warmup=0, peak=0.25) == pytest.approx(0.25)
    assert learning_rate(10, steps=10, warmup=0, peak=0.25) == pytest.approx(0.0)


# the canvas


def test_canvases_are_larger_than_the_input_and_finished_as_uint8(tiny_teacher):
    images, _ = make_inverter(tiny_teacher, canvas_margin=6).invert(TARGETS, generator())
    assert tuple(images.shape) == (2, 1, 22, 22)
    assert images.dtype == torch.uint8
    assert images.device.type == "cpu"


def test_scales_show_the_teacher_half_and_then_full_size(tiny_teacher):
    inverter = make_inverter(tiny_teacher, scales=((2, 2), (1, 3)), canvas_margin=4)
    inverter.objective = Recording(lambda images: images.sum())
    inverter.invert(TARGETS, generator())
    assert [tuple(images.shape[1:]) for images in inverter.objective.images] == [(1, 8, 8)] * 2 + [(1, 16, 16)] * 3
    assert all(torch.equal(targets, TARGETS) for targets in inverter.objective.targets)


def test_half_size_is_the_averages_of_2x2_pixels(tiny_teacher):
    inverter = make_inverter(tiny_teacher, scales=((2, 1), (1, 1)), canvas_margin=0, flip_probability=0)
    inverter.objective = Recording(lambda images: images.sum())
    inverter.invert(TARGETS, generator(4))
    noise = torch.randn(2, 1, 16, 16, generator=generator(4))
    blocks = noise.view(2, 1, 8, 2, 8, 2).mean((3, 5))
    torch.testing.assert_close(inverter.objective.images[0], blocks)


def test_a_step_moves_the_pixels_of_one_region_and_no_other(make_teacher, tiny_teacher):
    # std 0.1: pixels reach 5 normalised units, so the noise is not clamped. Adam's first step is lr for every pixel with
    # gradient: 0.4 * 0.1 * 255 = 10.2 grey levels.
    teacher = make_teacher(tiny_teacher.model, std=0.1)
    inverter = make_inverter(teacher, scales=((1, 1),), canvas_margin=8, lr=0.4)
    inverter.objective = Recording(lambda images: images.sum())
    draws = generator(2)
    images, _ = inverter.invert(TARGETS, draws)
    before = teacher.denormalize(torch.randn(2, 1, 24, 24, generator=generator(2)))
    moved = before.int() - images.int()
    inside = moved[0, 0] != 0
    rows, columns = inside.any(1).nonzero().flatten(), inside.any(0).nonzero().flatten()
    assert inside.sum() == 16 * 16
    assert (rows[-1] - rows[0], columns[-1] - columns[0]) == (15, 15)
    assert torch.equal(moved[1, 0] != 0, inside)  # one region for the batch
    assert moved[:, :, inside].min() >= 10
    assert moved[:, :, inside].max() <= 11


def test_regions_change_from_step_to_step_and_reach_the_whole_canvas(make_teacher, tiny_teacher):
    teacher = make_teacher(tiny_teacher.model, std=0.1)
    inverter = make_inverter(teacher, scales=((1, 200),), canvas_margin=4, lr=0.1)
    inverter.objective = Recording(lambda images: images.sum())
    images, _ = inverter.invert(TARGETS, generator(2))
    before = teacher.denormalize(torch.randn(2, 1, 20, 20, generator=generator(2)))
    assert (images != before).all()


def test_half_of_the_steps_are_mirrored_unless_told_otherwise(tiny_teacher):
    # A loss that pulls the left half of what the teacher sees to white and the right half to black
    sides = torch.ones(16)
    sides[:8] = -1

    def contrast(flip_probability):
        inverter = make_inverter(
            tiny_teacher, scales=((1, 60),), canvas_margin=0, flip_probability=flip_probability, lr=0.05
        )
        inverter.objective = Recording(lambda images: (images * sides).sum())
        images, _ = inverter.invert(TARGETS, generator())
        return images[..., :8].float().mean().item() - images[..., 8:].float().mean().item()

    assert contrast(0.0) > 150
    assert contrast(1.0) < -150
    assert abs(contrast(0.5)) < 100


def test_after_every_step_the_canvas_lies_in_the_range_of_valid_pixels(make_teacher, tiny_teacher):
    teacher = make_teacher(tiny_teacher.model, mean=0.4, std=0.2)
    inverter = make_inverter(teacher, scales=((1, 6),), canvas_margin=0, flip_probability=0, lr=10.0)
    inverter.objective = Recording(lambda images: (images * torch.linspace(-1, 1, 16)).sum())
    images, _ = inverter.invert(TARGETS, generator())
    for seen in inverter.objective.images[1:]:  # the first is noise
        assert seen.min().item() >= -0.4 / 0.2 - 1e-6
        assert seen.max().item() <= 0.6 / 0.2 + 1e-6
    assert inverter.objective.images[-1].min().item() == pytest.approx(-2.0)
    assert inverter.objective.images[-1].max().item() == pytest.approx(3.0)
    assert set(images.unique().tolist()) <= {0, 255}


def test_each_scale_starts_with_a_fresh_optimizer(tiny_teacher, monkeypatch):
    counts, original = [], torch.optim.Adam.step

    def step(optimizer):
        original(optimizer)
        (state,) = optimizer.state.values()
        group = optimizer.param_groups[0]
        counts.append((int(state["step"]), group["betas"], group["lr"]))

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    inverter = make_inverter(tiny_teacher, scales=((2, 2), (2, 1), (1, 1)), lr=0.1)
    inverter.invert(TARGETS, generator())
    lowered = 0.1 * 0.5 * (1 + math.cos(math.pi / 2))
    assert counts == [(number, (0.5, 0.9), lr) for number, lr in ((1, 0.1), (2, lowered), (1, 0.1), (1, 0.1))]


# what comes out


def test_the_same_generator_gives_the_same_bytes_and_another_gives_others(tiny_teacher):
    inverter = make_inverter(tiny_teacher)
    first, curve = inverter.invert(TARGETS, generator(1))
    inverter.invert(TARGETS.flip(0), generator(9))  # whatever ran before
    torch.manual_seed(123)
    again, same_curve = inverter.invert(TARGETS, generator(1))
    assert torch.equal(first, again)
    assert curve == same_curve
    assert not torch.equal(first, inverter.invert(TARGETS, generator(2))[0])


def test_every_step_is_reported_with_its_images(tiny_teacher):
    steps = []
    make_inverter(tiny_teacher, scales=((2, 2), (1, 3))).invert(TARGETS, generator(), steps.append)
    assert steps == [2] * 5


def test_the_curve_counts_steps_through_all_scales_and_holds_every_term(tiny_teacher):
    _, curve = make_inverter(tiny_teacher, scales=((2, 90), (1, 3))).invert(TARGETS, generator())
    steps = [point.step for point in curve]
    assert steps == [*range(0, 90, 2), 89, 90, 91, 92]  # every 90 // 40 = 2nd, and each scale's last
    assert set(curve[0].losses) == {"cross_entropy", "bn_statistics", "total_variation", "l2", "total"}


def test_labels_are_the_teachers_logits_on_the_centre(tiny_teacher):
    images = torch.randint(0, 256, (3, 1, 20, 20), dtype=torch.uint8, generator=generator())
    logits = make_inverter(tiny_teacher, canvas_margin=4).label(images)
    with torch.no_grad():
        expected = tiny_teacher.model((images[:, :, 2:18, 2:18].float() / 255 - 0.5) / 0.25)
    torch.testing.assert_close(logits, expected)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad


def test_bfloat16_synthesizes_too(tiny_teacher):
    images, curve = make_inverter(tiny_teacher, precision="bfloat16").invert(TARGETS, generator())
    assert tuple(images.shape) == (2, 1, 18, 18)
    assert all(math.isfinite(point.losses["total"]) for point in curve)


def test_the_trained_teacher_recognises_what_it_made_and_its_statistics_match(digits_teacher):
    classes = torch.arange(20) % 10
    inverter = make_inverter(
        digits_teacher,
        scales=((2, 30), (1, 60)),
        lr=0.1,
        flip_probability=0,
        regularizers={"bn_statistics": {"weight": 1.0, "first_layer_multiplier": 1.0}},
    )
    images, curve = inverter.invert(one_hot_targets(classes, 10), generator())
    noise = torch.randint(0, 256, images.shape, dtype=torch.uint8, generator=generator())
    agreement = [(inverter.label(x).argmax(1) == classes).float().mean().item() for x in (noise, images)]
    assert agreement[0] < 0.4
    assert agreement[1] >= 0.9
    assert curve[-1].losses["bn_statistics"] < 0.5 * curve[0].losses["bn_statistics"]


# errors


class FixedSize(nn.Module):
    """Takes 16x16 images and nothing else."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm2d(1)
        self.head = nn.Linear(256, 10)

    def forward(self, x):
        return self.head(self.norm(x).flatten(1))


class AssertsItsSize(FixedSize):
    """Refuses another size by an assertion, as torchvision's VisionTransformer does."""

    def forward(self, x):
        torch._assert(x.shape[-1] == 16, "Wrong image width!")
        return super().forward(x)


@pytest.mark.parametrize("model", [FixedSize, AssertsItsSize])
def test_a_teacher_that_cannot_take_half_size_names_the_scales(make_teacher, model):
    with pytest.raises(SynthesisError, match=r"Teacher fixed does not take images of 8x8.*synthesis\.method\.scales"):
        make_inverter(make_teacher(model(), name="fixed"))


def test_a_teacher_of_fixed_size_works_at_a_single_scale(make_teacher):
    images, _ = make_inverter(make_teacher(FixedSize()), scales=((1, 2),)).invert(TARGETS, generator())
    assert tuple(images.shape) == (2, 1, 18, 18)


def test_memory_that_runs_out_is_not_blamed_on_the_teacher(tiny_teacher):
    inverter = make_inverter(tiny_teacher, scales=((2, 1), (1, 1)))

    def out_of_memory(images):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    inverter.objective = Recording(out_of_memory)
    with pytest.raises((torch.OutOfMemoryError, SynthesisError), match="out of memory") as raised:
        inverter.invert(TARGETS, generator())
    assert "does not take images" not in str(raised.value)


def test_an_input_that_the_scales_do_not_divide_is_a_synthesis_error(make_teacher, tiny_teacher):
    teacher = make_teacher(tiny_teacher.model, image_shape=(1, 15, 15))
    with pytest.raises(SynthesisError, match=r"the input 15x15 cannot be divided"):
        make_inverter(teacher)


def test_a_loss_that_is_not_finite_names_the_step_and_the_terms(tiny_teacher):
    inverter = make_inverter(tiny_teacher, scales=((1, 3),))
    inverter.objective = Recording(
        lambda images: images.sum() * (float("nan") if len(inverter.objective.images) == 2 else 1)
    )
    with pytest.raises(SynthesisError, match=r"not finite at step 1: \{'total': nan\}.*synthesis\.method\.lr"):
        inverter.invert(TARGETS, generator())
