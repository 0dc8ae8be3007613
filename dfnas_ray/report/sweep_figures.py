"""The figures of a sweep's page, as PNG: Optuna's own, and slices along each coefficient."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any

import matplotlib as mpl
import optuna
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from dfnas_ray.sweeps.config import SweepConfig

_ENOUGH_FOR_IMPORTANCE = 4
_COLUMNS = 3  # of slices side by side
_SLICE = (2.8, 2.6)  # inches of each
_LABEL_WIDTH = 26  # characters that fit below it


def sweep_figures(study: optuna.Study, config: SweepConfig) -> list[tuple[str, str, str]]:
    """Return title, explanation and data URI of every figure that so many trials allow."""
    from optuna.visualization import matplotlib as plots

    drawings: list[tuple[str, str, Callable[[], Any]]] = []
    complete = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
    for index, objective in enumerate(config.objectives):
        target = partial(_value, index) if len(config.objectives) > 1 else None
        shown: Any = {"target": target, "target_name": objective}
        drawings += [
            (
                f"History of {objective}",
                "Each point is a trial, in the order in which they were proposed.",
                partial(plots.plot_optimization_history, study, **shown),
            ),
            (
                f"{objective} along each coefficient",
                "Darker points came later.",
                partial(draw_slices, complete, index, objective),
            ),
        ]
        differing = len({trial.values[index] for trial in complete}) > 1
        if differing:
            drawings.append(
                (
                    f"{objective}: parallel coordinates",
                    "One line per trial, from its settings to its figure.",
                    partial(plots.plot_parallel_coordinate, study, **shown),
                )
            )
        if differing and len(complete) >= _ENOUGH_FOR_IMPORTANCE:
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            drawings.append(
                (
                    f"What decides {objective}",
                    "Share of the variance that each coefficient explains (fANOVA).",
                    partial(plots.plot_param_importances, study, **{**shown, "evaluator": evaluator}),
                )
            )
    if len(config.objectives) in (2, 3):
        note = "No trial beats those in red in every objective."
        drawings.append(("Pareto front", note, partial(plots.plot_pareto_front, study)))
    figures = []
    with mpl.rc_context({"font.size": 9, "figure.figsize": (8, 4.2)}), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for title, note, draw in drawings:
            draw()
            figures.append((title, note, _png()))
    return figures


def draw_slices(trials: list[FrozenTrial], index: int, objective: str) -> Any:
    """Draw an objective against each setting, a few panels in a row, and return the figure.

    Args:
        trials: Finished ones.
        index: Of the objective among their values.
        objective: Its name.
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
            layout="constrained",  # what is written below one panel keeps clear of the others
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
                x, y, c=[trial.number for trial in having], cmap="Blues", edgecolors="grey", s=26,
                vmin=min(trial.number for trial in trials) - 1, vmax=max(trial.number for trial in trials),
            )  # fmt: skip
            axes.set_xlabel(break_at_dots(name, _LABEL_WIDTH))
            if number % columns == 0:
                axes.set_ylabel(objective)
            axes.grid(color="0.92")
            axes.set_axisbelow(True)
        if points is not None:
            figure.colorbar(points, ax=panels, label="trial", ticks=MaxNLocator(5, integer=True), aspect=30)
    return figure


def break_at_dots(name: str, width: int) -> str:
    """Return a dotted name in lines of at most ``width`` characters, as far as its dots allow."""
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
        **({"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if slanted else {}),
    )
    axes.set_xlim(-0.5, len(choices) - 0.5)


def _set_scale(axes: Any, is_log: bool, values: list[Any]) -> None:
    """Set the scale, and no more ticks than there is room for."""
    if is_log and max(values) > min(values) > 0:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
        if max(values) > 10 * min(values):
            axes.xaxis.set_major_locator(LogLocator(numticks=5))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.xaxis.set_major_formatter("{x:g}")
        return
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=all(isinstance(value, int) for value in values)))


def _value(index: int, trial: FrozenTrial) -> float:
    value: float = trial.values[index]
    return value


def _png() -> str:
    buffer = BytesIO()
    figure = plt.gcf()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight")
    plt.close("all")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
