"""`dfnas init`."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.text import Text

from dfnas_ray.cli.console import Terminal, err, out
from dfnas_ray.config.registry import SettingValues
from dfnas_ray.config.yaml_text import YamlTextError, read_yaml
from dfnas_ray.errors import ConfigError, DfnasError, printable, shortened

_EXAMPLES = ("digits",)

_OPTIONS = {
    "teacher.checkpoint": "--checkpoint",
    "teacher.builder": "--builder",
    "teacher.arguments": "--argument",
    "teacher.num_classes": "--num-classes",
    "teacher.image_shape": "--image-shape",
    "teacher.mean": "--mean",
    "teacher.std": "--std",
    "teacher.name": "--teacher",
}
"""The option of `dfnas init` that gives each setting of the teacher."""


def init(
    out_file: Annotated[Path, typer.Argument(metavar="FILE", help="The experiment file to write.")] = Path(
        "experiment.yaml"
    ),
    teacher: Annotated[
        str | None,
        typer.Option("--teacher", help="digits, torchvision:NAME, timm:NAME, huggingface:NAME, or another source."),
    ] = None,
    builder: Annotated[
        str | None, typer.Option("--builder", help="package.module:function that returns the untrained network.")
    ] = None,
    arguments: Annotated[
        list[str] | None,
        typer.Option(
            "--argument", metavar="NAME=VALUE", help="An argument of the builder, or of a timm model; may be repeated."
        ),
    ] = None,
    num_classes: Annotated[
        int | None,
        typer.Option("--num-classes", help="Number of classes of a timm or torchvision model that you trained on."),
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", help="The trained weights: a file, or a Hugging Face folder.")
    ] = None,
    image_shape: Annotated[
        str | None, typer.Option("--image-shape", metavar="C,H,W", help="Shape of one input, such as 3,32,32.")
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option("--mean", metavar="M,...", help="Mean of the training pixels in [0, 1], one per channel."),
    ] = None,
    std: Annotated[
        str | None,
        typer.Option("--std", metavar="S,...", help="Standard deviation of the same pixels, one per channel."),
    ] = None,
    evaluation: Annotated[
        str | None,
        typer.Option(
            "--evaluation", metavar="PATH", help="Labelled real images: a folder with one per class, or Parquet."
        ),
    ] = None,
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.5, help="Time for the whole experiment on this machine.")
    ] = 30,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Mirrored images keep their class: true of photographs, not of text.")
    ] = False,
    example: Annotated[str | None, typer.Option("--example", help="Write this example instead: digits.")] = None,
    address: Annotated[str | None, typer.Option("--address", help="cluster.address of the experiment.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write an experiment file for a teacher and a time limit. Its comments explain the chosen settings.

    The teacher is loaded and timed for a few seconds.
    """
    if out_file.exists() and not force:
        raise ConfigError(f"The file {printable(out_file)} already exists. Choose another name, or add --force.")
    if example is not None:
        _write(out_file, _example(example))
        _say_next(out_file)
        return
    given = _Given(arguments or [], num_classes, checkpoint, image_shape, mean, std)
    source = _teacher(teacher, builder, given)
    values: SettingValues = {"name": _name(out_file), "seed": 0, "teacher": source}
    if evaluation is not None:
        values["evaluation"] = {"dataset": _dataset(evaluation)}
    if address is not None:
        values["cluster"] = {"address": address}
    from dfnas_ray.cli.plan import show_plan
    from dfnas_ray.library.experiments import draft_experiment  # heavy import: kept out of `dfnas --help`

    with _errors_name_options():
        text, fitted = draft_experiment(values, minutes, shlex.quote(printable(out_file)), mirror, Terminal())
    _write(out_file, text)
    show_plan(fitted.plan)
    if not fitted.fits:
        err.print(
            f"This takes longer than {minutes:g} min: with fewer images the result would be useless. A smaller input, "
            "a GPU or a cluster makes it faster."
        )
    _say_next(out_file)


class _Given(NamedTuple):
    """The options about the teacher, besides those that name its source."""

    arguments: list[str]
    num_classes: int | None
    checkpoint: str | None
    image_shape: str | None
    mean: str | None
    std: str | None


