"""One shard through all rounds of label calibration."""

import copy
import math

import numpy as np
import pytest
import torch

from dfnas_ray.errors import SynthesisError
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.inversion.synthesizer import InversionConfig

CPU = torch.device("cpu")
MARGIN = 4


def synthesize_shard(inversion, seed, shard, on_steps=lambda images: None):
    *_, made = inversion.make(seed, shard, on_steps=on_steps)
    return made


def make_inversion(teacher, images_per_shard=20, **changes):
    values = {
        "batch_size": 10,
        "rounds": 2,
        "warmup_steps": 0,
        "scales": [{"scale": 2, "steps": 1}, {"scale": 1, "steps": 2}],
    }
    method = InversionConfig.model_validate(values | changes)
    settings = SynthesisConfig(
        images_per_shard=images_per_shard, method=method, canvas_margin=MARGIN, precision="float32", compile=False
    )
    return method.synthesizer(teacher, settings, CPU)


def assert_bitwise_equal(one, other):
    for name in ("images", "labels", "rounds", "logits"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name
    assert one.curves == other.curves


def observe_targets(inverter):
    """Return a list that each call of its invert() adds its targets to."""
    seen, original = [], inverter.invert

    def invert(targets, *args):
        seen.append(targets.clone())
        return original(targets, *args)

    inverter.invert = invert
    return seen


@pytest.fixture
def inversion(tiny_teacher):
    """Two rounds of two batches of ten."""
    return make_inversion(tiny_teacher)


def test_a_shard_has_its_rows_by_round_and_then_by_slot(inversion):
    shard = synthesize_shard(inversion, seed=0, shard=0)
    assert (shard.images.shape, shard.images.dtype) == ((40, 1, 20, 20), np.uint8)
    assert (shard.logits.shape, shard.logits.dtype) == ((40, 10), np.float32)
    assert (shard.labels.dtype, shard.rounds.dtype) == (np.int64, np.int64)
    assert shard.rounds.tolist() == [0] * 20 + [1] * 20
    assert shard.labels[:20].tolist() == shard.labels[20:].tolist()
    assert len(shard.curves) == 2


def test_a_shard_is_the_same_bytes_whatever_ran_before(tiny_teacher, inversion):
    first = synthesize_shard(inversion, seed=0, shard=1)
    other = synthesize_shard(inversion, seed=0, shard=2)
    torch.manual_seed(99)
    torch.rand(7)
    assert_bitwise_equal(synthesize_shard(inversion, seed=0, shard=1), first)
    assert_bitwise_equal(synthesize_shard(make_inversion(tiny_teacher), seed=0, shard=1), first)
    assert not np.array_equal(first.images, other.images)


def test_another_seed_gives_another_shard(inversion):
    one, other = (synthesize_shard(inversion, seed=seed, shard=1) for seed in (0, 1))
    assert not np.array_equal(one.images, other.images)


def test_shards_batches_and_rounds_start_from_noise_of_their_own(tiny_teacher):
    # With a vanishing step size the images are the noise they started from.
    inversion = make_inversion(tiny_teacher, lr=1e-12)
    parts = []
    for number in range(2):
        shard = synthesize_shard(inversion, seed=0, shard=number)
        parts += [rows.astype(float).ravel() for rows in np.split(shard.images, 4)]  # 2 rounds of 2 batches
    correlation = np.corrcoef(parts)
    assert np.abs(correlation - np.eye(8)).max() < 0.1  # 4,000 pixels: standard deviation 0.016


def test_classes_are_balanced_in_each_round(inversion):
    shard = synthesize_shard(inversion, seed=0, shard=3)
    for rounds in (0, 1):
        assert np.bincount(shard.labels[shard.rounds == rounds], minlength=10).tolist() == [2] * 10


def test_small_shards_are_balanced_together(tiny_teacher):
    inversion = make_inversion(tiny_teacher, images_per_shard=4, batch_size=4, rounds=1)
    labels = np.concatenate([synthesize_shard(inversion, seed=0, shard=number).labels for number in range(5)])
    assert np.bincount(labels, minlength=10).tolist() == [2] * 10


def test_stored_logits_are_the_teachers_on_the_stored_centres(tiny_teacher, inversion):
    shard = synthesize_shard(inversion, seed=0, shard=0)
    border = MARGIN // 2
    centres = torch.from_numpy(shard.images[:, :, border:-border, border:-border].astype(np.float32)) / 255
    with torch.no_grad():
        expected = tiny_teacher.model((centres - 0.5) / 0.25)
    np.testing.assert_allclose(shard.logits, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_round_0_asks_for_the_labels_and_later_rounds_for_what_the_teacher_saw(tiny_teacher):
    inversion = make_inversion(tiny_teacher, rounds=3, tau=2.0)
    seen = observe_targets(inversion.inverter)
    shard = synthesize_shard(inversion, seed=0, shard=0)
    targets = torch.cat(seen).view(3, 20, 10).numpy()
    assert np.array_equal(targets[0], np.eye(10, dtype=np.float32)[shard.labels[:20]])
    for later in (1, 2):
        z = np.exp(shard.logits[shard.rounds == later - 1].astype(float) / 2.0)
        np.testing.assert_allclose(targets[later], z / z.sum(1, keepdims=True), rtol=1e-4, atol=1e-6)


def test_keep_last_stores_the_last_round_of_the_same_recursion(tiny_teacher, inversion):
    whole = synthesize_shard(inversion, seed=0, shard=0)
    last = synthesize_shard(make_inversion(tiny_teacher, keep="last"), seed=0, shard=0)
    assert last.rounds.tolist() == [1] * 20
    for name in ("images", "labels", "logits"):
        assert np.array_equal(getattr(last, name), getattr(whole, name)[20:]), name
    assert last.curves == whole.curves  # of every round all the same


@pytest.mark.parametrize("keep", ["all", "last"])
def test_after_each_round_there_is_what_a_shard_of_so_many_rounds_would_be(tiny_teacher, keep):
    made = list(make_inversion(tiny_teacher, rounds=3, keep=keep).make(seed=0, shard=1))
    assert len(made) == 3
    for rounds, images in enumerate(made, start=1):
        alone = synthesize_shard(make_inversion(tiny_teacher, rounds=rounds, keep=keep), seed=0, shard=1)
        assert_bitwise_equal(images, alone)
        assert len(images.curves) == rounds


def test_the_work_reported_is_the_work_configured(inversion):
    steps = []
    synthesize_shard(inversion, seed=0, shard=0, on_steps=steps.append)
    assert sum(steps) == inversion.settings.image_steps([0]) == 20 * 2 * 3


def test_the_curve_of_a_round_is_the_mean_over_its_batches(inversion):
    original, curves = inversion.inverter.invert, []

    def invert(*args):
        images, curve = original(*args)
        curves.append(curve)
        return images, curve

    inversion.inverter.invert = invert
    shard = synthesize_shard(inversion, seed=0, shard=0)
    first, second = curves[:2]
    assert [point.step for point in shard.curves[0]] == [0, 1, 2]
    for point, a, b in zip(shard.curves[0], first, second, strict=True):
        assert point.losses["total"] == pytest.approx((a.losses["total"] + b.losses["total"]) / 2, abs=1e-6)


def test_a_loss_that_is_not_finite_names_the_shard_and_the_round(tiny_teacher):
    inversion = make_inversion(tiny_teacher)
    with torch.no_grad():
        inversion.inverter.objective.model.model.classifier.weight.fill_(math.nan)
    with pytest.raises(SynthesisError, match=r"^Shard 7, round 0: .*not finite"):
        synthesize_shard(inversion, seed=0, shard=7)


def test_the_users_model_is_left_as_it_was(tiny_teacher):
    model = tiny_teacher.model
    before = copy.deepcopy(model.state_dict())
    synthesize_shard(make_inversion(tiny_teacher), seed=0, shard=0)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert not model.training
