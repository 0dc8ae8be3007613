"""A network as a program for other tools, by `torch.export` or as ONNX, with the preprocessing inside.

Every program is run once and compared with its network. It is returned only if both agree.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from dfnas_ray.errors import ConfigError, ExportError, first_line
from dfnas_ray.training.classifier import ImageClassifier

Pixels: TypeAlias = Literal["uint8", "float32"]
"""The input of a program: uint8, or float32 in [0, 1]. A program for one of them refuses the other."""

TOLERANCE = 1e-4
"""Largest difference between the logits of a program and of its network, relative to the largest logit or to 1."""

INFO_FILE = "dfnas.json"
"""The extra file in a .pt2 with the metadata: ``torch.export.load(file, extra_files={"dfnas.json": ""})``."""

ONNX_PACKAGES = ("onnxscript", "onnxruntime")
_DTYPES = {"uint8": torch.uint8, "float32": torch.float32}
_NUM_TRIED = 3  # images; not 0 or 1, which torch.export treats specially, and not 2, the size of the example
_OPSET = 18


def to_pt2(classifier: ImageClassifier, pixels: Pixels, info: Mapping[str, Any]) -> bytes:
    """Return a `torch.export` program of any batch size, as the bytes of a .pt2 file.

    Args:
        classifier: The network, on the CPU, in evaluation mode.
        pixels: The input of the program.
        info: The metadata, written as JSON into an extra file.

    Raises:
        ExportError: the network cannot be exported, or the program disagrees with it.
    """
    program = _exported(classifier, pixels)
    buffer = BytesIO()
    torch.export.save(program, buffer, extra_files={INFO_FILE: json.dumps(dict(info), sort_keys=True)})
    _compare("network.pt2", classifier, pixels, program.module())
    return buffer.getvalue()


def to_onnx(classifier: ImageClassifier, pixels: Pixels, info: Mapping[str, Any]) -> bytes:
    """Return an ONNX model of any batch size, with input ``images``, output ``logits``, and metadata.

    Args:
        classifier: The network, on the CPU, in evaluation mode.
        pixels: The input of the model.
        info: The metadata; values other than text are written as JSON.

    Raises:
        ConfigError: a required package is missing; the message says how to install it.
        ExportError: the network cannot be exported, or onnxruntime disagrees with it.
    """
    check_onnx()
    import onnxruntime

    program = _exported(classifier, pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(
            program, dynamo=True, opset_version=_OPSET, input_names=["images"], output_names=["logits"], verbose=False
        )
    assert made is not None
    model = made.model
    model.producer_name, model.producer_version = "dfnas-ray", str(info.get("dfnas_ray", ""))
    model.metadata_props.update(
        {name: value if isinstance(value, str) else json.dumps(value) for name, value in info.items()}
    )
    _tidy(model)
    data: bytes = made.model_proto.SerializeToString(deterministic=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    _compare(
        "network.onnx", classifier, pixels,
        lambda images: torch.from_numpy(np.asarray(session.run(["logits"], {"images": images.numpy()})[0])),
    )  # fmt: skip
    return data


def _tidy(model: Any) -> None:
    """Give readable names to the dynamic sizes of a model, and remove paths of local source files."""
    (images,) = model.graph.inputs
    names = {
        str(size): name
        for size, name in zip(images.shape, ("batch", "channels", "height", "width"), strict=True)
        if not isinstance(size, int)
    }
    values = [*model.graph.inputs]
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        values += node.outputs
    for value in values:
        value.metadata_props.clear()
        for place, size in enumerate(value.shape or ()):
            if not isinstance(size, int):
                value.shape[place] = re.sub(r"\w+", lambda found: names.get(found[0], found[0]), str(size))


def check_onnx() -> None:
    """Make sure that the packages of the extra ``onnx`` are installed.

    Raises:
        ConfigError: one of them is missing; the message says how to install them.
    """
    for package in ONNX_PACKAGES:
        try:
            __import__(package)
        except ImportError as error:
            raise ConfigError(
                f"ONNX needs {package}, which cannot be imported ({first_line(error)}). Install the extra: "
                f"pip install -e '.[onnx]' in the checkout, or pip install {' '.join(ONNX_PACKAGES)}."
            ) from error


def _exported(classifier: ImageClassifier, pixels: Pixels) -> ExportedProgram:
    """Return the exported program; its dynamic sizes are limited to those that the network takes."""
    (channels, *size), limits = classifier.image_shape, classifier.canvas_size
    example = torch.zeros(2, channels, *limits, dtype=_DTYPES[pixels])
    dims: dict[int, Any] = {0: torch.export.Dim("batch", min=1)}
    for dim, name, low, high in zip((2, 3), ("height", "width"), size, limits, strict=True):
        if high > low:
            dims[dim] = torch.export.Dim(name, min=low, max=high)
    try:
        program = torch.export.export(classifier, (example,), dynamic_shapes=(dims,))
    except Exception as error:  # torch and networks from other packages raise many kinds
        raise ExportError(f"The network cannot be exported: {type(error).__name__}: {first_line(error)}") from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it holds paths of local source files
    return program


@torch.no_grad()
def _compare(name: str, classifier: ImageClassifier, pixels: Pixels, program: Callable[[Tensor], Tensor]) -> None:
    """Compare a program with its network on noise of the input size and of the canvas size.

    Raises:
        ExportError: the logits differ.
    """
    generator = torch.Generator().manual_seed(0)
    for size in dict.fromkeys((tuple(classifier.image_shape[1:]), tuple(classifier.canvas_size))):
        shape = (_NUM_TRIED, classifier.image_shape[0], *size)
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        images = images if pixels == "uint8" else images.float() / 255
        expected, found = classifier(images), program(images)
        difference = float((found - expected).abs().max())
        if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise ExportError(
                f"{name} was not written: its logits differ from the network's by {difference:.3g} on images of "
                f"{' x '.join(map(str, shape))}, more than {TOLERANCE:g}."
            )
