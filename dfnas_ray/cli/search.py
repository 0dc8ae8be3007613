"""`dfnas search`."""

from __future__ import annotations

from dfnas_ray.cli.console import Terminal
from dfnas_ray.cli.options import Address, AsJson, ExperimentFile, Overrides, RunDirectory, Verbose, read
from dfnas_ray.cli.summary import show_outcomes


def search(
    file: ExperimentFile,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    address: Address = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Search for an architecture on the synthetic images, which are made first if they are missing."""
    from dfnas_ray.workflow import run as order  # heavy import: kept out of `dfnas --help`
    from dfnas_ray.workflow.session import Session

    with Session(read(file, overrides, run_dir, address), Terminal(), verbose).opened() as session:
        show_outcomes([order.search(session)], as_json=as_json)
