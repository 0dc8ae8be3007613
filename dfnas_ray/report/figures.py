"""Draw the figures of a report: curves of synthesis, searches and trainings, and accuracies against cost.

Each panel is a small figure of its own; the page puts panels side by side as the window allows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from dfnas_ray.algorithms.selection import HistoryPoint
from dfnas_ray.formatting import quantity
from dfnas_ray.report.panel import (
    INK,
    MUTED,
    limits,
    log_scale,
    outlier_floor,
    panel,
    plot,
    ramp,
    scatter,
    series,
    tick,
    variable,
    whole_numbers,
)
from dfnas_ray.report.samples import Curve
from dfnas_ray.training.retraining import EpochFigures

_WIDE, _WIDE_AXES = (6.0, 2.6), (0.1, 0.17, 0.885, 0.7)  # of the figure of accuracies
_LOG_FROM = 20  # ratio of largest to smallest MACs from which on their axis is logarithmic

TERM_TITLES = {
    "total": "Total",
    "cross_entropy": "Cross entropy",
    "bn_statistics": "BatchNorm statistics",
    "total_variation": "Total variation",
    "l2": "L2 norm",
    "adversarial": "Adversarial term",
    "student": "Student: distance from the teacher",
    "student_differs": "Images that the student names otherwise",
}


@dataclass(frozen=True)
class Key:
    """One entry of the legend that the page writes beside the panels."""

    label: str
    colour: str
    dashed: bool = False


@dataclass(frozen=True)
class AccuracyPoint:
    """One network in the figure of accuracies; its 95 % interval is from ``low`` to ``high``."""

    title: str
    macs: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Panels:
    """SVG elements and their common legend."""

    svgs: list[Markup]
    keys: list[Key]

    @classmethod
    def of(cls, svgs: Sequence[str], keys: list[Key]) -> Panels:
        """Return panels from the text of their SVG elements."""
        return cls([Markup(svg) for svg in svgs], keys)


def synthesis_panels(curves: dict[int, Curve], scale_steps: Sequence[int] = ()) -> Panels:
    """Return one panel per loss term with a line per round; dotted lines mark where the resolution changes."""
    rounds = sorted(curves)
    terms = list(dict.fromkeys(name for r in rounds for _, losses in curves[r] for name in losses))
    terms.sort(key=lambda name: name != "total")
    boundaries = np.cumsum(scale_steps)[:-1]
    colours = {r: ramp(position, len(rounds)) for position, r in enumerate(rounds)}
    svgs = []
    for term in terms:
        with panel(f"synthesis-{term}", TERM_TITLES.get(term, term.replace("_", " ")), "step") as (axes, finish):
            for r in rounds:
                points = [(step, losses[term]) for step, losses in curves[r] if term in losses]
                plot(axes, [step for step, _ in points], [value for _, value in points], colours[r])
            for boundary in boundaries:
                axes.axvline(boundary, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
            log_scale(axes)
            svgs.append(finish())
    keys = [Key(f"round {r}", colours[r]) for r in rounds] if len(rounds) > 1 else []
    return Panels.of(svgs, keys)


METRIC_TITLES = {
    "loss": "Supernet training loss",
    "alpha_loss": "Loss of the architecture parameters",
    "entropy": "Entropy of the choices, nats",
    "skips": "Skip connections chosen",
    "eigenvalue": "Dominant eigenvalue in alpha",
    "expected_macs": "Expected MACs",
    "expected_latency": "Expected latency, s",
    "images": "Training images that were there",
}


def keys_of(names: Sequence[str]) -> list[Key]:
    """Return the legend of lines in the order of ``names``."""
    return [Key(name, variable(position)) for position, name in enumerate(names)]


def training_panels(histories: Mapping[str, Sequence[HistoryPoint]]) -> list[str]:
    """Return one panel per training metric of the searches, with a line per trial."""
    names = list(dict.fromkeys(name for points in histories.values() for point in points for name in point.metrics))
    names.sort(key=lambda name: list(METRIC_TITLES).index(name) if name in METRIC_TITLES else len(METRIC_TITLES))
    svgs = []
    for name in names:
        with panel(f"search-{name}", METRIC_TITLES.get(name, name.replace("_", " ")), "epoch") as (axes, finish):
            for position, history in enumerate(histories.values()):
                points = [point for point in history if name in point.metrics]
                if points:
                    values = [point.metrics[name] for point in points]
                    plot(axes, [point.number for point in points], values, series(position))
            if "loss" in name:
                log_scale(axes)
            elif name.startswith("expected"):
                axes.yaxis.set_major_formatter(
                    FuncFormatter(lambda value, _: quantity(value) if value > 1 else tick(value))
                )
            whole_numbers(axes)
            svgs.append(finish())
    return svgs


def sampling_panels(histories: Mapping[str, Sequence[HistoryPoint]], algorithms: Mapping[str, str]) -> list[str]:
    """Return one panel per trial: scores of each round as dots, the best so far as a line.

    Trials of one algorithm are on one scale. ``algorithms`` has the algorithm of each trial.
    """
    rounds = {name: [point for point in points if point.scores] for name, points in histories.items()}
    panels = []
    for position, (name, points) in enumerate(rounds.items()):
        alike = [each for other, each in rounds.items() if algorithms[other] == algorithms[name]]
        scores = np.array([score for each in alike for p in each for score in p.scores or ()], float)
        low = outlier_floor(scores)
        shown = scores[np.isfinite(scores) & (scores >= low)]
        if points:
            panels.append(_sampling_panel(name, position, points, low, shown))
    return panels


def _sampling_panel(name: str, position: int, rounds: Sequence[HistoryPoint], low: float, shown: Any) -> str:
    x = np.array([point.number for point in rounds for _ in point.scores or ()], float)
    y = np.array([score for point in rounds for score in point.scores or ()], float)
    with panel(f"sampling-{name}", f"Candidates, {name}: score", "round") as (axes, finish):
        scatter(axes, x, y, series(position), low)
        best = [(p.number, p.best) for p in rounds if p.best is not None and math.isfinite(p.best)]
        axes.plot([n for n, _ in best], [b for _, b in best], color=INK, linewidth=1.4, zorder=4)
        axes.set_xlim(x.min() - 0.6, x.max() + 0.6)
        limits(axes, shown)
        whole_numbers(axes)
        return finish()


def macs_panel(
    candidates: dict[str, list[tuple[int, float]]], limit: int | None, best: tuple[int | None, float | None]
) -> str:
    """Return the panel of all candidates' scores against MACs, with the limit and the chosen one."""
    with panel("score-macs", "Score of the candidates", "MACs") as (axes, finish):
        pairs = [np.array(pairs, float).reshape(-1, 2) for pairs in candidates.values()]
        everything = np.concatenate(pairs)
        low = outlier_floor(everything[:, 1])
        shown = np.concatenate(
            [scatter(axes, p[:, 0], p[:, 1], series(position), low) for position, p in enumerate(pairs)]
        )
        if None not in best:
            axes.plot([best[0]], [best[1]], marker="o", markersize=8, markerfacecolor="none", color=INK, zorder=5)
        if limit is not None:
            axes.axvline(limit, color=MUTED, linewidth=1, linestyle=(0, (4, 2)))
            axes.annotate(
                "limit", (limit, 1), (-3, -2), xycoords=("data", "axes fraction"), textcoords="offset points",
                ha="right", va="top", color=MUTED, fontsize=8,
            )  # fmt: skip
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value)))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        limits(axes, shown)
        return finish()


