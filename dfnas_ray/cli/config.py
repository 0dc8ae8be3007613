"""`dfnas config show` and `dfnas config schema`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from dfnas_ray.cli.console import Terminal
from dfnas_ray.cli.options import ExperimentFile, Overrides, read
from dfnas_ray.config.experiment import ExperimentConfig, dump_experiment
from dfnas_ray.config.imports import describe_imports
from dfnas_ray.config.yaml_text import write_yaml

app = typer.Typer(help="Inspect the settings of an experiment.", no_args_is_help=True, add_completion=False)


_FOR_THE_TEACHER = ("synthesis", "search", "retraining")
"""Sections whose missing settings are chosen to suit the teacher."""


@app.command()
def show(
    file: ExperimentFile,
    overrides: Overrides = None,
    teacher: Annotated[
        bool, typer.Option("--teacher", help="Load the teacher, and also show the settings chosen for it.")
    ] = False,
) -> None:
    """Print the resolved experiment as YAML for `dfnas run`, and list the code of other packages that it imports.

    Settings that a file leaves out of synthesis, search and retraining are chosen for the teacher, or keep their
    defaults.
    """
    config = read(file, overrides)
    for line in describe_imports(config):
        typer.echo(f"# Imports code: {line}")
    if teacher:
        from dfnas_ray.library.experiments import complete_experiment  # heavy import

        typer.echo(dump_experiment(complete_experiment(config, Terminal())), nl=False)
        return
    values, given = config.model_dump(mode="json"), config.model_dump(mode="json", exclude_unset=True)
    for section in _FOR_THE_TEACHER:
        values.pop(section)
        values |= {section: given[section]} if section in given else {}
    typer.echo("# What synthesis, search and retraining leave out is chosen for the teacher, or keeps its default.")
    typer.echo("# --teacher loads the teacher and shows the chosen settings.")
    typer.echo(write_yaml(values), nl=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of experiment files, for editors that complete and check YAML."""
    typer.echo(json.dumps(ExperimentConfig.model_json_schema(), indent=2))
