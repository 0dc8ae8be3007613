"""The closing summary of a command: what was made, and where it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from dfnas_ray.cli.console import out

if TYPE_CHECKING:
    from dfnas_ray.storage.location import Location
    from dfnas_ray.workflow.stage import Outcome, Record


def show_outcomes(outcomes: Iterable[Outcome[Record]], report: Location | None = None) -> None:
    """Print one row per stage, then the accuracies if there are any, then the report's path."""
    outcomes = list(outcomes)
    table = Table(box=None, pad_edge=False)
    for heading in ("stage", "result", "time", "where"):
        table.add_column(heading, overflow="fold" if heading == "where" else "ellipsis")
    for outcome in outcomes:
        time = "kept" if outcome.reused else f"{outcome.summary['seconds']:.0f} s"
        table.add_row(outcome.stage, Text(_result(outcome)), time, Text(str(outcome.location)))
    out.print(table)
    for outcome in outcomes:
        if outcome.stage == "evaluation":
            show_accuracies(outcome)
    if report is not None:
        out.print(Text(f"Report: {report}"), soft_wrap=True)


def show_accuracies(evaluation: Outcome[Record]) -> None:
    """Print each network's accuracy on real images beside its cost."""
    summary = evaluation.summary
    table = Table(title=f"Accuracy on {summary['images']:,} real images: {summary['dataset']}", title_justify="left")
    for heading in ("network", "architecture", "accuracy", "parameters", "MACs"):
        table.add_column(heading, justify="left" if heading in ("network", "architecture") else "right")
    titles = {"teacher": "teacher", "retraining": "searched", "baseline": "random, same budget"}
    for name in [name for name in titles if name in summary["networks"]]:
        entry = summary["networks"][name]
        table.add_row(
            titles[name],
            entry["architecture"],
            f"{entry['accuracy']:.2%}",
            f"{entry['params']:,}",
            f"{entry['macs']:,}",
        )
    out.print(table)


def _result(outcome: Outcome[Record]) -> str:
    summary = outcome.summary
    match outcome.stage:
        case "synthesis":
            return f"{summary['images']:,} images in {summary['shards']} shards"
        case "search":
            return f"{summary['genotype']} ({summary['macs']:,} MACs)"
        case "retraining" | "baseline":
            return f"{summary['genotype']}: agrees with the teacher on {summary['validation_agreement']:.1%}"
        case _:
            return f"{len(summary['networks'])} networks"
