"""torchvision's published classifiers, without a network."""

import re
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torch.hub
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from torchvision.models import ResNet18_Weights, WeightsEnum, get_model, get_model_weights, resnet18

from dfnas_ray.datasets.base import to_uint8
from dfnas_ray.datasets.resizing import Resizing
from dfnas_ray.errors import TeacherError
from dfnas_ray.teachers import CheckpointTeacherConfig, DigitsTeacherConfig, TeacherConfig, TorchvisionTeacherConfig
from dfnas_ray.teachers.torchvision_models import build_network, resizing_of

parse = TypeAdapter(TeacherConfig).validate_python


@pytest.fixture(scope="module")
def resnet18_file(tmp_path_factory):
    """A checkpoint of an untrained ResNet-18, and its weights."""
    torch.manual_seed(0)
    model = resnet18()
    path = tmp_path_factory.mktemp("resnet18") / "resnet18.pth"
    torch.save(model.state_dict(), path)
    return path, model.state_dict()


def test_short_forms_stand_for_their_mappings():
    assert parse("torchvision:resnet18") == TorchvisionTeacherConfig(kind="torchvision", name="resnet18")
    assert parse("digits") == DigitsTeacherConfig()
    assert parse({"kind": "torchvision", "name": "resnet18"}) == parse("torchvision:resnet18")


def test_a_parsed_config_passes_unchanged():
    config = DigitsTeacherConfig(width=3)
    assert parse(config) is config


@pytest.mark.parametrize("value", ["tim:resnet18", "resnet18", {"name": "resnet18"}, "torchvision"])
def test_an_unknown_or_incomplete_teacher_is_refused(value):
    with pytest.raises(ValidationError, match=r"kind|name"):
        parse(value)


def test_mappings_choose_the_class_by_kind():
    values = {"kind": "checkpoint", "builder": "a.b:c", "image_shape": [1, 2, 3], "mean": [0], "std": [1]}
    assert isinstance(parse(values), CheckpointTeacherConfig)


def test_a_file_takes_the_place_of_the_download(resnet18_file, tmp_path, monkeypatch):
    path, state = resnet18_file
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", None)  # a download would fail
    teacher = parse({"kind": "torchvision", "name": "resnet18", "checkpoint": str(path)}).load(tmp_path)
    assert (teacher.name, teacher.num_classes, teacher.image_shape) == ("torchvision:resnet18", 1000, (3, 224, 224))
    assert teacher.mean == (0.485, 0.456, 0.406)  # ImageNet's
    assert teacher.std == (0.229, 0.224, 0.225)
    assert torch.equal(teacher.model.fc.weight, state["fc.weight"])
    assert len(teacher.batch_norms()) == 20
    assert teacher.resizing == Resizing()  # 224 of 256, as published


@pytest.mark.parametrize(
    ("name", "weights"),
    [("resnet50", "IMAGENET1K_V2"), ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1"), ("efficientnet_b1", "IMAGENET1K_V1")],
)
def test_pictures_are_resized_as_by_the_published_preset(name, weights):
    preset = get_model_weights(name)[weights].transforms()
    (side,) = preset.crop_size
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8))
    own = to_uint8(picture, (3, side, side), "here", resizing_of(preset))
    mean, std = (torch.tensor(values)[:, None, None] for values in (preset.mean, preset.std))
    torch.testing.assert_close((own / 255 - mean) / std, preset(picture))


