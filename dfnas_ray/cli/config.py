"""`dfnas config show` and `dfnas config schema`."""

from __future__ import annotations

import json

import typer

from dfnas_ray.cli.options import ExperimentFile, Overrides, read
from dfnas_ray.config.experiment import ExperimentConfig, dump_experiment

app = typer.Typer(help="Look at an experiment's settings.", no_args_is_help=True)


@app.command()
def show(file: ExperimentFile, overrides: Overrides = None) -> None:
    """Print the resolved experiment, defaults included, as YAML that `dfnas run` takes."""
    typer.echo(dump_experiment(read(file, overrides)), nl=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of experiment files, for editors that complete and check YAML."""
    typer.echo(json.dumps(ExperimentConfig.model_json_schema(), indent=2))
