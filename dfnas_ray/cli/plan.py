"""`dfnas plan`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from dfnas_ray import formatting
from dfnas_ray.cli.console import Terminal, out
from dfnas_ray.cli.options import Address, ExperimentFile, Overrides, RunDirectory, read

if TYPE_CHECKING:
    from dfnas_ray.planning.estimate import ExperimentPlan


def plan(
    file: ExperimentFile,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    address: Address = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON, for programs.")] = False,
) -> None:
    """Show what a run will do and how long it will take. Nothing is started.

    A few steps of each stage are timed on this machine, on noise.
    """
    from dfnas_ray.library.experiments import plan as make_plan  # heavy import: kept out of `dfnas --help`

    found = make_plan(read(file, overrides, run_dir, address), Terminal())
    if as_json:
        typer.echo(json.dumps({**asdict(found), "seconds": found.seconds}, indent=2))
    else:
        show_plan(found)


def show_plan(plan: ExperimentPlan) -> None:
    """Print one row per stage, and the total."""
    from dfnas_ray.planning.estimate import rounded

    table = Table(box=None, pad_edge=False)
    for heading in ("stage", "what", "about"):
        table.add_column(heading, justify="right" if heading == "about" else "left", overflow="fold")
    for stage in plan.stages:
        table.add_row(stage.stage, Text(stage.work), rounded(stage.seconds) if stage.seconds else "done")
    table.add_row("together", Text(f"on {plan.where}"), rounded(plan.seconds), style="bold")
    out.print(table)
    out.print(
        f"Memory of one worker: about {formatting.size(plan.memory)}, and {formatting.size(plan.images)} for the images, which "
        "stay on disk where they take more than half of the free memory."
    )
