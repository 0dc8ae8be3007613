"""`dfnas benchmark`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from dfnas_ray.cli.console import Terminal, out
from dfnas_ray.cli.options import Address, AsJson, ExperimentFile, Overrides, RunDirectory, Verbose, read, text_override
from dfnas_ray.cli.summary import print_json
from dfnas_ray.formatting import plural

if TYPE_CHECKING:
    from dfnas_ray.ranking.result import RankingRow
    from dfnas_ray.storage.location import Location


def benchmark(
    file: ExperimentFile,
    table: Annotated[
        str | None, typer.Option("--table", help="CSV or Parquet file of true accuracies, for benchmark.table.")
    ] = None,
    architectures: Annotated[
        int | None,
        typer.Option("--architectures", help="Number of architectures to draw, for benchmark.architectures."),
    ] = None,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    address: Address = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Measure how well the rankings of the search algorithms agree with a table of true accuracies.

    An interrupted benchmark continues. More architectures, seeds or algorithms are added to the finished measurements.
    """
    from dfnas_ray.library import benchmark as run_benchmark  # heavy import: kept out of `dfnas --help`
    from dfnas_ray.storage.location import Location
    from dfnas_ray.workflow.benchmark import plan

    changes = list(overrides or [])
    changes += [text_override("benchmark.table", table)] if table is not None else []
    changes += [f"benchmark.architectures={architectures}"] if architectures is not None else []
    config = read(file, changes, run_dir, address)
    plan(config)
    outcome, page = run_benchmark(config, Terminal(), verbose), Location.parse(config.run_directory) / "report.html"
    if as_json:
        print_json([outcome], page)
        return
    show_rankings(outcome.location)
    out.print(Text(f"Report: {page}"), soft_wrap=True)


def show_rankings(folder: Location) -> None:
    """Print the rankings in the folder of a finished benchmark."""
    from dfnas_ray.ranking.result import BenchmarkResult

    result = BenchmarkResult.read(folder)
    title = f"{result.architectures:,} architectures of {result.space}, {plural(len(result.seeds), 'seed')}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    rows = result.by_merit
    table.add_column("ranking by")
    table.add_column("images", min_width=len("not data-free"))
    for heading in (
        "tau",
        "95 %",
        "rho",
        "regret" + ", ".join(f"@{k}" for k in rows[0].regrets),
        "s/arch",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        seconds = row.seconds_per_architecture
        table.add_row(
            row.ranking.replace("+", " + ") + (" ★" if row.best else ""),  # the line can be wrapped there
            _images(row),
            f"{row.tau.mean:.3f}",
            f"{row.tau.low:.2f} … {row.tau.high:.2f}",
            f"{row.rho.mean:.3f}",
            ", ".join(f"{regret.mean:.2f}" for regret in row.regrets.values()),
            "" if seconds is None else f"{seconds:.2g}",
            style="bold" if row.best else "",
        )
    out.print(table)
    out.print("★ the best ranking that needs no real images")
    for heading, name in (("Figures", "benchmark.json"), ("Scores", "scores.parquet"), ("Plot", "benchmark.svg")):
        out.print(Text(f"{heading}: {folder / name}"), soft_wrap=True)


def _images(row: RankingRow) -> str:
    return (row.images or "") + ("" if row.data_free else " (not data-free)")
