"""Draw the figures of a sweep's page as SVG: history, slices, parallel coordinates, importances, Pareto fronts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
from markupsafe import Markup
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from dfnas_ray.report.panel import INK, MUTED, element_of, middle_tones, page_style, series, tick
from dfnas_ray.sweeps.config import SweepConfig

_ENOUGH_FOR_IMPORTANCE = 4
_BLUE, _ORANGE = series(0), series(1)
_WEAKEST = 0.15  # opacity of the line of the worst trial
_FRONT = (3.4, 3.1)  # inches of a panel of two objectives
_COLUMNS = 3  # slices side by side
_SLICE = (2.8, 2.6)  # inches of a slice
_LABEL_WIDTH = 26  # characters that fit below a slice
_PARALLEL_WIDTH = 2.1  # inches from one upright axis to the next
_TRIALS_PER_COEFFICIENT = 10  # trials needed for importances that another sweep would confirm


def sweep_figures(study: optuna.Study, config: SweepConfig) -> list[tuple[str, str, Markup]]:
    """Return title, explanation and SVG element of every figure that can be drawn from so many trials."""
    drawings: list[tuple[str, str, Callable[[], Any]]] = []
    complete = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
    for index, objective in enumerate(config.objectives):
        maximise = config.directions[index] == "maximize"
        drawings += [
            (
                f"History of {objective}",
                "Each point is a trial, in the order of proposal; the line is the best so far.",
                partial(_draw_history, complete, index, objective, maximise),
            ),
            (
                f"{objective} along each coefficient",
                "The colour shows the number of the trial, by the bar beside the panels.",
                partial(draw_slices, complete, index, objective),
            ),
        ]
        differing = len({trial.values[index] for trial in complete}) > 1
        if differing:
            drawings.append(
                (
                    f"{objective}: parallel coordinates",
                    "One line per trial, from its settings to its objective. Stronger lines are better trials.",
                    partial(draw_parallel, complete, index, objective, maximise),
                )
            )
        shares = _importances(study, index) if differing and len(complete) >= _ENOUGH_FOR_IMPORTANCE else {}
        if shares:
            drawings.append(
                (
                    f"What decides {objective}",
                    _note_on_importance(complete),
                    partial(_draw_importance, shares),
                )
            )
    if len(config.objectives) in (2, 3):
        note = "No trial beats the large points in every objective."
        front = [trial.number for trial in study.best_trials]
        drawings.append(("Pareto front", note, partial(draw_front, complete, front, config.objectives)))
    figures = []
    for number, (title, note, draw) in enumerate(drawings):
        with page_style(**{"font.size": 9}):
            figure = draw()
            figures.append((title, note, Markup(element_of(figure, f"sweep-{number}", title))))
            plt.close(figure)
    return figures


def draw_front(trials: list[FrozenTrial], front: Sequence[int], objectives: Sequence[str]) -> Any:
    """Draw each pair of objectives against each other, and return the figure.

    Args:
        trials: The finished trials.
        front: Numbers of the trials that no other one beats in every objective.
        objectives: Names of the objectives, in the order of the trials' values.
    """
    pairs = list(combinations(range(len(objectives)), 2))
    figure, panels = plt.subplots(
        1, len(pairs), squeeze=False, figsize=(_FRONT[0] * len(pairs), _FRONT[1]), layout="constrained"
    )
    for axes, (x, y) in zip(panels.flat, pairs, strict=True):
        for best, colour, size in ((False, _BLUE, 16), (True, _ORANGE, 34)):
            chosen = [trial.values for trial in trials if (trial.number in front) == best]
            axes.scatter(
                [values[x] for values in chosen], [values[y] for values in chosen], c=colour, s=size, linewidths=0
            )
        axes.set(xlabel=objectives[x], ylabel=objectives[y])
        axes.xaxis.set_major_locator(MaxNLocator(5))
        _set_grid(axes)
    return figure


def draw_slices(trials: list[FrozenTrial], index: int, objective: str) -> Any:
    """Draw an objective against each setting, a few panels in a row, and return the figure.

    Args:
        trials: The finished trials.
        index: Index of the objective among their values.
        objective: Name of the objective.
    """
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    columns = max(1, min(_COLUMNS, len(names)))
    rows = max(1, -(-len(names) // columns))
    with mpl.rc_context({"font.size": 9, "axes.labelsize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8}):
        figure, panels = plt.subplots(
            rows,
            columns,
            sharey=True,
            squeeze=False,
            figsize=(_SLICE[0] * columns + 0.9, _SLICE[1] * rows),
            layout="constrained",  # keeps labels clear of other panels
        )
        points = None
        for axes in panels.flat[len(names) :]:
            axes.set_axis_off()
        for number, (axes, name) in enumerate(zip(panels.flat, names, strict=False)):
            having = [trial for trial in trials if name in trial.params]
            x, y = [trial.params[name] for trial in having], [trial.values[index] for trial in having]
            distribution = having[0].distributions[name]
            if isinstance(distribution, CategoricalDistribution):
                x = [distribution.choices.index(value) for value in x]
                _name_choices(axes, [str(choice) for choice in distribution.choices])
            else:
                _set_scale(axes, getattr(distribution, "log", False), x)
            points = axes.scatter(
                x, y, c=[trial.number for trial in having], cmap=middle_tones(), linewidths=0, s=26,
                vmin=min(trial.number for trial in trials), vmax=max(trial.number for trial in trials),
            )  # fmt: skip
            axes.set_xlabel(break_at_dots(name, _LABEL_WIDTH))
            if number % columns == 0:
                axes.set_ylabel(objective)
            _set_grid(axes)
        if points is not None:
            figure.colorbar(points, ax=panels, label="trial", ticks=MaxNLocator(5, integer=True), aspect=30)
    return figure


def draw_parallel(trials: list[FrozenTrial], index: int, objective: str, maximise: bool) -> Any:
    """Draw each trial as a line through an upright axis for each setting and one for the objective; return the figure.

    Args:
        trials: The finished trials.
        index: Index of the objective among their values.
        objective: Name of the objective.
        maximise: Whether large values are better, and drawn stronger.
    """
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    scales = [_scale_of(trials, name) for name in names]
    values = [trial.values[index] for trial in trials]
    scales.append(_Scale.of_numbers(min(values), max(values)))
    figure, axes = plt.subplots(figsize=(min(12.0, max(6.5, _PARALLEL_WIDTH * len(scales))), 4.2), layout="constrained")
    for trial in sorted(trials, key=lambda trial: trial.values[index], reverse=not maximise):  # the best on top
        places = [trial.params.get(name, _NOWHERE) for name in names] + [trial.values[index]]
        heights = [scale.height(place) for scale, place in zip(scales, places, strict=True)]
        merit = heights[-1] if maximise else 1 - heights[-1]
        strength = _WEAKEST + (1 - _WEAKEST) * merit
        axes.plot(heights, color=_BLUE, alpha=strength, linewidth=1.4, marker="o", markersize=3, markeredgewidth=0)
    for x, (name, scale) in enumerate(zip([*names, objective], scales, strict=True)):
        axes.axvline(x, color=MUTED, linewidth=1, zorder=0)
        for height, label in scale.ticks:
            axes.plot([x - 0.02, x], [height, height], color=MUTED, linewidth=1)
            axes.text(x - 0.04, height, label, ha="right", va="center", fontsize=8, color=MUTED, parse_math=False)
        axes.text(x, -0.07, break_at_dots(name, _LABEL_WIDTH), ha="center", va="top", color=INK)
    axes.set_xlim(-0.5, len(scales) - 0.7)
    axes.set_ylim(-0.05, 1.05)
    axes.set_axis_off()
    return figure


_NOWHERE = object()  # stands for a setting that a trial does not have


@dataclass(frozen=True)
class _Scale:
    """The heights of values on an axis from 0 to 1, and its ticks."""

    height: Callable[[Any], float]
    ticks: list[tuple[float, str]]

    @staticmethod
    def of_numbers(low: float, high: float, is_log: bool = False) -> _Scale:
        bend = math.log10 if is_log else float
        width = bend(high) - bend(low)

        def height(value: Any) -> float:
            if value is _NOWHERE:
                return math.nan
            return (bend(value) - bend(low)) / width if width else 0.5

        locator = LogLocator(numticks=5) if is_log and high > 10 * low else MaxNLocator(4)
        ticks = [tick for tick in locator.tick_values(low, high) if low <= tick <= high]
        return _Scale(height, [(height(tick), f"{tick:.4g}") for tick in ticks])

    @staticmethod
    def of_choices(choices: Sequence[Any]) -> _Scale:
        heights = {json.dumps(choice): place / max(1, len(choices) - 1) for place, choice in enumerate(choices)}
        ticks = [(heights[json.dumps(choice)], str(choice)) for choice in choices]
        return _Scale(lambda value: math.nan if value is _NOWHERE else heights[json.dumps(value)], ticks)


def _scale_of(trials: list[FrozenTrial], name: str) -> _Scale:
    distribution = next(trial.distributions[name] for trial in trials if name in trial.params)
    if isinstance(distribution, CategoricalDistribution):
        return _Scale.of_choices(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return _Scale.of_numbers(distribution.low, distribution.high, distribution.log)


def _draw_history(trials: list[FrozenTrial], index: int, objective: str, maximise: bool) -> Any:
    numbers, values = [trial.number for trial in trials], [trial.values[index] for trial in trials]
    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    best = np.maximum.accumulate(values) if maximise else np.minimum.accumulate(values)
    axes.step(numbers, best, where="post", color=_BLUE, linewidth=1.2)
    axes.scatter(numbers, values, color=_BLUE, s=26)
    axes.set(xlabel="trial", ylabel=objective)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _set_grid(axes)
    return figure


def _importances(study: optuna.Study, index: int) -> dict[str, float]:
    """Return each setting's share of the variance of an objective; empty if the settings explain none."""
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    target = partial(_value, index) if len(study.directions) > 1 else None
    try:
        return optuna.importance.get_param_importances(study, evaluator=evaluator, target=target)
    except RuntimeError:  # all trials had the same settings
        return {}


