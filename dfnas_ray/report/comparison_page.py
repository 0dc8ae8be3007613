"""Write a comparison as a table for a paper and as a figure: ``comparison.md`` and ``comparison.svg``."""

from __future__ import annotations

from collections.abc import Sequence

from dfnas_ray.comparison.result import TITLES, ComparedRow, ComparisonResult, Figure
from dfnas_ray.comparison.statistics import Spread
from dfnas_ray.formatting import capitalised, plural
from dfnas_ray.report.drawing import picture_file
from dfnas_ray.report.panel import INK, MUTED, panel, series
from dfnas_ray.storage.location import Location

_WIDTH, _ROW, _FRAME, _LETTER = 5.9, 0.235, 0.72, 0.063  # inches, as for the bars of a benchmark
_UNITS: dict[Figure, str] = {"accuracy": "points", "gain": "points", "regret": "points", "tau": "Kendall's tau"}


def write_comparison(folder: Location, name: str) -> Location:
    """Write the table and the figure of a finished comparison into its folder, and return the table's location.

    Args:
        folder: The folder of the comparison.
        name: The name of the experiment.
    """
    result = ComparisonResult.read(folder)
    target = folder / "comparison.md"
    target.write_bytes(as_markdown(result, name).encode())
    (folder / "comparison.svg").write_bytes(picture_file(panels(result)))
    return target


def as_markdown(result: ComparisonResult, name: str) -> str:
    """Return the tables as Markdown, the differences from the reference first."""
    seeds = ", ".join(map(str, result.seeds))
    parts = [
        f"# {name}: comparison\n",
        f"Seeds {seeds}. Accuracies are from {result.judged_by}, in points."
        + (f" Rankings are of {result.architectures:,} architectures." if result.architectures else "")
        + " Brackets: 95 % intervals: of accuracies over seeds, differences paired by seed; of tau over architectures,"
        " for these seeds.\n",
        f"## Differences from {result.reference}\n",
        _table(
            ("figure", "algorithm", "variant", "difference", "95 %", "what it says"),
            [
                (
                    TITLES[row.figure], row.algorithm, titled(row), signed(row.difference, row.figure),
                    interval(row.difference, row.figure), row.verdict,
                )
                for row in result.rows
                if row.difference is not None
            ],
        ),
        "## Values\n",
        _table(
            ("figure", "algorithm", "variant", "mean", "95 %", "deviation", "by seed"),
            [
                (
                    TITLES[row.figure], row.algorithm, titled(row), number(row.value.mean, row.figure),
                    interval(row.value, row.figure),
                    number(row.value.deviation, row.figure), ", ".join(number(one, row.figure) for one in row.value.per_seed),
                )
                for row in result.rows
            ],
        ),
    ]  # fmt: skip
    if result.found:
        parts += ["## What was found\n", _table(*_found(result))]
    if result.missing:
        parts.append(f"The table of accuracies does not have {', '.join(result.missing)}, so they are not counted.\n")
    parts += [
        "## Variants\n",
        _table(
            ("variant", "settings that differ"),
            [
                (name, ", ".join(f"`{path}: {value}`" for path, value in changed.items()) or "the file's own")
                for name, changed in result.variants.items()
            ],
        ),
    ]
    return "\n".join(parts)


def _found(result: ComparisonResult) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    tested = any(one.mcnemar is not None for one in result.found)
    head = ("variant", "seed", "algorithm", "architecture", "MACs", "accuracy", "random ones")
    rows = [
        (
            one.variant, str(one.seed), one.algorithm, f"`{one.genotype}`", f"{one.macs:,}",
            "not in the table" if one.accuracy is None else number(one.accuracy, "accuracy"),
            "" if one.random_mean is None else f"{number(one.random_mean, 'accuracy')} ({one.random:,})",
            *([] if not tested else [_mcnemar(one.only_right, one.mcnemar)]),
        )
        for one in result.found
    ]  # fmt: skip
    return (*head, *(["only it is right, only the reference; McNemar's p"] if tested else [])), rows


def _mcnemar(only_right: tuple[int, int] | None, p: float | None) -> str:
    return "" if only_right is None or p is None else f"{only_right[0]:,}, {only_right[1]:,}; {p:.2g}"


def titled(row: ComparedRow) -> str:
    """Return the name of a row's variant in tables."""
    return row.variant + ("" if row.data_free else " (not data-free)")


def number(value: float, figure: Figure, sign: str = "") -> str:
    """Return a value as text for tables: points with two decimals, tau with three."""
    return f"{value:{sign}.{3 if figure == 'tau' else 2}f}"


def signed(spread: Spread | None, figure: Figure) -> str:
    """Return a difference with its sign, or an empty text."""
    return "" if spread is None else number(spread.mean, figure, "+")


def interval(spread: Spread | None, figure: Figure) -> str:
    """Return the 95 % interval, or an empty text."""
    if spread is None or spread.low is None or spread.high is None:
        return ""
    return f"{number(spread.low, figure)} .. {number(spread.high, figure)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def panels(result: ComparisonResult) -> list[tuple[str, str]]:
    """Return one panel per figure, with a bar, an interval and the seeds for each algorithm in each variant."""
    found = []
    for figure in dict.fromkeys(row.figure for row in result.rows):
        rows = [row for row in result.rows if row.figure == figure]
        found.append((capitalised(TITLES[figure]), _bars(figure, rows, list(result.variants))))
    return found


def _bars(figure: Figure, rows: Sequence[ComparedRow], variants: Sequence[str]) -> str:
    several = len({row.algorithm for row in rows}) > 1
    titles = [f"{row.algorithm}, {titled(row)}" if several else titled(row) for row in rows]
    height = _FRAME + _ROW * len(rows)
    left = min(0.6, (0.12 + _LETTER * max(map(len, titles))) / _WIDTH)
    place = (left, 0.44 / height, 0.985 - left, 1 - _FRAME / height)
    seeds = plural(len(rows[0].value.per_seed), "seed")
    title = f"Mean over {seeds}, with its 95 % interval; a dot for each seed"
    with panel(f"comparison-{figure}", title, _UNITS[figure], (_WIDTH, height), place) as (axes, finish):
        for position, row in enumerate(rows):
            colour = series(variants.index(row.variant))
            value = row.value
            if figure != "accuracy":  # accuracies are far from 0: dots alone
                axes.barh(position, value.mean, height=0.62, color=colour, alpha=0.55, linewidth=0)
            axes.plot(
                value.per_seed,
                [position] * len(value.per_seed),
                linestyle="none",
                marker="o",
                markersize=3,
                color=colour,
            )
            axes.plot([value.mean] * 2, [position - 0.31, position + 0.31], color=colour, linewidth=2)
            if value.low is not None:
                axes.plot(
                    [value.low, value.high], [position, position], color=INK, linewidth=1.3, solid_capstyle="butt"
                )
        if figure != "accuracy":
            axes.axvline(0, color=MUTED, linewidth=0.7)
        axes.set_yticks(range(len(rows)), titles)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        return finish()
