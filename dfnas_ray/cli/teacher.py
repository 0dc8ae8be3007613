"""`dfnas teacher inspect`."""

from __future__ import annotations

import torch
import typer
from rich.table import Table
from torch import nn

from dfnas_ray.cli.console import Terminal, out
from dfnas_ray.cli.options import ExperimentFile, Overrides, RunDirectory, read
from dfnas_ray.datasets.base import open_dataset
from dfnas_ray.datasets.numbering import listed
from dfnas_ray.limits import GREY_OR_RGB
from dfnas_ray.teachers import Teacher
from dfnas_ray.training.evaluation import evaluate_networks

app = typer.Typer(help="Inspect a teacher.", no_args_is_help=True, add_completion=False)


@app.callback()
def _group() -> None:
    """Keep `inspect` a subcommand although it is the only one."""


@app.command()
def inspect(file: ExperimentFile, overrides: Overrides = None, run_dir: RunDirectory = None) -> None:
    """Show the teacher's layers, input, fingerprint, and its accuracy if evaluation.dataset is set."""
    from dfnas_ray.workflow.session import Session  # heavy import: kept out of `dfnas --help`

    config = read(file, overrides, run_dir)
    listener = Terminal()
    teacher = Session(config, listener).teacher
    out.print(_layers(teacher))
    out.print(_facts(teacher))
    if config.evaluation.dataset is not None:
        dataset = open_dataset(config.evaluation.dataset)
        with listener.task("Evaluating", len(dataset), "image") as task:
            accuracy = evaluate_networks(
                {"teacher": teacher.model}, teacher, dataset, torch.device("cpu"), task.advance_to
            )
        out.print(f"accuracy      {accuracy['teacher']:.2%} of {len(dataset):,} images, {dataset.description}")


def _layers(teacher: Teacher) -> Table:
    table = Table("layer", "kind", "parameters", title=f"Teacher {teacher.name}", title_justify="left")
    for name, module in teacher.model.named_modules():
        if not list(module.children()):
            params = sum(p.numel() for p in module.parameters())
            table.add_row(name, _kind(module), f"{params:,}" if params else "")
    return table


def _kind(module: nn.Module) -> str:
    match module:
        case nn.Conv2d():
            kernel = "x".join(map(str, module.kernel_size))
            stride = f", stride {module.stride[0]}" if module.stride[0] != 1 else ""
            return f"Conv2d {kernel}, {module.in_channels} -> {module.out_channels}{stride}"
        case nn.Linear():
            return f"Linear {module.in_features} -> {module.out_features}"
        case _:
            return type(module).__name__


def _classes(teacher: Teacher) -> str:
    names = teacher.class_names
    return str(teacher.num_classes) if names is None else f"{teacher.num_classes}: {listed(names)}"


def _facts(teacher: Teacher) -> str:
    channels, height, width = teacher.image_shape
    refused = "" if channels in GREY_OR_RGB else "; no images can be made: they have 1 or 3 channels"
    lines = {
        "input": f"{channels} x {height} x {width}, mean {teacher.mean}, std {teacher.std}{refused}",
        "pictures": f"of another size are {teacher.resizing.described((height, width))}",
        "classes": _classes(teacher),
        "BatchNorm": f"{len(teacher.batch_norms())} layers with running statistics",
        "cost": f"{teacher.cost.params:,} parameters, {teacher.cost.macs:,} MACs",
        "fingerprint": teacher.fingerprint,
    }
    return "\n".join(f"{name:<13} {text}" for name, text in lines.items())