def test_without_a_network_the_error_names_the_url_and_the_setting(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    with pytest.raises(TeacherError, match=r"Name or service not known") as raised:
        parse("torchvision:resnet18").load(tmp_path)
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in str(raised.value)
    assert "teacher.checkpoint" in str(raised.value)


def test_a_download_with_the_wrong_hash_is_an_error_that_names_the_url(tmp_path, monkeypatch):
    def corrupt(*args, **kwargs):
        raise RuntimeError('invalid hash value (expected "f37072fd", got "00000000")')  # torch.hub's own words

    monkeypatch.setattr(torch.hub, "download_url_to_file", corrupt)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    with pytest.raises(TeacherError, match=r"resnet18-f37072fd\.pth"):
        parse("torchvision:resnet18").load(tmp_path)


@pytest.mark.parametrize("name", ["resnet19", "fcn_resnet50", "quantized_resnet18"])
def test_a_name_that_is_no_classifier_is_refused(name, tmp_path):
    with pytest.raises(TeacherError, match=f"no classifier called {name}"):
        parse(f"torchvision:{name}").load(tmp_path)


def test_unknown_weights_list_the_known_ones(tmp_path):
    config = TorchvisionTeacherConfig(kind="torchvision", name="resnet50", weights="V2")
    with pytest.raises(TeacherError, match=r"teacher\.weights V2 .*IMAGENET1K_V1, IMAGENET1K_V2"):
        config.load(tmp_path)


def test_the_weights_of_another_model_are_listed_as_unfit(resnet18_file, tmp_path):
    config = TorchvisionTeacherConfig(kind="torchvision", name="resnet34", checkpoint=resnet18_file[0])
    with pytest.raises(TeacherError, match=r"resnet18\.pth does not fit.*missing: layer1\.2") as raised:
        config.load(tmp_path)
    assert "teacher.name (resnet34)" in str(raised.value)
    assert "teacher.checkpoint" in str(raised.value)
    assert "teacher.builder" not in str(raised.value)


def test_weights_trained_on_for_other_classes_need_their_number(tmp_path):
    torch.manual_seed(0)
    model = resnet18(num_classes=10)
    torch.save(model.state_dict(), tmp_path / "own.pth")
    given = {"kind": "torchvision", "name": "resnet18", "checkpoint": str(tmp_path / "own.pth")}
    with pytest.raises(
        TeacherError, match=r"of another shape: fc\.weight .* or teacher\.num_classes to the number of classes"
    ):
        parse(given).load(tmp_path)
    teacher = parse({**given, "num_classes": 10}).load(tmp_path)
    assert (teacher.num_classes, teacher.image_shape, teacher.mean) == (10, (3, 224, 224), (0.485, 0.456, 0.406))
    assert teacher.class_names is None  # they are not ImageNet's
    own = {"image_shape": [3, 32, 32], "mean": [0.5] * 3, "std": [0.25] * 3}
    teacher = parse({**given, "num_classes": 10, **own}).load(tmp_path)
    assert (teacher.image_shape, teacher.mean, teacher.std) == ((3, 32, 32), (0.5,) * 3, (0.25,) * 3)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(teacher.model(x), model.eval()(x))


def test_published_weights_have_the_number_of_classes_that_they_have(tmp_path):
    with pytest.raises(
        TeacherError, match=r"teacher\.num_classes \(10\).* have 1000 classes\. Remove it, or set teacher\.chec"
    ):
        parse({"kind": "torchvision", "name": "resnet18", "num_classes": 10}).load(tmp_path)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "densenet121"])
def test_a_network_computes_as_torchvisions_own_with_published_weights(name, tmp_path, monkeypatch):
    """Weights as they are published, not as the network calls them, and inputs as it was trained on them."""
    torch.manual_seed(0)
    extra = {} if name == "densenet121" else {"init_weights": False}
    state = get_model(name, weights=None, **extra).state_dict()
    if name == "densenet121":  # the file is older: other names, and no counters
        state = {
            re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): value
            for key, value in state.items()
            if not key.endswith("num_batches_tracked")
        }
        assert "features.denseblock1.denselayer1.norm.1.weight" in state
    file = tmp_path / "weights.pth"
    torch.save(state, file)
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, *args, **kwargs: dict(state))
    own = get_model(name, weights="DEFAULT").eval()
    teacher = parse({"kind": "torchvision", "name": name, "checkpoint": str(file)}).load(tmp_path)
    x = torch.randn(2, *teacher.image_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(teacher.model(x), own(x))


def test_a_vision_transformer_has_the_size_of_its_weights():
    weights = get_model_weights("vit_b_16")["IMAGENET1K_SWAG_E2E_V1"]
    with torch.device("meta"):
        assert build_network("vit_b_16", weights).image_size == 384
        assert build_network("vit_b_16", weights, image_size=32).image_size == 32
