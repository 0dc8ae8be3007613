"""`dfnas benchmark`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from dfnas_ray.cli.console import Terminal, out
from dfnas_ray.cli.options import Address, ExperimentFile, Overrides, RunDirectory, Verbose, read

if TYPE_CHECKING:
    from dfnas_ray.workflow.stage import Outcome, Record


def benchmark(
    file: ExperimentFile,
    table: Annotated[
        str | None, typer.Option("--table", help="CSV or Parquet file of true accuracies, for benchmark.table.")
    ] = None,
    architectures: Annotated[
        int | None, typer.Option("--architectures", help="How many to draw, for benchmark.architectures.")
    ] = None,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    address: Address = None,
    verbose: Verbose = False,
) -> None:
    """Say how well the search algorithms' rankings agree with a table of true accuracies.

    An interrupted benchmark goes on; more architectures, seeds or algorithms are added to what is measured.
    """
    from dfnas_ray.library import benchmark as run_benchmark  # brings everything: kept out of `dfnas --help`
    from dfnas_ray.storage.location import Location
    from dfnas_ray.workflow.benchmark import plan

    changes = list(overrides or [])
    changes += [f"benchmark.table={table}"] if table is not None else []
    changes += [f"benchmark.architectures={architectures}"] if architectures is not None else []
    config = read(file, changes, run_dir, address)
    plan(config)
    _show(run_benchmark(config, Terminal(), verbose))
    out.print(Text(f"Report: {Location.parse(config.run_directory) / 'report.html'}"), soft_wrap=True)


def _show(outcome: Outcome[Record]) -> None:
    result = (outcome.location / "benchmark.json").read_json()
    seeds = len(result["seeds"])
    title = f"{result['architectures']:,} architectures of {result['space']}, {seeds} seed{'s' if seeds > 1 else ''}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    regrets = [name for name in result["rankings"][0] if name.startswith("regret_")]
    table.add_column("ranking by")
    table.add_column("images", min_width=len("not data-free"))
    for heading in (
        "tau",
        "95 %",
        "rho",
        "regret" + ", ".join(name.replace("regret_", "@") for name in regrets),
        "s/arch",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in sorted(result["rankings"], key=lambda row: -row["tau"]["mean"]):
        tau, seconds = row["tau"], row["seconds_per_architecture"]
        table.add_row(
            row["ranking"].replace("+", " + ") + (" ★" if row["best"] else ""),  # a line can break there
            _images(row),
            f"{tau['mean']:.3f}",
            f"{tau['low']:.2f} … {tau['high']:.2f}",
            f"{row['rho']['mean']:.3f}",
            ", ".join(f"{row[name]['mean']:.2f}" for name in regrets),
            "" if seconds is None else f"{seconds:.2g}",
            style="bold" if row["best"] else "",
        )
    out.print(table)
    out.print("★ the best of those that need no real images")
    for heading, name in (("Figures", "benchmark.json"), ("Scores", "scores.parquet"), ("Plot", "benchmark.svg")):
        out.print(Text(f"{heading}: {outcome.location / name}"), soft_wrap=True)


def _images(row: dict[str, Any]) -> str:
    return (row["images"] or "") + ("" if row["data_free"] else " (not data-free)")
