"""Programs of other tools: the same logits as the network, and images that do not fit are refused by the program itself."""

from __future__ import annotations

import io
import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from small_spaces import small_spaces
from torch import nn

from dfnas_ray.errors import ConfigError, ExportError
from dfnas_ray.search_spaces import NASBenchMacroConfig
from dfnas_ray.training.classifier import ImageClassifier
from dfnas_ray.training.programs import INFO_FILE, ONNX_PACKAGES, check_onnx, to_onnx, to_pt2

SHAPE, CANVAS = (3, 32, 32), (36, 34)
SMALL = NASBenchMacroConfig(stem_channels=4, stage_layers=(1,), stage_channels=(8,), head_channels=8)
INFO = {"class_names": ["cat", "dög"], "dfnas_ray": "0", "input": "images"}


def make_classifier(config=SMALL, canvas=CANVAS):
    """A network of a space with weights and statistics of its own, as after a training."""
    space = config.space(SHAPE, 10)
    network = space.build(space.sample(np.random.default_rng(0)))
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(0.1 * torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(module.num_features, generator=generator))
        if isinstance(module, nn.Linear):
            module.weight.data.mul_(20)  # logits as large as trained networks have them
    return ImageClassifier(network.eval(), SHAPE, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3), canvas)


def noise(count, size, dtype="uint8"):
    images = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return images if dtype == "uint8" else images.float() / 255


def load_pt2(data):
    return torch.export.load(io.BytesIO(data)).module()


def load_onnx(data):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session, lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


@pytest.fixture(scope="module")
def classifier():
    return make_classifier()


@pytest.fixture(scope="module")
def pt2(classifier):
    return to_pt2(classifier, "uint8", INFO)


@pytest.fixture(scope="module")
def onnx_model(classifier):
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    return to_onnx(classifier, "uint8", INFO)


@torch.no_grad()
def differences(classifier, program, dtype="uint8"):
    """The largest difference of a logit on 100 images of the input's size and on 100 canvases."""
    sizes = (SHAPE[1:], classifier.canvas_size)
    return [float((program(x) - classifier(x)).abs().max()) for x in (noise(100, size, dtype) for size in sizes)]


def test_a_program_of_torch_export_agrees_with_the_network_at_any_batch_size(classifier, pt2):
    program = load_pt2(pt2)
    assert max(differences(classifier, program)) <= 1e-4
    assert program(noise(1, CANVAS)).shape == (1, 10)


def test_an_onnx_model_agrees_with_the_network_at_any_batch_size(classifier, onnx_model):
    session, program = load_onnx(onnx_model)
    assert max(differences(classifier, program)) <= 1e-4
    assert program(noise(1, CANVAS)).shape == (1, 10)
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.shape, images.type) == ("images", ["batch", 3, "height", "width"], "tensor(uint8)")
    assert (logits.name, logits.shape, logits.type) == ("logits", ["batch", 10], "tensor(float)")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("config", small_spaces(), ids=lambda config: config.kind)
def test_onnxruntime_torch_export_and_the_network_agree_in_every_space(config, dtype, record_property):
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    classifier = make_classifier(config)
    programs = {
        "torch.export": load_pt2(to_pt2(classifier, dtype, INFO)),
        "onnxruntime": load_onnx(to_onnx(classifier, dtype, INFO))[1],
    }
    for name, program in programs.items():
        found = differences(classifier, program, dtype)
        record_property(f"largest difference of {name}", max(found))
        assert max(found) <= 1e-4, name


STRANGERS = {
    "a photograph": noise(1, (64, 64)),
    "one row too many": noise(1, (37, 34)),
    "one column too many": noise(1, (36, 35)),
    "one row too few": noise(1, (31, 34)),
    "floats": noise(1, (32, 32), "float32"),
    "grey": noise(1, (32, 32))[:, :1],
}


@pytest.mark.parametrize("images", STRANGERS.values(), ids=STRANGERS)
def test_a_program_refuses_images_that_it_would_misread(pt2, images):
    with pytest.raises(Exception, match=r"input|dtype|Guard"):
        load_pt2(pt2)(images)


@pytest.mark.parametrize("images", STRANGERS.values(), ids=STRANGERS)
def test_an_onnx_model_refuses_images_that_it_would_misread(onnx_model, images):
    _, program = load_onnx(onnx_model)
    with pytest.raises(Exception, match=r"out of data bounds|Unexpected input data type|invalid dimensions"):
        program(images)


def test_programs_carry_what_is_known_and_no_path_of_this_machine(pt2, onnx_model):
    extra = {INFO_FILE: ""}
    torch.export.load(io.BytesIO(pt2), extra_files=extra)
    assert json.loads(extra[INFO_FILE]) == INFO
    session, _ = load_onnx(onnx_model)
    known = session.get_modelmeta().custom_metadata_map
    assert json.loads(known["class_names"]) == INFO["class_names"]
    assert known["input"] == "images"
    here = str(Path(__file__).parents[3]).encode()
    for data in (pt2, onnx_model):
        assert here not in data
        assert b"site-packages" not in data


def test_the_same_network_is_the_same_file(classifier, pt2):
    assert to_pt2(classifier, "uint8", INFO) == pt2


class OtherwiseInPrograms(nn.Module):
    """Computes something else where it is exported."""

    def forward(self, x):
        return x.flatten(1)[:, :2] * (2 if torch.compiler.is_exporting() else 1)


class Unexportable(nn.Module):
    """Looks at a value."""

    def forward(self, x):
        return x.flatten(1)[:, :2] if x.sum().item() > 0 else x.flatten(1)[:, 2:4]


def test_a_program_that_disagrees_with_its_network_is_not_given_out():
    with pytest.raises(ExportError, match=r"network\.pt2 was not written: its logits differ"):
        to_pt2(ImageClassifier(OtherwiseInPrograms(), SHAPE, (0.5,) * 3, (0.25,) * 3), "uint8", INFO)


def test_a_network_that_cannot_be_exported_says_so_in_one_line():
    with pytest.raises(ExportError, match=r"The network cannot be exported: ") as error:
        to_pt2(ImageClassifier(Unexportable(), SHAPE, (0.5,) * 3, (0.25,) * 3), "uint8", INFO)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("package", ONNX_PACKAGES)
def test_without_the_extra_one_error_says_how_to_install_it(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ConfigError, match=rf"ONNX needs {package}.*pip install -e '\.\[onnx\]'.*pip install onnxscript"
    ):
        check_onnx()
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    extra = {line.partition(">")[0] for line in project["optional-dependencies"]["onnx"]}
    assert extra == set(ONNX_PACKAGES)
