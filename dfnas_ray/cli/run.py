"""`dfnas run`."""

from __future__ import annotations

from dfnas_ray.cli.console import Terminal
from dfnas_ray.cli.options import Address, AsJson, ExperimentFile, Overrides, RunDirectory, Verbose, read
from dfnas_ray.cli.summary import show_outcomes


def run(
    file: ExperimentFile,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    address: Address = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole experiment: synthesize, search, retrain, evaluate, report.

    Stages that an earlier command finished with the same settings are kept. After an interruption, the same command
    continues.
    """
    from dfnas_ray.library import run as run_experiment  # heavy import: kept out of `dfnas --help`
    from dfnas_ray.storage.location import Location

    config = read(file, overrides, run_dir, address)
    outcomes = run_experiment(config, Terminal(), verbose)
    show_outcomes(outcomes.values(), Location.parse(config.run_directory) / "report.html", as_json)
