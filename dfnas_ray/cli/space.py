"""`dfnas space list|show|count|latency`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from dfnas_ray.cli.console import Terminal, out
from dfnas_ray.errors import ConfigError, GenotypeError, first_line
from dfnas_ray.storage.location import JsonObject

if TYPE_CHECKING:
    from dfnas_ray.config.registry import Member
    from dfnas_ray.search_spaces import Genotype, SearchSpace, SpaceConfig

_TRUSTED_FACTOR = 2.0  # between a table and whole networks; on an idle machine the factor is below 1.3

app = typer.Typer(help="Inspect search spaces and their architectures.", no_args_is_help=True, add_completion=False)

Kind = Annotated[str, typer.Argument(help="Name of the search space; see `dfnas space list`.", show_default=False)]
Image = Annotated[
    str | None,
    typer.Option("--image", metavar="CxHxW", help="Image shape, such as 3x32x32; by default the published one."),
]
Classes = Annotated[
    int | None, typer.Option("--classes", min=1, help="Number of classes; by default the published one.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a setting of the space, such as channels=48; may be repeated."
    ),
]
Experiment = Annotated[
    str | None,
    typer.Option("--experiment", help="Take the space's settings, the image shape and the classes from this file."),
]


@app.command("list")
def list_spaces() -> None:
    """Show every search space: its size, its notation, and the algorithms that can search it."""
    from dfnas_ray.algorithms.config import ALGORITHMS
    from dfnas_ray.search_spaces import SPACES, build_space

    spaces, unusable = SPACES.listing()
    algorithms, more_unusable = ALGORITHMS.listing()
    problems = [*unusable, *more_unusable]
    table = Table(box=None, pad_edge=False)
    for heading in ("space", "images", "decisions", "size", "MACs", "algorithms"):
        table.add_column(heading, justify="right" if heading in ("decisions", "size") else "left")
    for member in spaces:
        try:
            defaults = member.code()
            shape, classes = defaults.native_input
            space = build_space(defaults, shape, classes)
            largest = space.derive(space.cost_table.macs)
        except Exception as error:  # code of another package may raise anything
            problems.append(f"{member.kind} ({member.package}) cannot be shown: {first_line(error)}")
            continue
        unsuitable = [one.kind for one in algorithms if member.kind in one.code.unsuitable_spaces]
        table.add_row(
            _with_package(member),
            "x".join(map(str, shape)),
            str(len(space.num_choices)),
            _power(space.num_architectures),
            f"{_millions(space.cost(space.cheapest()).macs)}-{_millions(space.cost(largest).macs)} M",
            f"all but {', '.join(unsuitable)}" if unsuitable else "all",
        )
    out.print(table)
    names = ", ".join(map(_with_package, algorithms))
    out.print(f"\n[dim]Size: number of architectures. Algorithms: {names}.[/dim]")
    out.print(
        "[dim]Images: shape of the defaults. `show` and `count` take others with --image, --classes and --set.[/dim]"
    )
    for problem in dict.fromkeys(problems):
        Terminal().say(f"Left out: {problem}")


@app.command()
def show(
    kind: Kind,
    genotype: Annotated[
        str, typer.Argument(help="Genotype in the space's notation; `random` draws one.", show_default=False)
    ],
    image: Image = None,
    classes: Classes = None,
    settings: Settings = None,
    experiment: Experiment = None,
    file: Annotated[Path | None, typer.Option("--out", help="File of the picture; by default SPACE.svg here.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of a random architecture.")] = 0,
) -> None:
    """Draw an architecture and print the cost of each layer."""
    from dfnas_ray.report.cells import draw_cell
    from dfnas_ray.report.drawing import draw_architecture, operations_of, stack

    space = _space(kind, image, classes, settings, experiment)
    chosen = _random(space, seed) if genotype == "random" else space.decode(genotype)
    layers, cells = space.layers(chosen), space.cells(chosen)
    table = Table(box=None, pad_edge=False)
    for heading in ("layer", "operation", "output", "parameters", "MACs"):
        table.add_column(heading, justify="right" if heading in ("parameters", "MACs") else "left")
    for layer in layers:
        shape = "x".join(map(str, layer.output_shape))
        table.add_row(layer.name, layer.operation, shape, f"{layer.cost.params:,}", f"{layer.cost.macs:,}")
    out.print(Text(space.encode(chosen)), soft_wrap=True)
    for name, edges in cells.items():
        out.print(f"\n[bold]{name}[/bold]")
        for edge in edges:
            if edge.operation:
                out.print(Text(f"  {edge.source} -> {edge.target}: {edge.operation}"))
    out.print("")
    out.print(table)
    cost = space.cost(chosen)
    out.print(
        f"\n{cost.params:,} parameters, {cost.macs:,} MACs for one image of {'x'.join(map(str, space.image_shape))}"
    )
    operations = operations_of(layers)
    operations += [
        n for n in {e.operation: None for g in cells.values() for e in g if e.operation} if n not in operations
    ]
    pictures = [(name, draw_cell(name, edges, operations)) for name, edges in cells.items()]
    whole = f"{space.kind}: {cost.params:,} parameters, {cost.macs:,} MACs"
    target = file or Path(f"{space.kind}.svg")
    _write(target, stack([*pictures, (whole, draw_architecture(layers, operations))]))
    out.print(Text(f"Picture: {target}"), soft_wrap=True)


@app.command()
def count(
    kind: Kind,
    genotypes: Annotated[list[str] | None, typer.Argument(help="Architectures in the space's notation.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="A text file with one architecture per line.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    image: Image = None,
    classes: Classes = None,
    settings: Settings = None,
    experiment: Experiment = None,
) -> None:
    """Count parameters and MACs of architectures, without building them."""
    space = _space(kind, image, classes, settings, experiment)
    texts = [(text, "") for text in genotypes or []]
    if file is not None:
        texts += _read_lines(file)
    if not texts:
        raise ConfigError("There is nothing to count. Give architectures as arguments, or a file of them with --file.")
    rows = []
    for text, where in texts:
        try:
            cost = space.cost(space.decode(text))
        except GenotypeError as error:
            raise GenotypeError(f"{where}{error}") from error
        rows.append({"genotype": text, "params": cost.params, "macs": cost.macs})
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("genotype", overflow="fold")
    table.add_column("parameters", justify="right")
    table.add_column("MACs", justify="right")
    for row in rows:
        table.add_row(Text(str(row["genotype"])), f"{row['params']:,}", f"{row['macs']:,}")
    out.print(table)


@app.command()
def latency(
    kind: Kind,
    file: Annotated[Path, typer.Option("--out", help="JSON file of the table.")],
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1; use the machine that the network is for.")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; by default all.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 1,
    image: Image = None,
    classes: Classes = None,
    settings: Settings = None,
    experiment: Experiment = None,
) -> None:
    """Measure the latency of each option of a space on this machine, for a search with a latency term."""
    import torch

    from dfnas_ray.ops.latency import measure_latency
    from dfnas_ray.search_spaces.latency import measure_latency_table
    from dfnas_ray.seeding import fixed_threads

    space = _space(kind, image, classes, settings, experiment)
    target = _device(device)
    with fixed_threads(threads or torch.get_num_threads()):
        total = len({(part.key, part.input_shape) for part in space.parts()})
        with Terminal().task("Measuring", total, "part") as task:
            table = measure_latency_table(space, target, batch_size, on_part=lambda done, _: task.advance_to(done))
        chosen = dict.fromkeys([space.cheapest(), *(_random(space, seed) for seed in range(3))])
        factors = []
        checks = Table(box=None, pad_edge=False)
        for heading in ("architecture", "table", "measured whole"):
            checks.add_column(heading, justify="left" if heading == "architecture" else "right", overflow="fold")
        for genotype in chosen:
            estimate = table.latency(space, genotype)
            whole = measure_latency(space.build(genotype), space.image_shape, batch_size, target, 0.2)
            checks.add_row(Text(space.encode(genotype)), _milliseconds(estimate), _milliseconds(whole))
            factors.append(max(estimate / whole, whole / estimate))
    table.save(str(file))
    out.print(checks)
    if max(factors) > _TRUSTED_FACTOR:
        Terminal().say(
            f"The table and the latency of a whole network differ by a factor of {max(factors):.1f}. This machine seems "
            f"to be busy. Measure again when it is idle{'' if threads else ', or with fewer --threads'}."
        )
    out.print(Text(f"{table.device}, {table.threads} threads, {batch_size} images. Table: {file}"), soft_wrap=True)


def _space(
    kind: str, image: str | None, classes: int | None, settings: list[str] | None, experiment: str | None
) -> SearchSpace:
    from dfnas_ray.config.experiment import make_space_config
    from dfnas_ray.search_spaces import SPACES, build_space

    code = SPACES.find(kind)
    base: JsonObject = {"kind": kind}
    shape_and_classes = None
    if experiment is not None:
        base, shape_and_classes = _from_experiment(kind, code, experiment)
    config = make_space_config(base, settings or [])
    shape, num_classes = shape_and_classes or config.native_input
    return build_space(config, _parse_shape(image) if image else shape, classes or num_classes)


def _from_experiment(
    kind: str, code: type[SpaceConfig], file: str
) -> tuple[JsonObject, tuple[tuple[int, int, int], int]]:
    from dfnas_ray.config.experiment import load_experiment
    from dfnas_ray.workflow.session import Session

    config = load_experiment(file)
    found = [space for space in config.search.space if type(space) is code]
    if not found:
        kinds = ", ".join(space.kind for space in config.search.space)
        raise ConfigError(f"{file} does not search {kind}, but {kinds}.")
    teacher = Session(config, Terminal()).teacher
    return found[0].model_dump(mode="json"), (teacher.image_shape, teacher.num_classes)


def _with_package(member: Member) -> str:
    return member.kind if member.package is None else f"{member.kind} ({member.package})"


def _parse_shape(text: str) -> tuple[int, int, int]:
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isascii() and part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--image ({text}) must be channels, height and width, such as 3x32x32.")
    return int(parts[0]), int(parts[1]), int(parts[2])


def _device(name: str) -> Any:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device ({name}) must be cpu, cuda or cuda:NUMBER.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"--device ({name}): torch finds no GPU here. Measure on the machine that the search is for.")
    return device


def _random(space: SearchSpace, seed: int) -> Genotype:
    from dfnas_ray.seeding import numpy_generator

    return space.sample(numpy_generator(seed, "show"))


def _read_lines(file: Path) -> list[tuple[str, str]]:
    from dfnas_ray.storage.regular_files import read_regular

    try:
        lines = read_regular(file).decode().splitlines()
    except (OSError, ValueError) as error:  # not a regular file, or not UTF-8
        raise ConfigError(f"--file ({file}) cannot be read: {error}") from error
    return [(line.strip(), f"{file}, line {number}: ") for number, line in enumerate(lines, start=1) if line.strip()]


def _write(file: Path, text: str) -> None:
    from dfnas_ray.storage.location import Location

    Location.parse(file).write_bytes(text.encode())


def _power(number: int) -> str:
    return f"{number:,}" if number < 1e6 else f"10^{math.log10(number):.1f}"


def _millions(macs: int) -> str:
    return f"{macs / 1e6:,.1f}"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3f} ms"
