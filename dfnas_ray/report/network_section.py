"""The section of the network's files: what they are, what they take, and how to load them."""

from __future__ import annotations

import json
from dataclasses import dataclass

from dfnas_ray.report.artefacts import Artefacts
from dfnas_ray.storage.location import Location
from dfnas_ray.training.export import FILES, NetworkDescription
from dfnas_ray.workflow.retraining import Retraining

_EXPORTED = "export"
_WHAT = {
    FILES["safetensors"]: "the weights",
    FILES["pt2"]: "a torch.export program",
    FILES["onnx"]: "an ONNX model",
    "network.json": "architecture, input, class names",
}


@dataclass(frozen=True)
class NetworkFile:
    """One file of the network.

    Attributes:
        name: The name with its folder in the run directory.
        what: What the file is, and what it takes.
        bytes: The size of the file.
    """

    name: str
    what: str
    bytes: int


@dataclass(frozen=True)
class NetworkSection:
    """The values that the template shows of the network's files.

    Attributes:
        files: The files.
        load: Lines of Python that load the network.
        larger: The largest size of an image, as text, if it may be larger than the input; otherwise empty.
        prepared: What `network.prepare` does to pictures of another size.
    """

    files: list[NetworkFile]
    load: str
    larger: str
    prepared: str


def network_section(artefacts: Artefacts) -> NetworkSection | None:
    """Return the section of the network's files, or None if no network is trained."""
    found = artefacts[Retraining]
    described = found.read(NetworkDescription.find)
    if found.folder is None or described is None:
        return None
    files = _files(found.folder, f"{Retraining.name}/{found.folder.name}", described)
    exported = artefacts.run_dir.location / _EXPORTED
    also = artefacts.problems.read(NetworkDescription.find, exported)
    if also is not None and also.weights_sha256 == described.weights_sha256 is not None:
        files += _files(exported, _EXPORTED, also)
    return NetworkSection(
        files, load_lines(str(artefacts.run_dir.location), described), larger_input(described), preparation(described)
    )


def load_lines(place: str, described: NetworkDescription) -> str:
    """Return the lines of Python that load a network and run it."""
    shape = ", ".join(map(str, described.image_shape))
    return (
        f"import dfnas_ray\n\nnetwork = dfnas_ray.load_network({json.dumps(place, ensure_ascii=False)})  # a torch.nn.Module\n"
        f"logits = network(images)  # images: (N, {shape}), uint8 or floats in [0, 1]"
    )


def larger_input(described: NetworkDescription) -> str:
    """Return the largest size of an image if it may be larger than the input; otherwise an empty text."""
    canvas, size = described.canvas_size, described.image_shape[1:]
    return "" if canvas is None or canvas == size else f"{canvas[0]} × {canvas[1]}"


def preparation(described: NetworkDescription) -> str:
    """Return what happens to pictures of another size before the network sees them."""
    height, width = described.image_shape[1:]
    return described.resizing.described((height, width))


def _files(folder: Location, shown: str, described: NetworkDescription) -> list[NetworkFile]:
    sizes = {info.base_name: int(info.size or 0) for info in folder.file_infos()}
    takes = {"uint8": "uint8 images in", "float32": "float32 images in [0, 1] in"}.get(
        described.program, "normalised images in"
    )
    programs = {FILES["pt2"], FILES["onnx"]}
    return [
        NetworkFile(f"{shown}/{name}", f"{what}: {takes}, logits out" if name in programs else what, sizes[name])
        for name, what in _WHAT.items()
        if name in sizes
    ]
