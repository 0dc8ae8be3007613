"""`dfnas report`."""

from __future__ import annotations

from dfnas_ray.cli.console import out
from dfnas_ray.cli.options import ExperimentFile, Overrides, RunDirectory, read
from dfnas_ray.storage.run_dir import RunDir


def report(file: ExperimentFile, overrides: Overrides = None, run_dir: RunDirectory = None) -> None:
    """Write report.html, and the network's model-card.md, from what the run directory holds so far."""
    from dfnas_ray.report.card import write_card  # heavy import: kept out of `dfnas --help`
    from dfnas_ray.report.page import write_report

    config = read(file, overrides, run_dir)
    directory = RunDir(config.run_directory)
    out.print(f"Report: {write_report(directory)}", soft_wrap=True, highlight=False)
    if (card := write_card(directory)) is not None:
        out.print(f"Model card: {card}", soft_wrap=True, highlight=False)
