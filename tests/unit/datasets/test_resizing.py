"""Real pictures of another size than the input: what happens to them is a setting, and it is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as T
from PIL import Image
from pydantic import ValidationError

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.datasets.base import to_uint8
from dfnas_ray.datasets.resizing import Resizing
from dfnas_ray.library.networks import TrainedNetwork
from dfnas_ray.search_spaces import make_space
from dfnas_ray.search_spaces.architecture import Architecture
from dfnas_ray.sources.base import SetSize, draw_all
from dfnas_ray.sources.real import RealSource
from dfnas_ray.teachers.base import Teacher, load_teacher
from dfnas_ray.teachers.digits import DigitsCNN
from dfnas_ray.training.evaluation import decode_all
from dfnas_ray.training.export import NetworkDescription
from dfnas_ray.workflow.evaluation import Evaluation
from dfnas_ray.workflow.session import Session

SQUASHED = Resizing(crop=1, squash=True)


def noise(height, width, seed=0):
    """A picture in whose pixels every other treatment shows."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def pixels(image, shape, resizing=None):
    return to_uint8(image, shape, "here", resizing)


@pytest.mark.parametrize(
    ("resizing", "theirs"),
    [
        (None, [T.Resize(37), T.CenterCrop(32)]),  # 32 / 0.875 = 36.57
        (Resizing(crop=1), [T.Resize(32), T.CenterCrop(32)]),
        (SQUASHED, [T.Resize((32, 32))]),
        (Resizing(crop=0.5, squash=True), [T.Resize((64, 64)), T.CenterCrop(32)]),
        (Resizing(crop=0.8, interpolation="bicubic"), [T.Resize(40, T.InterpolationMode.BICUBIC), T.CenterCrop(32)]),
    ],
)
@pytest.mark.parametrize("size", [(64, 64), (64, 96), (20, 20)])
def test_pictures_are_treated_as_by_torchvisions_transforms(resizing, theirs, size):
    picture = noise(*size)
    expected = T.Compose([*theirs, T.PILToTensor()])(picture)
    assert torch.equal(pixels(picture, (3, 32, 32), resizing), expected)


def test_a_picture_of_the_inputs_size_is_left_as_it_is():
    picture = noise(32, 32)
    for resizing in (None, SQUASHED, Resizing(crop=0.5)):
        assert torch.equal(pixels(picture, (3, 32, 32), resizing), T.PILToTensor()(picture))


@pytest.mark.parametrize("wrong", [{"crop": 0}, {"crop": 1.5}, {"interpolation": "cubic"}, {"size": 3}])
def test_other_values_are_refused(wrong):
    with pytest.raises(ValidationError):
        Resizing(**wrong)


class Photos:
    """Two pictures of twice the digits' size."""

    description = "photos"
    fingerprint = "photos"

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return noise(32, 48, index).convert("L"), index


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    return Teacher.from_model(DigitsCNN(4), (1, 16, 16), [0.3], [0.3], resizing=SQUASHED)


def expected_of(image):
    return T.Compose([T.Resize((16, 16)), T.PILToTensor()])(image)


def test_every_way_of_real_pictures_takes_the_teachers_resizing(teacher, tmp_path, monkeypatch):
    dataset = Photos()
    expected = torch.stack([expected_of(dataset[index][0]) for index in range(2)])
    ((images, _),) = decode_all(dataset, teacher)
    assert torch.equal(images, expected)
    source = RealSource(dataset="digits")
    monkeypatch.setattr(RealSource, "opened", lambda *_: dataset)
    drawn = draw_all(teacher, source, SetSize(images=2, rows=2, canvas=(1, 16, 16)), 0, "search.images")
    assert {image.tobytes() for image in drawn.images} == {image.numpy().tobytes() for image in expected}

    space = {"kind": "nasbench_macro", "stem_channels": 4, "stage_channels": [4, 4, 4], "head_channels": 8}
    own = make_space(space, (1, 16, 16), 10)
    genotype = next(iter(own.sample_distinct(np.random.default_rng(0), 1)))
    architecture = Architecture(space, own, genotype)
    network = TrainedNetwork(own.build(genotype), architecture, (1, 16, 16), [0.3], [0.3], resizing=teacher.resizing)
    assert torch.equal(network.prepare(dataset[0][0])[0], expected[0])
    network.save(tmp_path / "network", teacher, ["safetensors"])
    assert torch.equal(TrainedNetwork.load(tmp_path / "network").prepare(dataset[0][0])[0], expected[0])
    described = NetworkDescription.of(architecture, teacher)
    assert described.differs_from(NetworkDescription.of(architecture, replace(teacher, resizing=Resizing())))


def test_what_happens_to_pictures_is_said_once(teacher, caplog):
    for _ in range(2):
        decode_all(Photos(), replace(teacher, resizing=Resizing(interpolation="box")))
    said = "photos: images of another size than the input, 16 x 16, are resized to cover 18 x 18 (box), then cropped to"
    assert caplog.text.count(said) == 1
    assert "set teacher.crop, teacher.squash and teacher.interpolation" in caplog.text
    assert Resizing(crop=1, squash=True).described((16, 20)) == "squashed to 16 x 20 (bilinear)"


def test_settings_of_the_teacher_replace_what_was_found_and_change_no_fingerprint(digits_cache, digits_teacher):
    settings = {"kind": "digits", "crop": 1, "squash": True}
    config = make_experiment({"teacher": settings}).teacher
    loaded = load_teacher(config, digits_cache)
    assert (digits_teacher.resizing, loaded.resizing) == (Resizing(), SQUASHED)
    assert loaded.fingerprint == digits_teacher.fingerprint
    assert config.resizing(Resizing(interpolation="bicubic")).interpolation == "bicubic"
    dumped = make_experiment({"teacher": "digits"}).teacher.model_dump(mode="json")
    assert not {"crop", "squash", "interpolation"} & dumped.keys(), "settings that are not given are in no key"


def test_real_images_that_are_resized_otherwise_have_other_keys(tiny_values, teacher, tmp_path):
    values = {**tiny_values(), "run_dir": str(tmp_path), "evaluation": {"dataset": "digits"}}
    source = RealSource(dataset="digits")

    def keys(resizing):
        session = Session(make_experiment(values), teacher=replace(teacher, resizing=resizing))
        return Evaluation(session, []).inputs(), source.inputs(session.teacher, "search.images")

    assert [inputs["files"] for inputs in keys(Resizing())] == ["built-in", "built-in"]
    assert all("squash" in inputs["files"] for inputs in keys(SQUASHED))
