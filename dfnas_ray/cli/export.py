"""`dfnas export`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.text import Text

from dfnas_ray.cli.console import err, out
from dfnas_ray.cli.options import ExperimentFile, Overrides, RunDirectory, read


class FormatName(StrEnum):
    """The formats in which a network can be exported."""

    ONNX = "onnx"
    PT2 = "pt2"
    SAFETENSORS = "safetensors"


class PixelsName(StrEnum):
    """The type of pixels that the exported programs take."""

    UINT8 = "uint8"
    FLOAT32 = "float32"


class NetworkName(StrEnum):
    """The networks of a run."""

    SEARCHED = "searched"
    RANDOM = "random"


Formats = Annotated[
    list[FormatName] | None,
    typer.Option("--format", help="Format to write; may be repeated. Default: all; onnx only if installed."),
]
Out = Annotated[
    str | None, typer.Option("--out", help="Folder or URI to write to, instead of export in the run directory.")
]
Input = Annotated[
    PixelsName, typer.Option("--input", help="Pixels that the programs take: 0 to 255, or floats in [0, 1].")
]
Network = Annotated[NetworkName, typer.Option("--network", help="The searched network, or the random one beside it.")]


def export(
    file: ExperimentFile,
    formats: Formats = None,
    output: Out = None,
    pixels: Input = PixelsName.UINT8,
    network: Network = NetworkName.SEARCHED,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
) -> None:
    """Write a finished run's network for other tools: ONNX, torch.export and safetensors, with class names and a model card.

    Programs take images of the teacher's input size, (batch, channels, height, width), and return logits. The normalisation is
    inside.
    """
    from dfnas_ray.errors import ConfigError  # heavy import: kept out of `dfnas --help`
    from dfnas_ray.library.exports import export as write
    from dfnas_ray.training.export import FORMATS, Format
    from dfnas_ray.training.programs import check_onnx

    config = read(file, overrides, run_dir)
    by_name: dict[str, Format] = {name: name for name in FORMATS}
    wanted = [by_name[one] for one in formats or FORMATS]
    if not formats:
        try:
            check_onnx()
        except ConfigError as error:
            wanted.remove("onnx")
            err.print(Text(f"network.onnx is left out. {error}"), soft_wrap=True)
    exported = write(config, wanted, output, pixels.value, network.value)
    out.print(Text(f"Written to {exported.folder}: {', '.join(exported.files)}"), soft_wrap=True)
