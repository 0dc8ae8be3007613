"""One generator at work: what it learns from, what the student does, and how it goes on."""

import copy
from types import SimpleNamespace

import psutil
import pytest
import torch

from dfnas_ray.errors import SynthesisError
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.generator.stream import Stream
from dfnas_ray.synthesis.labels import class_of_slots
from dfnas_ray.testing.small import small_teacher

CPU = torch.device("cpu")
STUDENT = {"warmup_batches": 1, "steps": 2, "batch_size": 8}


def make_stream(method=None, batches=4, **settings):
    values = {
        "num_shards": 1,
        "images_per_shard": 20 * batches,
        "canvas_margin": 2,
        "precision": "float32",
        "compile": False,
        "method": {"kind": "generator", "batch_size": 20, "width": 4, "student": STUDENT, **(method or {})},
        **settings,
    }
    config = SynthesisConfig.model_validate(values)
    return Stream(small_teacher(), config, config.method, CPU, 0, 0)


def run(stream, batches):
    classes = class_of_slots(0, 20 * batches, 10, 0).split(20)
    return [stream.make_batch(batch, lambda images: None) for batch in classes]


def weights(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


def moved(before, module):
    return [not torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True)]


@pytest.mark.parametrize(("rate", "learns"), [(0.0, False), (0.5, True)])
def test_the_generator_keeps_its_share_of_what_a_batch_changed(rate, learns):
    stream = make_stream({"meta_rate": rate})
    before = weights(stream.generator)
    run(stream, 1)
    assert any(moved(before, stream.generator)) == learns


def test_with_a_meta_rate_of_1_the_generator_is_the_adapted_copy():
    half, whole = make_stream({"meta_rate": 0.5}), make_stream({"meta_rate": 1.0})
    start = weights(half.generator)
    run(half, 1)
    run(whole, 1)
    for first, some, everything in zip(start, half.generator.parameters(), whole.generator.parameters(), strict=True):
        torch.testing.assert_close(some, (first + everything) / 2)


def test_the_student_joins_after_the_warm_up_and_its_steps_are_counted():
    stream = make_stream()
    assert stream.student is not None
    before, steps = weights(stream.student.model), []
    stream.make_batch(class_of_slots(0, 20, 10, 0), steps.append)
    assert not any(moved(before, stream.student.model))
    assert sum(steps) == 5 * 20
    made = stream.make_batch(class_of_slots(20, 20, 10, 0), steps.append)
    assert any(moved(before, stream.student.model))
    assert sum(steps) == 2 * 5 * 20 + 2 * 8
    assert made.losses["student"] > 0


def test_the_term_that_looks_at_the_student_waits_for_it():
    stream = make_stream(regularizers={"adversarial": {"weight": 1.0}})
    first, second, third = run(stream, 3)
    assert "adversarial" not in first.losses
    assert "adversarial" not in second.losses, "the student has learned nothing before this batch"
    assert third.losses["adversarial"] <= 0


def test_the_curve_says_on_which_share_of_a_batch_student_and_teacher_differ():
    stream = make_stream()
    first, second = run(stream, 2)
    assert "student_differs" not in first.losses
    assert 0 <= second.losses["student_differs"] <= 1
    assert (second.losses["student_differs"] * 20) % 1 == pytest.approx(0, abs=1e-4)


def test_the_statistics_of_the_batches_before_are_averaged_by_hand():
    stream = make_stream({"bn_momentum": 0.75})
    (first,) = run(stream, 1)
    layer = stream.observed(stream.teacher.normalize(first.canvases[..., 1:17, 1:17]))[1][0].x
    torch.testing.assert_close(stream.past[0].mean, layer.mean((0, 2, 3)))
    before = copy.deepcopy(stream.past[0])
    second = stream.make_batch(class_of_slots(20, 20, 10, 0), lambda images: None)
    layer = stream.observed(stream.teacher.normalize(second.canvases[..., 1:17, 1:17]))[1][0].x
    torch.testing.assert_close(stream.past[0].mean, 0.75 * before.mean + 0.25 * layer.mean((0, 2, 3)))
    variance = layer.var((0, 2, 3), correction=0)
    torch.testing.assert_close(stream.past[0].var, 0.75 * before.var + 0.25 * variance)


