"""`dfnas synthesize`."""

from __future__ import annotations

from dfnas_ray.cli.console import Terminal
from dfnas_ray.cli.options import Address, AsJson, ExperimentFile, Overrides, RunDirectory, Verbose, read
from dfnas_ray.cli.summary import show_outcomes


def synthesize(
    file: ExperimentFile,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    address: Address = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Make synthetic images from the teacher: Parquet shards with soft labels."""
    from dfnas_ray.workflow.session import Session  # heavy import: kept out of `dfnas --help`
    from dfnas_ray.workflow.synthesis import Synthesis

    with Session(read(file, overrides, run_dir, address), Terminal(), verbose).opened() as session:
        show_outcomes([Synthesis(session).finish()], as_json=as_json)
