"""The closing summary of a command: what was made, and where it is."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from dfnas_ray.cli.console import out

if TYPE_CHECKING:
    from dfnas_ray.storage.location import Location
    from dfnas_ray.workflow.evaluation import EvaluationRecord
    from dfnas_ray.workflow.stage import Outcome, Record


def print_json(outcomes: Iterable[Outcome[Record]], report: Location | None = None) -> None:
    """Print the summary and the folder of each stage as JSON, by the stage's name."""
    stages = {
        outcome.stage: {"folder": outcome.location.address, "reused": outcome.reused, **outcome.summary}
        for outcome in outcomes
    }
    values = {"stages": stages, **({"report": str(report)} if report is not None else {})}
    typer.echo(json.dumps(values, indent=2))  # rich would wrap the lines


def show_outcomes(outcomes: Iterable[Outcome[Record]], report: Location | None = None, as_json: bool = False) -> None:
    """Print one row per stage, then the accuracies if there are any, then the report's path."""
    if as_json:
        print_json(outcomes, report)
        return
    from dfnas_ray.workflow.evaluation import EvaluationRecord  # heavy import: kept out of `dfnas --help`

    outcomes = list(outcomes)
    table = Table(box=None, pad_edge=False)
    for heading in ("stage", "result", "time", "where"):
        table.add_column(heading, overflow="fold" if heading == "where" else "ellipsis")
    for outcome in outcomes:
        time = "kept" if outcome.reused else f"{outcome.record.seconds:.0f} s"
        table.add_row(outcome.stage, Text(outcome.record.headline), time, Text(str(outcome.location)))
    out.print(table)
    for outcome in outcomes:
        for number, remark in enumerate(outcome.record.remarks):
            out.print(Text.assemble((f"{outcome.stage}: " if number == 0 else "· ", "dim"), remark))
    for outcome in outcomes:
        if isinstance(outcome.record, EvaluationRecord):
            show_accuracies(outcome.record)
    if report is not None:
        out.print(Text(f"Report: {report}"), soft_wrap=True)


def show_accuracies(record: EvaluationRecord) -> None:
    """Print the accuracy on real images and the cost of each network."""
    from dfnas_ray.workflow.evaluation import NOT_DATA_FREE, ROLES

    table = Table(title=f"Accuracy on {record.images:,} real images: {record.dataset}", title_justify="left")
    for heading in ("network", "architecture", "accuracy", "parameters", "MACs"):
        table.add_column(heading, justify="left" if heading in ("network", "architecture") else "right")
    for name, network in record.in_order.items():
        table.add_row(
            (ROLES[name].title if name in ROLES else name) + ("" if network.data_free else f" ({NOT_DATA_FREE})"),
            network.architecture,
            f"{network.accuracy:.2%}",
            f"{network.params:,}",
            f"{network.macs:,}",
        )
    out.print(table)
