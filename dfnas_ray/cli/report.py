"""`dfnas report`."""

from __future__ import annotations

from dfnas_ray.cli.console import out
from dfnas_ray.cli.options import ExperimentFile, Overrides, RunDirectory, read
from dfnas_ray.storage.run_dir import RunDir


def report(file: ExperimentFile, overrides: Overrides = None, run_dir: RunDirectory = None) -> None:
    """Write report.html from what the run directory holds so far."""
    from dfnas_ray.report.page import write_report  # brings everything: kept out of `dfnas --help`

    config = read(file, overrides, run_dir)
    out.print(f"Report: {write_report(RunDir(config.run_directory))}", soft_wrap=True, highlight=False)
