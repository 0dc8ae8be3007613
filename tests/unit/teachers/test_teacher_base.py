"""The frozen teacher, its input statistics and its fingerprint."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from dfnas_ray.errors import TeacherError
from dfnas_ray.ops.cost import Cost
from dfnas_ray.teachers.base import freeze_teacher


def linear(in_features=12, num_classes=5):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(in_features, num_classes))


def freeze(model, image_shape=(3, 2, 2), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), num_classes=None):
    return freeze_teacher("mine", model, image_shape, mean, std, num_classes)


def test_freezing_sets_evaluation_mode_and_stops_gradients():
    teacher = freeze(linear().train())
    assert not teacher.model.training
    assert not any(p.requires_grad for p in teacher.model.parameters())


def test_the_number_of_classes_is_found_by_trying():
    assert freeze(linear(num_classes=5)).num_classes == 5
    assert freeze(linear(num_classes=5), num_classes=5).num_classes == 5


def test_another_number_of_classes_names_both_and_the_value_to_set():
    with pytest.raises(TeacherError, match=r"teacher\.num_classes is 7, but teacher mine has 5 outputs.* set 5"):
        freeze(linear(num_classes=5), num_classes=7)


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.5,) * 3), ((0.5,) * 3, (0.5,) * 2)])
def test_statistics_need_one_number_per_channel(mean, std):
    with pytest.raises(TeacherError, match=r"one number for each of the 3 channels .*\(3, 2, 2\)"):
        freeze(linear(), mean=mean, std=std)


def test_a_standard_deviation_of_zero_is_refused():
    with pytest.raises(TeacherError, match=r"teacher\.std"):
        freeze(linear(), std=(0.5, 0.0, 0.5))


def test_a_model_for_another_size_names_the_shape():
    with pytest.raises(TeacherError, match=r"mine does not take images of teacher\.image_shape \(3, 4, 4\)"):
        freeze(linear(in_features=12), image_shape=(3, 4, 4))


class Asserting(nn.Module):
    """Checks its input's size by an assertion, as torchvision's VisionTransformer does."""

    def forward(self, x):
        torch._assert(x.shape[-1] == 8, "Wrong image width!")
        return x.flatten(1)


def test_a_model_that_asserts_its_size_names_the_shape_too():
    with pytest.raises(TeacherError, match=r"does not take images of teacher\.image_shape .*Wrong image width!"):
        freeze(Asserting())


class Returns(nn.Module):
    """Returns a given function of its input."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x: x, r"\(3, 3, 2, 2\)"),
        (lambda x: x.sum((1, 2, 3)), r"\(3,\)"),
        (lambda x: (x, None), r"tuple with 0 \(3, 3, 2, 2\)"),
        (lambda x: {"logits": x}, r"dict with logits"),
        (lambda x: "cat", "str"),
    ],
)
def test_a_model_that_does_not_return_logits_is_refused(function, named):
    with pytest.raises(TeacherError, match=rf"must return logits \(B, num_classes\).* it returned {named}"):
        freeze(Returns(function))


def test_normalize_maps_grey_levels_by_hand():
    teacher = freeze(linear(), mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    # (0 - 0) / 1, (1 - 0.5) / 0.5, (0.2 - 1) / 0.25
    assert teacher.normalize(images).flatten().tolist() == pytest.approx([0.0, 1.0, -3.2])


def test_denormalize_rounds_to_the_nearest_level_and_clamps():
    teacher = freeze(linear(), mean=(0.0,) * 3, std=(1.0,) * 3)
    x = torch.tensor([-0.1, 100.4 / 255, 100.6 / 255, 1.1, 1.0, 0.0]).view(2, 3, 1, 1)
    assert teacher.denormalize(x).flatten().tolist() == [0, 100, 101, 255, 255, 0]


def test_denormalize_undoes_normalize_at_every_level():
    teacher = freeze(linear(), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    levels = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 1, 1)
    assert torch.equal(teacher.denormalize(teacher.normalize(levels)), levels)


def test_the_fingerprint_is_a_sha256_that_equal_teachers_share():
    one, other = freeze(linear()), freeze(linear())
    assert one.fingerprint == other.fingerprint
    assert len(one.fingerprint) == 64
    assert set(one.fingerprint) <= set("0123456789abcdef")


def test_the_fingerprint_ignores_the_name():
    teacher = freeze(linear())
    assert replace(teacher, name="other").fingerprint == teacher.fingerprint


def test_the_fingerprint_changes_with_one_weight():
    altered = linear()
    with torch.no_grad():
        altered[1].weight[0, 0] += 1e-6
    assert freeze(altered).fingerprint != freeze(linear()).fingerprint


def test_the_fingerprint_changes_with_a_running_statistic():
    def model(value):
        torch.manual_seed(0)
        bn = nn.BatchNorm2d(3)
        bn.running_mean[1] = value
        return nn.Sequential(bn, linear())

    assert freeze(model(0.0)).fingerprint != freeze(model(0.1)).fingerprint


@pytest.mark.parametrize("change", [{"mean": (0.5, 0.5, 0.4)}, {"std": (0.5, 0.5, 0.4)}])
def test_the_fingerprint_changes_with_the_input_statistics(change):
    assert freeze(linear(), **change).fingerprint != freeze(linear()).fingerprint


def test_the_fingerprint_does_not_depend_on_memory_layout():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Flatten())
    before = freeze(model).fingerprint
    assert freeze(model.to(memory_format=torch.channels_last)).fingerprint == before


def test_batch_norms_lists_only_those_with_running_statistics():
    model = nn.Sequential(
        nn.BatchNorm2d(3),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.Flatten(),
        nn.BatchNorm1d(12),
        nn.LayerNorm(12),
    )
    assert [name for name, _ in freeze(model).batch_norms()] == ["0", "3"]


def test_cost_counts_the_model():
    assert freeze(linear(12, 5)).cost == Cost(params=65, macs=60)


class Shifted(nn.Module):
    """Subtracts a mean of its own, kept in one way or another."""

    def __init__(self, is_buffer):
        super().__init__()
        if is_buffer:
            self.register_buffer("offset", torch.ones(1), persistent=False)
        else:
            self.offset = torch.ones(1)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        return self.head((x - self.offset).flatten(1))


def test_a_tensor_that_would_stay_behind_is_named():
    with pytest.raises(
        TeacherError, match=r"offset is a tensor, but neither a parameter nor a buffer.*register_buffer"
    ):
        freeze(nn.Sequential(Shifted(is_buffer=False)))
    assert freeze(Shifted(is_buffer=True)).cost.macs == 60


class Decides(nn.Module):
    """Looks at the values of its input, and keeps it: its own business."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        self.last = x
        return self.head(x.flatten(1)) * (2 if x.sum().item() > 0 else 1)


def test_a_model_that_looks_at_values_is_counted_all_the_same():
    assert freeze(Decides()).cost.macs == 60


def test_what_built_a_model_is_part_of_its_fingerprint():
    def fingerprint(origin=""):
        return freeze_teacher("mine", linear(), (3, 2, 2), (0.5,) * 3, (0.5,) * 3, origin=origin).fingerprint

    assert fingerprint() == fingerprint()
    assert len({fingerprint(), fingerprint("a:build(1)"), fingerprint("a:build(2)")}) == 3
