"""Arguments that all subcommands share."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from dfnas_ray.config.experiment import ExperimentConfig, load_experiment
from dfnas_ray.config.yaml_text import YamlTextError, read_yaml

ExperimentFile = Annotated[str, typer.Argument(help="The experiment's YAML file, or its URI.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting by its dotted key; may be repeated."),
]
RunDirectory = Annotated[
    str | None, typer.Option("--run-dir", help="Folder or URI of the run, instead of the file's run_dir.")
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Replaces cluster.address: local, auto or HOST:PORT; inline runs without Ray."),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the output of Ray and its workers.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON on stdout, for programs.")]
Genotype = Annotated[
    str | None, typer.Option("--genotype", help="Use this architecture instead of searching, e.g. 22212220.")
]


def read(
    file: str, overrides: list[str] | None, run_dir: str | None = None, address: str | None = None
) -> ExperimentConfig:
    """Return the experiment; options of the command line override the file."""
    return load_experiment(file, read_overrides(overrides, run_dir, address))


def read_overrides(overrides: list[str] | None, run_dir: str | None = None, address: str | None = None) -> list[str]:
    """Return all overrides of the command line, as ``dotted.key=value``."""
    more = list(overrides or [])
    if run_dir is not None:
        more.append(text_override("run_dir", run_dir))
    if address is not None:
        more.append(text_override("cluster.address", address))
    return more


def text_override(path: str, text: str) -> str:
    """Return the override that sets exactly this text, even if YAML would read it as a number or a list."""
    try:
        is_plain = read_yaml(text) == text
    except YamlTextError:
        is_plain = False
    return f"{path}={text if is_plain else json.dumps(text, ensure_ascii=False)}"