def _teacher(teacher: str | None, builder: str | None, given: _Given) -> Any:
    """Return the section ``teacher``; on a terminal, ask for missing values that only the user knows.

    Raises:
        ConfigError: a value is missing, and there is no terminal to ask on.
    """
    if teacher is not None:
        if builder is not None:
            raise ConfigError(
                f"--teacher ({shortened(teacher, 100)}) and --builder are both given. Keep one: a source such as "
                "torchvision:resnet18 builds its own network."
            )
        return _published(teacher, given)
    if builder is None or given.checkpoint is None:
        raise ConfigError(
            "Which teacher? Give --teacher torchvision:NAME (or timm:, huggingface:), or --builder package.module:function with "
            "--checkpoint FILE."
        )
    section: SettingValues = {"kind": "checkpoint", "checkpoint": given.checkpoint, "builder": builder}
    if given.arguments:
        section["arguments"] = dict(map(_argument, given.arguments))
    if given.num_classes is not None:
        section["num_classes"] = given.num_classes
    shape = _shape(_asked(given.image_shape, "--image-shape", "Shape of one input: C,H,W"))
    section["image_shape"] = shape
    channels = shape[0] if shape else 1
    for option, setting, text, what in (
        ("--mean", "mean", given.mean, "Mean of its training pixels in [0, 1]"),
        ("--std", "std", given.std, "Standard deviation of its training pixels in [0, 1]"),
    ):
        found = _numbers(option, _asked(text, option, f"{what}, {channels} with commas"), float)
        section[setting] = found * channels if len(found) == 1 else found
    return section


def _published(teacher: str, given: _Given) -> SettingValues | str:
    """Return the section ``teacher`` of a source that builds its own network; given values replace the source's own."""
    found: SettingValues = {
        "arguments": dict(map(_argument, given.arguments)) or None,
        "num_classes": given.num_classes,
        "checkpoint": given.checkpoint,
        "image_shape": None if given.image_shape is None else _shape(given.image_shape),
        "mean": None if given.mean is None else _numbers("--mean", given.mean, float),
        "std": None if given.std is None else _numbers("--std", given.std, float),
    }
    settings = {name: value for name, value in found.items() if value is not None}
    if not settings:
        return teacher
    from dfnas_ray.teachers import TEACHERS

    source = TEACHERS.expand(teacher)
    code = TEACHERS.class_of(source)
    for name in settings:
        if code is not None and name not in getattr(code, "model_fields", {}):
            raise ConfigError(
                f"{_OPTIONS[f'teacher.{name}']} does not go with --teacher {shortened(teacher, 100)}. Leave it out."
            )
    return {**source, **settings}


def _shape(text: str) -> list[int]:
    return _numbers("--image-shape", text, int)


@contextmanager
def _errors_name_options() -> Iterator[None]:
    """Let errors name the command's options instead of settings: there is no file yet."""
    try:
        yield
    except DfnasError as error:
        names = "|".join(map(re.escape, _OPTIONS))
        text = re.sub(rf"(?<![\w.])({names})\b", lambda found: _OPTIONS[found[1]], Exception.__str__(error))
        raise type(error)(text) from error


def _asked(value: str | None, option: str, question: str) -> str:
    if value is not None:
        return value
    if not sys.stdin.isatty():
        raise ConfigError(f"{option} is missing, and a checkpoint does not contain it. {question}.")
    answer: str = typer.prompt(question, err=True)
    return answer


def _numbers(option: str, text: str, kind: type[int] | type[float]) -> list[Any]:
    try:
        return [kind(part) for part in text.replace("x", ",").split(",")]
    except ValueError:
        raise ConfigError(
            f"{option} ({shortened(repr(text), 100)}) must be numbers with commas between them, such as "
            f"{'3,32,32' if kind is int else '0.485,0.456,0.406'}."
        ) from None


def _argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(
            f"--argument {shortened(repr(text), 100)} must have the form NAME=VALUE, such as num_classes=37."
        )
    try:
        return name, read_yaml(value)
    except YamlTextError as error:
        raise ConfigError(f"--argument {name}: {shortened(repr(value), 100)} is not a YAML value: {error}.") from error


def _dataset(path: str) -> SettingValues | str:
    if path == "digits":
        return {"kind": "digits"}
    kind = "parquet" if path.endswith(".parquet") or list(Path(path).glob("*.parquet")) else "image_folder"
    return {"kind": kind, "path": path}


def _say_next(file: Path) -> None:
    name = printable(file)
    out.print(Text(f"Wrote {name}. Next: dfnas run {shlex.quote(name)}"), soft_wrap=True)


def _name(file: Path) -> str:
    stem = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in file.stem)
    return stem.strip("-.") or "experiment"


def _example(name: str) -> str:
    if name not in _EXAMPLES:
        raise ConfigError(f"--example {shortened(repr(name), 100)} does not exist. Known: {', '.join(_EXAMPLES)}.")
    return (files("dfnas_ray.cli") / "examples" / f"{name}.yaml").read_text(encoding="utf-8")


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The file {printable(file)} cannot be written: {error.strerror}.") from error