def accuracy_panel(rows: Sequence[AccuracyPoint]) -> Panels:
    """Return the panel of each network's accuracy, with its interval, against its MACs."""
    with panel("accuracy-macs", "Accuracy on real images against cost", "MACs", _WIDE, _WIDE_AXES) as (axes, finish):
        for position, row in enumerate(rows):
            colour = series(position)
            axes.plot([row.macs] * 2, [100 * row.low, 100 * row.high], color=colour, linewidth=1.4, alpha=0.55)
            axes.plot([row.macs], [100 * row.accuracy], marker="o", markersize=6.5, color=colour, linestyle="none")
        smallest, largest = min(row.macs for row in rows), max(row.macs for row in rows)
        if smallest > 0 and largest > _LOG_FROM * smallest:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=9))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlim(smallest / 1.3, largest * 1.3)
        else:
            axes.set_xlim(0, 1.06 * max(1, largest))
            axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        low, high = 100 * min(row.low for row in rows), 100 * max(row.high for row in rows)
        margin = max(0.5, 0.08 * (high - low))
        axes.set_ylim(max(0.0, low - margin), min(100.0, high + margin) + 0.02 * margin)
        return Panels.of([finish()], [Key(row.title, variable(place)) for place, row in enumerate(rows)])


def retraining_panels(histories: Mapping[str, Sequence[EpochFigures]]) -> Panels:
    """Return panels of loss and agreement by network: training as a solid line, validation as a dashed one."""
    svgs = []
    with panel("retraining-loss", "Distillation loss", "epoch") as (axes, finish):
        for position, history in enumerate(histories.values()):
            epochs = range(1, len(history) + 1)
            plot(axes, epochs, [entry.get("loss", math.nan) for entry in history], series(position))
            validation = [entry.get("validation_loss", math.nan) for entry in history]
            plot(axes, epochs, validation, series(position), linestyle=(0, (3, 1.6)), linewidth=1.2)
        log_scale(axes)
        whole_numbers(axes)
        svgs.append(finish())
    if any("validation_agreement" in entry for history in histories.values() for entry in history):
        with panel("retraining-agreement", "Agreement with the teacher, validation", "epoch") as (axes, finish):
            for position, history in enumerate(histories.values()):
                epochs = range(1, len(history) + 1)
                agreement = [100 * entry.get("validation_agreement", math.nan) for entry in history]
                plot(axes, epochs, agreement, series(position), linestyle=(0, (3, 1.6)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
            whole_numbers(axes)
            svgs.append(finish())
    keys = [Key(name, variable(position)) for position, name in enumerate(histories)]
    keys += [Key("training", "var(--muted)"), Key("validation", "var(--muted)", dashed=True)]
    return Panels.of(svgs, keys)
