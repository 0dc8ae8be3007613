"""Networks of the field through the public surface: the right number, or one sentence, and never a wrong number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import dfnas_ray as dfnas
from dfnas_ray.errors import ConfigError, SynthesisError, TeacherError
from dfnas_ray.teachers.base import Teacher, freeze_teacher
from dfnas_ray.training.batches import Batch
from dfnas_ray.training.config import OptimizerConfig
from dfnas_ray.training.student import Student

SHAPE = (3, 8, 8)
SMALL = {
    "compile": False,
    "precision": "float32",
    "method": {
        "kind": "inversion", "batch_size": 8, "rounds": 1, "scales": [{"scale": 1, "steps": 5}], "warmup_steps": 1,
    },
}  # fmt: skip


class Plain(nn.Module):
    """What the others below are, but for one habit."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
            self.classifier = nn.Linear(6, 4)

    def prepared(self, x):
        return x

    def head(self, x):
        return self.classifier(x.mean((2, 3)))

    def forward(self, x):
        return self.head(self.features(self.prepared(x)))


def teacher_of(model, **given):
    return Teacher.from_model(model, SHAPE, **{"mean": (0.5,) * 3, "std": (0.25,) * 3, **given})


def images_of(model, **given):
    """Return pixels and logits of a small synthetic set."""
    made = dfnas.synthesize(model if isinstance(model, Teacher) else teacher_of(model, **given), 8, **SMALL)
    return made.data.images, made.data.logits


@pytest.fixture(scope="module")
def expected():
    return images_of(Plain())


def assert_same(found, expected):
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4, atol=1e-5)


# What a network may do with its input, its answer and itself


class ScalesLargeInputs(Plain):
    """Changes its input in place, and only where it is large: what it is tried with is not."""

    def prepared(self, x):
        return x.mul_(0.5) if x.max() > 2.1 else x


class ScalesLargeInputsOutOfPlace(Plain):
    def prepared(self, x):
        return x * 0.5 if x.max() > 2.1 else x


class ErasesTheInputBefore(Plain):
    def forward(self, x):
        if "before" in self.__dict__:
            self.__dict__["before"].zero_()
        self.__dict__["before"] = x
        return super().forward(x)


class OneAnswerForAll(Plain):
    """Writes each answer over the last."""

    def __init__(self):
        super().__init__()
        self.out = torch.zeros(8, 4)

    def forward(self, x):
        logits = super().forward(x)
        return logits if torch.is_grad_enabled() else self.out[: len(x)].copy_(logits)


class KeepsItsFeatures(Plain):
    def head(self, x):
        self.seen, self.all = x, {"features": [x]}
        return super().head(x)


class TrainReturnsNothing(Plain):
    def train(self, mode=True):
        super().train(mode)


class TrainsAlways(Plain):
    def train(self, mode=True):
        return super().train(True)


class CountsInABuffer(Plain):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def head(self, x):
        self.calls += 1
        return super().head(x) * self.calls


class Seeds(Plain):
    def forward(self, x):
        torch.manual_seed(0)
        return super().forward(x)


class WideNumbers(Plain):
    def forward(self, x):
        torch.set_default_dtype(torch.float64)
        return super().forward(x)


class WithUnusedHeads(Plain):
    """Auxiliary heads come last, and only training calls them."""

    def __init__(self):
        super().__init__()
        self.auxiliary = nn.Linear(6, 4)

    def forward(self, x):
        features = self.features(x)
        if not self.training:
            return self.head(features)
        return self.head(features), self.auxiliary(features.mean((2, 3))), None


class Named(Plain):
    def forward(self, x):
        features = self.features(x)
        return {"features": features, "logits": self.head(features)}


class WithNone(Plain):
    def forward(self, x):
        return super().forward(x), None


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (ErasesTheInputBefore, "changes its input in place"),
        (OneAnswerForAll, "overwrites its last output with each new one"),
        (KeepsItsFeatures, ""),
        (TrainReturnsNothing, ""),
        (TrainsAlways, ""),
        (CountsInABuffer, "changes its own buffers with every call (calls)"),
        (Seeds, "seeds the random numbers of the whole program"),
        (WideNumbers, "changes torch's default type of numbers for the whole program"),
        (WithUnusedHeads, ""),
        (Named, ""),
        (WithNone, ""),
        (lambda: nn.DataParallel(Plain()), ""),
        (lambda: torch.compile(Plain()), ""),
        (lambda: nn.SyncBatchNorm.convert_sync_batchnorm(Plain()), ""),
    ],
)
def test_images_and_labels_are_those_of_the_same_network_without_the_habit(kind, said, expected, caplog):
    assert_same(images_of(kind()), expected)
    assert said in caplog.text
    assert torch.get_default_dtype() == torch.float32


