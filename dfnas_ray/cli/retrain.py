"""`dfnas retrain`."""

from __future__ import annotations

from dfnas_ray.cli.console import Terminal
from dfnas_ray.cli.options import Address, AsJson, ExperimentFile, Genotype, Overrides, RunDirectory, Verbose, read
from dfnas_ray.cli.summary import show_outcomes


def retrain(
    file: ExperimentFile,
    genotype: Genotype = None,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    address: Address = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Train the architecture that the search found, or the one given, from scratch on synthetic images alone."""
    from dfnas_ray.workflow import run as order  # heavy import: kept out of `dfnas --help`
    from dfnas_ray.workflow.session import Session

    with Session(read(file, overrides, run_dir, address), Terminal(), verbose).opened() as session:
        show_outcomes(order.retrain(session, genotype), as_json=as_json)
