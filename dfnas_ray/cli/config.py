"""`dfnas config show` and `dfnas config schema`."""

from __future__ import annotations

import json

import typer

from dfnas_ray.cli.options import ExperimentFile, Overrides, read
from dfnas_ray.config.experiment import ExperimentConfig, dump_experiment
from dfnas_ray.config.imports import describe_imports

app = typer.Typer(help="Look at an experiment's settings.", no_args_is_help=True)


@app.command()
def show(file: ExperimentFile, overrides: Overrides = None) -> None:
    """Print the resolved experiment, defaults included, as YAML that `dfnas run` takes, and what code of others it imports."""
    config = read(file, overrides)
    for line in describe_imports(config):
        typer.echo(f"# Imports code: {line}")
    typer.echo(dump_experiment(config), nl=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of experiment files, for editors that complete and check YAML."""
    typer.echo(json.dumps(ExperimentConfig.model_json_schema(), indent=2))