def test_inputs_that_are_changed_now_and_then_are_copies_too():
    assert_same(images_of(ScalesLargeInputs()), images_of(ScalesLargeInputsOutOfPlace()))


def test_a_network_that_was_called_with_a_gradient_before_is_copied():
    model = KeepsItsFeatures().eval()
    model(torch.randn(2, *SHAPE))
    teacher_of(model)
    with_norm = Plain()
    with_norm.features[0] = nn.utils.weight_norm(with_norm.features[0])
    x = torch.randn(2, *SHAPE)
    torch.testing.assert_close(teacher_of(with_norm).model(x), with_norm.eval()(x))


def test_seeds_of_a_network_leave_the_random_numbers_of_others_alone():
    teacher = teacher_of(Seeds())
    drawn = []
    for seed in (5, 6):
        torch.manual_seed(seed)
        teacher.model(torch.zeros(1, *SHAPE))
        drawn.append(float(torch.rand(())))
    assert drawn[0] != drawn[1]


class Spoils(nn.Module):
    """A network of the user's that leaves nothing of its input."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        logits = self.inner(x.clone())
        x.fill_(7)
        return logits


class Squares:
    """Images of brightness 60 k and class k."""

    description = "squares"

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return Image.new("RGB", SHAPE[1:], (60 * (index % 4),) * 3), index % 4


class ByBrightness(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("levels", (torch.arange(4) * 60 / 255 - 0.5) / 0.25)

    def forward(self, x):
        return -(x.mean((1, 2, 3))[:, None] - self.levels).abs()


def test_what_one_network_does_to_its_input_is_not_measured_on_the_next():
    networks = {"first": Spoils(ByBrightness()), "second": ByBrightness()}
    found = dfnas.evaluate(teacher_of(Spoils(ByBrightness())), networks, Squares())
    assert found == {"teacher": 1.0, "first": 1.0, "second": 1.0}


class Renamed(nn.Module):
    """Answers as Hugging Face's networks do, with other things beside."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return {"loss": None, "logits": self.inner(x), "hidden": x}


def test_networks_of_the_user_may_have_several_answers_and_must_know_the_same_classes():
    teacher = teacher_of(ByBrightness())
    assert dfnas.evaluate(teacher, Renamed(ByBrightness()), Squares())["network"] == 1.0
    with pytest.raises(ConfigError, match=r"networks\.network returns \(40, 192\), and the teacher has 4 classes"):
        dfnas.evaluate(teacher, nn.Flatten(), Squares())


class Counting(Plain):
    """Keeps something beside its tensors."""

    def get_extra_state(self):
        return {"seen": 7}

    def set_extra_state(self, extra):
        self.seen = extra["seen"]


def test_an_extra_state_is_part_of_the_fingerprint(expected):
    teacher = teacher_of(Counting())
    assert teacher.fingerprint == teacher_of(Counting()).fingerprint
    assert_same(images_of(teacher), expected)


# What cannot be inverted


class ToNumPy(Plain):
    def prepared(self, x):
        return torch.from_numpy(x.numpy().copy())


class Data(Plain):
    def prepared(self, x):
        return x.data


class InInferenceMode(Plain):
    def forward(self, x):
        with torch.inference_mode():
            return super().forward(x)


class BackboneWithoutGradient(Plain):
    def forward(self, x):
        with torch.no_grad():
            features = self.features(x)
        return self.head(features)


class GradientsOff(Plain):
    def forward(self, x):
        torch.set_grad_enabled(False)
        return super().forward(x)


class _WithoutGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return (8 * x).round() / 8

    @staticmethod
    def backward(ctx, gradient):
        return None


class Quantizes(Plain):
    def prepared(self, x):
        return _WithoutGradient.apply(x)


def quantized():
    model = nn.Sequential(Plain(), nn.Linear(4, 4))
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)


