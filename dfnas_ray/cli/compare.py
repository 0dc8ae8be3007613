"""`dfnas compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from dfnas_ray.cli.console import Terminal, out
from dfnas_ray.cli.options import Address, AsJson, ExperimentFile, Overrides, RunDirectory, Verbose, read
from dfnas_ray.cli.summary import print_json
from dfnas_ray.formatting import plural

if TYPE_CHECKING:
    from dfnas_ray.storage.location import Location


def compare(
    file: ExperimentFile,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    address: Address = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Compare the same search under different settings, such as synthetic, real and noise images, over seeds.

    An interrupted comparison continues. More variants or seeds are added to the finished measurements.
    """
    from dfnas_ray.library.experiments import compare as run_comparison  # heavy import: kept out of `dfnas --help`

    config = read(file, overrides, run_dir, address)
    outcome = run_comparison(config, Terminal(), verbose)
    if as_json:
        print_json([outcome])
        return
    show_comparison(outcome.location)


def show_comparison(folder: Location) -> None:
    """Print the tables in the folder of a finished comparison."""
    from dfnas_ray.comparison.result import TITLES, ComparisonResult
    from dfnas_ray.report.comparison_page import interval, number, signed, titled

    result = ComparisonResult.read(folder)
    for figure, algorithm in dict.fromkeys((row.figure, row.algorithm) for row in result.rows):
        title = f"{algorithm}: {TITLES[figure]}, {plural(len(result.seeds), 'seed')}"
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        table.add_column("variant", overflow="fold")
        for heading in ("mean", "95 %", f"- {result.reference}", "95 %"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("", overflow="fold")
        for row in result.rows:
            if (row.figure, row.algorithm) == (figure, algorithm):
                own, difference = row.value, row.difference
                figures = (number(own.mean, figure), interval(own, figure))
                beside = (signed(difference, figure), interval(difference, figure))
                table.add_row(titled(row), *figures, *beside, row.verdict)
        out.print(table)
        out.print()
    if result.missing:
        out.print(Text(f"Not in the table of accuracies, so not counted: {', '.join(result.missing)}"))
    for heading, name in (("Table", "comparison.md"), ("Figure", "comparison.svg"), ("Figures", "comparison.json")):
        out.print(Text(f"{heading}: {folder / name}"), soft_wrap=True)
