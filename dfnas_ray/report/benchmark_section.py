"""The section of a benchmark: how well each ranking agrees with the accuracies of the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup

from dfnas_ray.errors import StorageError
from dfnas_ray.ranking.result import BenchmarkResult, RankingRow
from dfnas_ray.report.artefacts import Artefacts
from dfnas_ray.report.drawing import picture_file
from dfnas_ray.report.panel import INK, MUTED, limits, outlier_floor, panel, scatter, series
from dfnas_ray.storage.location import Location
from dfnas_ray.workflow.benchmark import Benchmark

_COLOURS = {"synthetic": series(0), "noise": series(1), "real": series(3), None: series(2)}
_MAX_DOTS = 3_000
Array: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
_WIDTH, _ROW, _FRAME, _LETTER = (
    5.9,
    0.235,
    0.72,
    0.063,
)  # inches: figure, row of a bar, title and axis, letter of a name


@dataclass(frozen=True)
class BenchmarkSection:
    """The values that the template shows of the benchmark.

    Attributes:
        result: The figures of the benchmark.
        rows: The rankings, the best first.
        uses_real: Whether some ranking saw real images.
        svgs: The panels.
    """

    result: BenchmarkResult
    rows: list[RankingRow]
    uses_real: bool
    svgs: list[Markup]


def benchmark_section(artefacts: Artefacts) -> BenchmarkSection | None:
    """Return the section of the benchmark, or None if it is not finished."""
    found = artefacts[Benchmark]
    result = found.read(BenchmarkResult.read)
    pictures = found.read(lambda folder: _pictures(folder, result) if result else None)
    if result is None or pictures is None:
        return None
    rows = result.by_merit
    svgs = [Markup(svg) for svg in pictures]
    return BenchmarkSection(result, rows, any(not row.data_free for row in rows), svgs)


def write_figure(folder: Location) -> Location:
    """Write the section's figures as ``benchmark.svg`` into the folder of a finished benchmark."""
    result = BenchmarkResult.read(folder)
    titles = ("Agreement with true accuracies", "The best ranking")
    file = folder / "benchmark.svg"
    file.write_bytes(picture_file(list(zip(titles, _pictures(folder, result), strict=True))))
    return file


def _pictures(folder: Location, result: BenchmarkResult) -> list[str]:
    return [_tau_panel(result.by_merit, result.baseline.tau.mean), _rank_panel(folder, result.best)]


def _colour(row: RankingRow) -> str:
    is_baseline = row.seconds_per_architecture is None  # a baseline, such as MACs, needs no measurement
    return MUTED if is_baseline else _COLOURS[row.images]


def _tau_panel(rows: Sequence[RankingRow], baseline: float) -> str:
    """Draw tau with its interval as one bar per ranking; a dashed line marks tau of the number of parameters."""
    height = _FRAME + _ROW * len(rows)
    left = min(0.6, (0.12 + _LETTER * max(len(row.title) for row in rows)) / _WIDTH)
    place = (left, 0.44 / height, 0.985 - left, 1 - _FRAME / height)
    with panel("benchmark-tau", "Kendall's tau, mean over seeds", "tau", (_WIDTH, height), place) as (axes, finish):
        for position, row in enumerate(rows):
            tau, colour = row.tau, _colour(row)
            axes.barh(position, tau.mean, height=0.62, color=colour, alpha=0.75, linewidth=0)
            axes.plot([tau.low, tau.high], [position, position], color=INK, linewidth=1.3, solid_capstyle="butt")
        axes.axvline(baseline, color=MUTED, linewidth=1, linestyle=(0, (4, 2)))
        axes.axvline(0, color=MUTED, linewidth=0.7)
        axes.set_yticks(range(len(rows)), [row.title for row in rows])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        return finish()


def _rank_panel(folder: Location, best: RankingRow) -> str:
    """Draw the true accuracy of each architecture over its place in the best ranking, a mean over seeds."""
    accuracy, scores = _read_scores(folder, best)
    order = np.argsort(-np.where(np.isnan(scores), -math.inf, scores), axis=1, kind="stable")
    places = np.argsort(order, axis=1).mean(axis=0) + 1
    shown = np.linspace(0, len(accuracy) - 1, min(_MAX_DOTS, len(accuracy))).round().astype(int)
    x_label = "place in the ranking" + (", mean over seeds" if len(scores) > 1 else "")
    title = "True accuracy in the order of the best ranking"
    with panel("benchmark-rank", title, x_label) as (axes, finish):
        low = outlier_floor(accuracy)
        limits(axes, scatter(axes, places[shown], accuracy[shown], _colour(best), low))
        return finish()


def _read_scores(folder: Location, best: RankingRow) -> tuple[Array, Array]:
    """Return the true accuracies (N,), and the scores of the best ranking for each seed (S, N).

    Raises:
        StorageError: the file of scores is missing, or was altered.
    """
    file = folder / "scores.parquet"
    try:
        with pq.ParquetFile(pa.BufferReader(file.read_bytes())) as parquet:
            table = parquet.read()
        accuracy: Array = table["accuracy"].to_numpy().astype(float)
        names = [name for name in table.column_names if name == best.title or name.startswith(f"{best.title}, seed")]
        return accuracy, np.stack([table[name].to_numpy().astype(float) for name in names])
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{file} does not hold the scores of {best.title} ({error}).") from error