@pytest.mark.parametrize(
    "kind", [BackboneWithoutGradient, ToNumPy, Data, InInferenceMode, GradientsOff, Quantizes, quantized]
)
def test_what_cannot_be_inverted_is_said_and_gradients_stay_on(kind):
    with pytest.raises(SynthesisError, match=r"cannot be inverted: no gradient reaches its input"):
        images_of(kind())
    assert torch.is_grad_enabled()


class TakesPixels(Plain):
    """Does by itself what other teachers leave to their mean and standard deviation."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def prepared(self, x):
        return (x / self.scale - 0.5) / 0.25


@pytest.mark.parametrize("scale", [1, 255])
def test_a_teacher_that_takes_pixels_has_the_images_of_one_that_takes_standard_scores(scale, expected):
    pixels, _ = images_of(TakesPixels(scale), mean=(0.0,) * 3, std=(1 / scale,) * 3)
    assert abs(pixels.astype(int) - expected[0]).mean() < 1
    assert 20 < pixels.std() < 110


def test_images_that_come_to_nothing_stop_the_work():
    method = {**SMALL["method"], "lr": 1e-9, "scales": [{"scale": 1, "steps": 20}]}
    with pytest.raises(SynthesisError, match=r"The first 8 images came to nothing: .* Is synthesis\.method\.lr right"):
        dfnas.synthesize(teacher_of(Plain()), 8, **{**SMALL, "method": method})


def test_a_batch_of_one_value_per_channel_says_what_to_raise():
    student = Student(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(2), nn.Linear(2, 2)), OptimizerConfig(), 4.0, 1)
    with pytest.raises(
        ConfigError, match=r"A batch of 1 image leaves BatchNorm one value per channel.* Raise the batch_size"
    ):
        student.step(Batch(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2)))


# Answers


class TwoAnswers(Plain):
    def forward(self, x):
        features = self.features(x)
        return self.head(features), features.mean((2, 3))


def test_logits_among_several_answers_are_told_by_their_number(expected, caplog):
    with pytest.raises(TeacherError, match=r"several outputs: 0 \(3, 4\), 1 \(3, 6\)\. .* set teacher\.num_classes"):
        teacher_of(TwoAnswers())
    assert_same(images_of(TwoAnswers(), num_classes=4), expected)
    assert "0 is used as its logits" in caplog.text


class Percent(Plain):
    def forward(self, x):
        return 100 * super().forward(x).softmax(1)


class FarFromZero(Plain):
    """A lower precision would round the differences of its logits away."""

    def forward(self, x):
        return super().forward(x) / 20 + 300


def test_percentages_are_no_logits_and_large_ones_are_some(caplog):
    with pytest.raises(TeacherError, match="returns probabilities"):
        teacher_of(Percent())
    teacher, x = teacher_of(FarFromZero()), torch.randn(4, *SHAPE)
    assert "does not compute in bfloat16" in caplog.text
    expected = FarFromZero().eval()(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(teacher.model(x), expected, rtol=0, atol=1e-4)


class RefersToTheOriginal(Plain):
    def __init__(self):
        super().__init__()
        self.kept = {}
        self.features.register_forward_hook(lambda module, inputs, output: self.kept.update(features=output))

    def forward(self, x):
        self.features(x)
        return self.head(self.kept["features"])


def test_a_copy_that_answers_differently_is_refused():
    with pytest.raises(TeacherError, match="A copy of teacher mine answers differently"):
        freeze_teacher("mine", RefersToTheOriginal(), SHAPE, (0.5,) * 3, (0.25,) * 3)


def test_a_torchscript_program_is_named():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    with pytest.raises(TeacherError, match="is a TorchScript program"):
        teacher_of(torch.jit.script(model))


class LooksAtValues(Plain):
    def prepared(self, x):
        return 0.9 * x if float(x.abs().max()) > 3 else x


def test_a_teacher_that_looks_at_values_can_be_aligned_with():
    teacher = teacher_of(LooksAtValues())
    images = dfnas.synthesize(teacher, 32, **{**SMALL, "method": {**SMALL["method"], "batch_size": 32}})
    found = dfnas.search(
        teacher, images,
        space={"kind": "nasbench_macro", "stem_channels": 4, "stage_layers": [1], "stage_channels": [8], "head_channels": 8},
        algorithm={"kind": "alignment", "steps": 1, "batches": 1, "batch_size": 4, "validation_batches": 1},
        selection={"finalists": 1},
    )  # fmt: skip
    assert found.architecture.text


def test_a_generator_has_a_student_of_a_teacher_with_auxiliary_heads():
    method = {
        "kind": "generator", "batch_size": 8, "width": 8, "adaptation_steps": 1,
        "student": {"steps": 1, "batch_size": 8, "warmup_batches": 0},
    }  # fmt: skip
    made = dfnas.synthesize(teacher_of(WithUnusedHeads()), 16, compile=False, precision="float32", method=method)
    assert len(made) == 16


def test_a_network_without_parameters_has_images():
    made = dfnas.synthesize(teacher_of(ByBrightness()), 8, regularizers={"bn_statistics": {"weight": 0}}, **SMALL)
    assert made.data.logits.shape == (8, 4)


def test_a_network_that_takes_no_image_alone_has_a_cost():
    layers = [nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    teacher = teacher_of(nn.Sequential(*layers, nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 4)))
    assert teacher.cost.macs == 36 * 3 * 9 * 6 + 6 * 4


def test_a_batch_norm_whose_statistics_were_taken_away_has_none():
    model = Plain()
    model.features[1].running_mean = model.features[1].running_var = None
    with pytest.raises(SynthesisError, match="has no BatchNorm layer with running statistics"):
        images_of(model)


# What a fingerprint is made of


class WithValue(Plain):
    def __init__(self, value):
        super().__init__()
        self.value = value


class WithHiddenBuffer(Plain):
    def __init__(self, value):
        super().__init__()
        self.register_buffer("shift", torch.full((1,), value), persistent=False)


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (WithValue, (1.0, 2.0)),
        (WithValue, (F.relu, F.gelu)),
        (WithValue, ([1, {"a": 2}], [1, {"a": 3}])),
        (WithValue, (torch.zeros(2), torch.ones(2))),
        (WithValue, (lambda x: x, lambda x: 2 * x)),
        (WithHiddenBuffer, (0.0, 1.0)),
    ],
)
def test_values_beside_the_weights_make_another_teacher(make, values):
    first, again, other = (teacher_of(make(value)).fingerprint for value in (values[0], values[0], values[1]))
    assert first == again != other


def test_what_a_network_keeps_of_its_calls_is_no_part_of_it():
    assert teacher_of(KeepsItsFeatures()).fingerprint == teacher_of(KeepsItsFeatures()).fingerprint


class DropsRarely(Plain):
    def prepared(self, x):
        return x if torch.rand(()) > 0.001 else 0 * x


class DrawsWithNumPy(Plain):
    def prepared(self, x):
        return x + 0.1 * float(np.random.rand())


@pytest.mark.parametrize(
    ("kind", "said"), [(DropsRarely, "draws random numbers"), (DrawsWithNumPy, "differently each time")]
)
def test_chance_is_noticed_however_rare_and_whoever_draws(kind, said, caplog):
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    teacher_of(kind())
    assert said in caplog.text
    assert (np.random.get_state()[1] == before).all()


# Numbers


class WithMask(Plain):
    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", torch.tensor([0.0, mask]))

    def head(self, x):
        return super().head(x) * self.mask.softmax(0)[0]


def test_a_mask_may_be_infinite_and_nothing_may_be_nan(expected):
    assert_same(images_of(WithMask(-torch.inf)), expected)
    with pytest.raises(TeacherError, match=r"NaN or infinite: mask\. .* never filled"):
        teacher_of(WithMask(torch.nan))


def test_numbers_beyond_float32_and_variances_of_any_layer_are_named():
    from torchvision.ops import FrozenBatchNorm2d

    large, frozen = Plain().double(), Plain()
    large.classifier.weight.data[0, 0] = 1e300
    with pytest.raises(TeacherError, match=r"NaN or infinite: classifier\.weight"):
        teacher_of(large)
    frozen.features[1] = FrozenBatchNorm2d(6)
    frozen.features[1].running_var.fill_(-1)
    with pytest.raises(TeacherError, match=r"negative variances: features\.1\.running_var"):
        teacher_of(frozen)


def test_height_width_channels_is_told_as_the_wrong_order():
    with pytest.raises(TeacherError, match=r"Its order is channels, height, width: \(3, 8, 8\)"):
        Teacher.from_model(Plain(), (8, 8, 3), (0.5,) * 3, (0.25,) * 3)


def test_a_network_on_the_meta_device_is_named():
    with torch.device("meta"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    with pytest.raises(TeacherError, match=r"on the meta device, which hold no values: 1\.weight"):
        teacher_of(model)