def test_soft_labels_are_asked_for_from_the_second_batch_on_in_classes_that_the_first_has():
    stream = make_stream({"calibrated": 1.0})
    first, second = run(stream, 2)
    assert not first.is_calibrated.any()
    classes = class_of_slots(20, 20, 10, 0)
    assert torch.equal(second.is_calibrated, torch.isin(classes, first.logits.argmax(1)))
    assert second.is_calibrated.any()


def test_a_soft_label_has_the_class_asked_for_and_comes_from_any_image_of_it():
    stream = make_stream({"calibrated": 1.0})
    run(stream, 1)
    stream.logits[:20] = torch.randn(20, 10, generator=torch.Generator().manual_seed(0)) - 9 * torch.eye(10)[7]
    stream.logits[20:] = 9 * torch.eye(10)[7]  # not made yet
    classes = torch.arange(10).repeat(100)
    targets, is_calibrated = stream._targets(classes, torch.Generator().manual_seed(1))
    assert torch.equal(targets.argmax(1), classes)
    present = stream.logits[:20].argmax(1)
    assert torch.equal(is_calibrated, torch.isin(classes, present))
    assert torch.equal(targets[~is_calibrated], torch.eye(10)[classes[~is_calibrated]])
    assert (classes[~is_calibrated] == 7).any(), "a class without an image"
    asked_for = {tuple(target.tolist()) for target in targets[is_calibrated]}
    assert asked_for == {tuple(target.tolist()) for target in stream.logits[:20].softmax(1)}


def test_without_soft_labels_nothing_is_drawn_for_them():
    stream = make_stream()
    run(stream, 1)
    random, expected = (torch.Generator().manual_seed(0) for _ in range(2))
    stream._targets(torch.arange(10), random)
    torch.rand(10, generator=expected)  # which of them are soft
    assert torch.equal(random.get_state(), expected.get_state())


def test_a_loss_that_is_not_finite_names_batch_and_setting():
    stream = make_stream()
    with torch.no_grad():
        next(stream.generator.parameters()).fill_(float("nan"))
    with pytest.raises(SynthesisError, match=r"not finite in batch 0: .*Lower synthesis\.method\.lr"):
        run(stream, 1)


def test_a_pool_that_does_not_fit_is_refused_with_its_size_and_the_settings(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1e8))
    with pytest.raises(
        SynthesisError,
        match=r"hold 1,000,000 images of 1x18x18: 364 MB, and 100 MB are free.*synthesis\.method\.pool_limit",
    ):
        make_stream(batches=50_000)


def test_a_limited_pool_holds_the_latest_images():
    stream = make_stream({"pool_limit": 50})
    made = run(stream, 4)
    latest = torch.cat([batch.canvases for batch in made])[-50:]
    assert stream.pool_size == 50
    assert {image.numpy().tobytes() for image in stream.canvases} == {image.numpy().tobytes() for image in latest}


def test_a_student_that_diverges_is_named_with_its_setting():
    stream = make_stream()
    run(stream, 1)
    with torch.no_grad():
        next(stream.student.model.parameters()).fill_(float("nan"))
    with pytest.raises(
        SynthesisError, match=r"not finite after batch 1\. Lower synthesis\.method\.student\.optimizer\.lr"
    ):
        stream.make_batch(class_of_slots(20, 20, 10, 0), lambda images: None)


def test_a_compiled_student_learns_and_steers_as_it_would_without(graphs):
    plain, compiled = make_stream(), make_stream({"student": {**STUDENT, "compile": True}})
    for made, expected in zip(run(compiled, 4), run(plain, 4), strict=True):
        assert torch.equal(made.canvases, expected.canvases)
        assert made.losses == expected.losses
    assert len(graphs) == 2, "the student and the teacher that labels its images, once each"


def test_a_compiled_student_goes_on_after_a_break(graphs):
    method = {"student": {**STUDENT, "compile": True}}
    whole, first = make_stream(method), make_stream(method)
    expected = run(whole, 4)[2:]
    classes = class_of_slots(0, 80, 10, 0).split(20)
    made = [first.make_batch(batch, lambda images: None) for batch in classes[:2]]
    second = make_stream(method)
    second.load(first.state(), [batch.canvases for batch in made], [batch.logits for batch in made])
    for batch, other in zip(classes[2:], expected, strict=True):
        again = second.make_batch(batch, lambda images: None)
        assert torch.equal(again.canvases, other.canvases)
        assert again.losses == other.losses
