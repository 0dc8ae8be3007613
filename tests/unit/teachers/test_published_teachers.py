"""Teachers of timm and of Hugging Face transformers, with random weights and without a network."""

from __future__ import annotations

import builtins
import json

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter
from small_transformers import PROCESSOR, save_small_resnet

from dfnas_ray.datasets.base import to_uint8
from dfnas_ray.datasets.resizing import Resizing
from dfnas_ray.errors import TeacherError
from dfnas_ray.teachers import TeacherConfig
from dfnas_ray.teachers.fresh import why_not_fresh

parse = TypeAdapter(TeacherConfig).validate_python


@pytest.fixture(scope="module")
def small_resnet(tmp_path_factory):
    return save_small_resnet(tmp_path_factory.mktemp("hf") / "small")


@pytest.fixture(scope="module")
def timm_file(tmp_path_factory):
    """Weights of timm's smallest ResNet."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("timm") / "test_resnet.pt"
    torch.save(timm.create_model("test_resnet").state_dict(), file)
    return file


def test_short_forms_stand_for_their_mappings():
    assert parse("timm:resnet18.a1_in1k") == parse({"kind": "timm", "name": "resnet18.a1_in1k"})
    assert parse("huggingface:microsoft/resnet-18") == parse({"kind": "huggingface", "name": "microsoft/resnet-18"})


@pytest.mark.parametrize(("kind", "package"), [("timm", "timm"), ("huggingface", "transformers")])
def test_a_package_that_is_missing_is_one_sentence_with_the_extra(kind, package, tmp_path, monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(TeacherError, match=rf"needs {package}.*pip install 'dfnas-ray\[{kind}\]'"):
        parse(f"{kind}:x").load(tmp_path)


# timm


def test_a_timm_model_knows_its_input_and_imagenets_names(timm_file, tmp_path):
    teacher = parse({"kind": "timm", "name": "test_resnet", "checkpoint": str(timm_file)}).load(tmp_path)
    assert (teacher.name, teacher.num_classes, teacher.image_shape) == ("timm:test_resnet", 1000, (3, 160, 160))
    assert (teacher.mean, teacher.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # its own, not ImageNet's
    assert teacher.class_names is not None
    assert teacher.class_names[:2] == ("tench", "goldfish")
    assert torch.equal(teacher.model.fc.weight, torch.load(timm_file)["fc.weight"])
    assert why_not_fresh(teacher.model) == ""  # a generator's student can be made of it


def picture(height=40, width=40):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize("change", [{}, {"crop_pct": 0.8, "interpolation": "bicubic"}, {"crop_mode": "squash"}])
def test_pictures_are_resized_as_by_timm(timm_file, tmp_path, monkeypatch, change):
    timm = pytest.importorskip("timm")
    real = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **given: real(name, pretrained_cfg_overlay=change, **given))
    teacher = parse({"kind": "timm", "name": "test_resnet", "checkpoint": str(timm_file)}).load(tmp_path)
    theirs = timm.data.create_transform(**timm.data.resolve_data_config(model=teacher.model))
    original = picture(240, 300 if teacher.resizing.squash else 240)
    own = teacher.normalize(to_uint8(original, teacher.image_shape, "here", teacher.resizing)[None])[0]
    torch.testing.assert_close(own, theirs(original))


def test_a_timm_model_of_ones_own_classes_channels_and_statistics(tmp_path):
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("test_resnet", num_classes=7, in_chans=1).state_dict(), tmp_path / "own.pt")
    own = {"num_classes": 7, "arguments": {"in_chans": 1}, "mean": [0.3], "std": [0.4], "image_shape": [1, 32, 32]}
    teacher = parse({"kind": "timm", "name": "test_resnet", "checkpoint": str(tmp_path / "own.pt"), **own}).load(
        tmp_path
    )
    assert (teacher.num_classes, teacher.image_shape, teacher.mean) == (7, (1, 32, 32), (0.3,))
    assert teacher.class_names is None  # they are not ImageNet's
    del own["num_classes"]
    with pytest.raises(TeacherError, match=r"of another shape: fc\.weight .*teacher\.num_classes"):
        parse({"kind": "timm", "name": "test_resnet", "checkpoint": str(tmp_path / "own.pt"), **own}).load(tmp_path)


def test_a_published_timm_model_has_the_classes_that_it_was_trained_for(tmp_path):
    pytest.importorskip("timm")
    for given in ({"num_classes": 7}, {"arguments": {"num_classes": 7}}):
        with pytest.raises(
            TeacherError, match=r"teacher\.num_classes \(7\): the published weights .* have 1000 classes"
        ):
            parse({"kind": "timm", "name": "test_resnet", **given}).load(tmp_path)


def test_an_unknown_timm_model_names_its_neighbours(tmp_path):
    pytest.importorskip("timm")
    with pytest.raises(TeacherError, match=r"no model called resnet19\. Did you mean .*resnet1"):
        parse("timm:resnet19").load(tmp_path)


def test_arguments_that_timm_does_not_take_are_one_error(timm_file, tmp_path):
    config = parse({"kind": "timm", "name": "test_resnet", "arguments": {"depth": 3}, "checkpoint": str(timm_file)})
    with pytest.raises(TeacherError, match=r"teacher\.arguments \{'depth': 3\}.*depth"):
        config.load(tmp_path)


def test_timm_weights_that_cannot_be_downloaded_name_the_address_and_the_setting(tmp_path, monkeypatch):
    pytest.importorskip("timm")
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def refuse(*args, **kwargs):
        raise LocalEntryNotFoundError("Please check your connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args: None)
    with pytest.raises(
        TeacherError, match=r"timm:test_resnet cannot be loaded \(Please check your connection\)"
    ) as raised:
        parse("timm:test_resnet").load(tmp_path)
    assert "https://huggingface.co/timm/test_resnet" in str(raised.value)
    assert "teacher.checkpoint" in str(raised.value)


def test_timm_weights_in_the_hubs_cache_need_no_network(timm_file, tmp_path, monkeypatch):
    pytest.importorskip("timm")
    import huggingface_hub
    from safetensors.torch import save_file

    state = torch.load(timm_file)
    save_file(state, tmp_path / "model.safetensors")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args: str(tmp_path / "model.safetensors"))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", None)  # would fail
    teacher = parse("timm:test_resnet").load(tmp_path)
    assert torch.equal(teacher.model.fc.weight, state["fc.weight"])


def test_published_timm_weights_have_their_own_number_of_classes(tmp_path):
    pytest.importorskip("timm")
    with pytest.raises(TeacherError, match=r"teacher\.num_classes \(7\): the published weights .* 1000 classes"):
        parse({"kind": "timm", "name": "test_resnet", "num_classes": 7}).load(tmp_path)


# Hugging Face


def test_a_folder_of_transformers_is_a_teacher(small_resnet, tmp_path):
    for config in ({"name": "org/model", "checkpoint": str(small_resnet)}, {"name": str(small_resnet)}):
        teacher = parse({"kind": "huggingface", **config}).load(tmp_path)
        assert teacher.name in ("huggingface:model", "huggingface:small")
        assert (teacher.num_classes, teacher.image_shape) == (3, (3, 24, 24))
        assert (teacher.mean, teacher.std) == ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
        assert teacher.class_names == ("cat", "dog", "crane")
        assert len(teacher.batch_norms()) == 6
        assert why_not_fresh(teacher.model) == ""


def test_it_computes_as_transformers_own(small_resnet, tmp_path):
    transformers = pytest.importorskip("transformers")
    own = transformers.ResNetForImageClassification.from_pretrained(small_resnet).eval()
    teacher = parse({"kind": "huggingface", "name": "x", "checkpoint": str(small_resnet)}).load(tmp_path)
    x = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(teacher.model(x), own(x).logits)


def test_what_the_files_do_not_say_is_asked_for(tmp_path):
    folder = save_small_resnet(tmp_path / "bare", None, id2label=None)
    source = {"kind": "huggingface", "name": "bare", "checkpoint": str(folder)}
    with pytest.raises(TeacherError, match=r"does not state its image_shape\. Set teacher\.image_shape"):
        parse(source).load(tmp_path)
    given = {"image_shape": [3, 20, 20], "mean": [0.5] * 3, "std": [0.5] * 3}
    teacher = parse({**source, **given}).load(tmp_path)
    assert (teacher.image_shape, teacher.class_names) == ((3, 20, 20), None)  # LABEL_0 is no name


@pytest.mark.parametrize(
    ("change", "shape", "mean"),
    [
        ({"size": {"height": 20, "width": 28}}, (3, 20, 28), (0.5, 0.4, 0.3)),
        ({"do_center_crop": True, "crop_size": 16}, (3, 16, 16), (0.5, 0.4, 0.3)),
        ({"do_normalize": False}, (3, 24, 24), (0.0, 0.0, 0.0)),
        ({"image_mean": 0.5, "image_std": 0.5}, (3, 24, 24), (0.5, 0.5, 0.5)),
    ],
)
def test_the_image_processor_says_size_and_statistics(change, shape, mean, tmp_path):
    folder = save_small_resnet(tmp_path / "small", {**PROCESSOR, **change})
    teacher = parse({"kind": "huggingface", "name": "x", "checkpoint": str(folder)}).load(tmp_path)
    assert (teacher.image_shape, teacher.mean) == (shape, mean)


VIT = {**PROCESSOR, "image_processor_type": "ViTImageProcessor", "size": {"height": 24, "width": 24}}
EFFICIENTNET = {**VIT, "image_processor_type": "EfficientNetImageProcessor"}


@pytest.mark.parametrize(
    ("processor", "mean", "std"),
    [
        (EFFICIENTNET, (0.5, 0.4, 0.3), (0.04, 0.0625, 0.09)),  # its include_top is true: divided by std twice
        ({**EFFICIENTNET, "include_top": False}, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)),
        ({**EFFICIENTNET, "do_normalize": False}, (0.0, 0.0, 0.0), (0.2, 0.25, 0.3)),
        # 2 x - 1 - mean, over std: (x - (1 + mean) / 2) / (std / 2)
        (
            {**EFFICIENTNET, "rescale_factor": 1 / 127.5, "rescale_offset": True, "include_top": False},
            (0.75, 0.7, 0.65),
            (0.1, 0.125, 0.15),
        ),
        (
            {**EFFICIENTNET, "rescale_factor": 1 / 127.5, "rescale_offset": True},
            (0.75, 0.7, 0.65),
            (0.02, 0.03125, 0.045),
        ),
        ({**VIT, "rescale_factor": 1 / 127.5}, (0.25, 0.2, 0.15), (0.1, 0.125, 0.15)),
        ({**VIT, "rescale_factor": 1 / 127.5, "do_normalize": False}, (0.0, 0.0, 0.0), (0.5, 0.5, 0.5)),
        ({**VIT, "do_rescale": False, "image_mean": [127.5] * 3, "image_std": [51.0] * 3}, (0.5,) * 3, (0.2,) * 3),
        ({**VIT, "rescale_factor": 0.0039215686}, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)),
        ({**VIT, "include_top": True, "rescale_offset": True}, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)),  # not its own
    ],
)
def test_all_that_the_image_processor_does_to_pixels_is_in_mean_and_std(processor, mean, std, tmp_path):
    transformers = pytest.importorskip("transformers")  # an extra, which dev brings: CI never skips this
    folder = save_small_resnet(tmp_path / "small", processor)
    teacher = parse({"kind": "huggingface", "name": "x", "checkpoint": str(folder)}).load(tmp_path)
    assert teacher.mean == pytest.approx(mean)
    assert teacher.std == pytest.approx(std)
    image = torch.randint(0, 256, (3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    theirs = transformers.AutoImageProcessor.from_pretrained(folder)(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(teacher.normalize(image[None]), theirs, rtol=1e-5, atol=1e-5)


CROPPED = {"do_center_crop": True, "crop_size": {"height": 24, "width": 24}}


@pytest.mark.parametrize(
    ("processor", "resizing"),
    [
        (VIT, Resizing(crop=1, squash=True)),
        ({**VIT, "resample": 3}, Resizing(crop=1, squash=True, interpolation="bicubic")),
        ({**PROCESSOR, "crop_pct": 0.75}, Resizing(crop=0.75)),
        ({**PROCESSOR, "crop_pct": 0.75, "size": {"shortest_edge": 384}}, Resizing(crop=1, squash=True)),
        (
            {**VIT, "image_processor_type": "CLIPImageProcessor", **CROPPED, "size": {"shortest_edge": 32}},
            Resizing(crop=0.75),
        ),
        (
            {**VIT, "image_processor_type": "DeiTImageProcessor", **CROPPED, "size": {"height": 30, "width": 30}},
            Resizing(crop=0.8, squash=True),
        ),
        ({**VIT, "do_resize": False}, Resizing()),
        ({**VIT, "size": {"height": 24, "width": 24}, "resample": "x"}, Resizing(crop=1, squash=True)),
        ({**VIT, **CROPPED, "size": {"shortest_edge": 12}}, Resizing()),  # the crop would be padded
    ],
)
def test_the_image_processor_says_how_pictures_are_resized(processor, resizing, tmp_path):
    folder = save_small_resnet(tmp_path / "small", processor)
    teacher = parse({"kind": "huggingface", "name": "x", "checkpoint": str(folder)}).load(tmp_path)
    assert teacher.resizing == resizing


@pytest.mark.parametrize("processor", [{**VIT, "resample": 2}, {**PROCESSOR, "crop_pct": 0.75, "resample": 3}])
def test_pictures_are_resized_as_by_the_image_processor(processor, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = save_small_resnet(tmp_path / "small", processor)
    teacher = parse({"kind": "huggingface", "name": "x", "checkpoint": str(folder)}).load(tmp_path)
    theirs = transformers.AutoImageProcessor.from_pretrained(folder)(picture(), return_tensors="pt")["pixel_values"]
    own = teacher.normalize(to_uint8(picture(), teacher.image_shape, "here", teacher.resizing)[None])
    assert (own - theirs).abs().mean() < 0.02  # one grey level; other treatments differ by half a standard deviation


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (
            {**PROCESSOR, "do_flip_channel_order": True},
            r"turns RGB into BGR \(do_flip_channel_order: true\).*x\.flip\(1\)",
        ),
        ({"image_processor_type": "MobileViTImageProcessor", "size": 24}, r"do_flip_channel_order: true"),
        ({"feature_extractor_type": "ImageGPTFeatureExtractor", "size": 24}, r"numbers of clusters .*takes pixels"),
        ({**PROCESSOR, "do_grayscale": True}, r"do_grayscale: true"),
    ],
)
def test_colours_that_no_mean_and_std_can_give_are_refused(processor, message, tmp_path):
    folder = save_small_resnet(tmp_path / "small", processor)
    config = {"kind": "huggingface", "name": "x", "checkpoint": str(folder)}
    for given in ({}, {"image_shape": [3, 24, 24], "mean": [0.5] * 3, "std": [0.5] * 3}):
        with pytest.raises(TeacherError, match=message):
            parse({**config, **given}).load(tmp_path)


@pytest.mark.parametrize("factor", [0, -1, None, "1/255", True])
def test_a_rescale_factor_that_is_no_number_above_0_is_named(factor, tmp_path):
    folder = save_small_resnet(tmp_path / "small", {**PROCESSOR, "rescale_factor": factor})
    config = {"kind": "huggingface", "name": "x", "checkpoint": str(folder)}
    with pytest.raises(
        TeacherError, match=r"rescale_factor .*must be a number above 0.*teacher\.mean and teacher\.std"
    ):
        parse(config).load(tmp_path)
    assert parse({**config, "mean": [0.5] * 3, "std": [0.25] * 3}).load(tmp_path).std == (0.25,) * 3


def test_a_model_without_a_trained_classifier_is_refused(small_resnet, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "backbone"
    transformers.ResNetModel(transformers.ResNetConfig.from_pretrained(small_resnet)).save_pretrained(folder)
    with pytest.raises(TeacherError, match=r"no weights for \d+ parts .*classifier.*would be random"):
        parse({"kind": "huggingface", "name": "x", "checkpoint": str(folder)}).load(tmp_path)


def test_code_of_a_repository_is_not_run(small_resnet, tmp_path):
    pytest.importorskip("transformers")
    folder = tmp_path / "strange"
    folder.mkdir()
    config = json.loads((small_resnet / "config.json").read_text())
    config |= {
        "model_type": "strange",
        "auto_map": {"AutoModelForImageClassification": "code.Model", "AutoConfig": "code.Config"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(TeacherError, match=r"without code of the repository"):
        parse({"kind": "huggingface", "name": "x", "checkpoint": str(folder)}).load(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_folder_without_a_model_is_named(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(TeacherError, match=r"must be a folder with config\.json"):
        parse({"kind": "huggingface", "name": "x", "checkpoint": str(tmp_path)}).load(tmp_path)


def test_a_model_that_cannot_be_downloaded_says_how_to_give_a_folder(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")

    def refuse(*args, **kwargs):
        raise OSError("We couldn't connect to the Hub")

    monkeypatch.setattr(transformers.AutoModelForImageClassification, "from_pretrained", refuse)
    with pytest.raises(
        TeacherError, match=r"couldn't connect.*hf download a/b --local-dir FOLDER.*teacher\.checkpoint"
    ):
        parse("huggingface:a/b").load(tmp_path)
