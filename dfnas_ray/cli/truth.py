"""`dfnas truth`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from dfnas_ray.cli.console import Terminal
from dfnas_ray.cli.console import out as terminal
from dfnas_ray.cli.options import Address, AsJson, ExperimentFile, Overrides, RunDirectory, Verbose, read
from dfnas_ray.cli.summary import show_outcomes


def truth(
    file: ExperimentFile,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            help="The CSV file to write, for benchmark.table; by default the one in the run directory.",
            show_default=False,
        ),
    ] = None,
    architectures: Annotated[
        int | None, typer.Option("--architectures", help="Number of architectures to draw; by default the whole space.")
    ] = None,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    address: Address = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Train a space's architectures on real, labelled images: a table of true accuracies for `dfnas benchmark`.

    It needs retraining.images, retraining.labels and evaluation.dataset; the result is not data-free. An interrupted
    command continues. More architectures are added to the trained ones.
    """
    from dfnas_ray.library import truth as find_truth  # heavy import: kept out of `dfnas --help`
    from dfnas_ray.workflow.truth import TABLE

    outcome = find_truth(read(file, overrides, run_dir, address), out, architectures, Terminal(), verbose)
    show_outcomes([outcome], as_json=as_json)
    if not as_json:
        terminal.print(Text(f"Table: {out or outcome.location / TABLE}"), soft_wrap=True)