def _draw_importance(shares: Mapping[str, float]) -> Any:
    figure, axes = plt.subplots(figsize=(8, 0.8 + 0.45 * len(shares)), layout="constrained")
    bars = axes.barh(list(shares)[::-1], list(shares.values())[::-1], height=0.6, color=_BLUE)
    axes.bar_label(bars, fmt="{:.0%}", padding=4)
    axes.set_xlim(0, 1.1 * max(shares.values()))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    _set_grid(axes)
    return figure


def _set_grid(axes: Any) -> None:
    axes.grid(visible=True)  # in the colour of the page's grid
    axes.set_axisbelow(True)


def _note_on_importance(trials: list[FrozenTrial]) -> str:
    note = "Share of the variance that each coefficient explains (fANOVA)."
    if len(trials) < _TRIALS_PER_COEFFICIENT * len({name for trial in trials for name in trial.params}):
        note += f" {len(trials)} trials are too few for more than a hint."
    return note


def break_at_dots(name: str, width: int) -> str:
    """Return a dotted name, broken at its dots into lines of at most ``width`` characters where possible."""
    lines = [""]
    for part in name.split("."):
        piece = part if not lines[-1] else f".{part}"
        if lines[-1] and len(lines[-1]) + len(piece) > width:
            lines[-1] += "."
            lines.append(part)
        else:
            lines[-1] += piece
    return "\n".join(lines)


def _name_choices(axes: Any, choices: list[str]) -> None:
    slanted = sum(map(len, choices)) > _LABEL_WIDTH
    axes.set_xticks(
        range(len(choices)),
        choices,
        parse_math=False,  # a choice may contain a dollar sign
        **({"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if slanted else {}),
    )
    axes.set_xlim(-0.5, len(choices) - 0.5)


def _set_scale(axes: Any, is_log: bool, values: list[Any]) -> None:
    """Set the scale of the x axis, with no more ticks than fit."""
    if is_log and max(values) > min(values) > 0:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
        if max(values) > 10 * min(values):
            axes.xaxis.set_major_locator(LogLocator(numticks=5))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.xaxis.set_major_formatter("{x:g}")
        return
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=all(isinstance(value, int) for value in values)))


def _value(index: int, trial: FrozenTrial) -> float:
    value: float = trial.values[index]
    return value
