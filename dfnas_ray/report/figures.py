"""Curves as SVG elements whose colours are CSS variables, so that one figure suits light, dark and printed pages.

Each panel is a small figure of its own; the page lays panels side by side as the window allows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from dfnas_ray.algorithms.selection import HistoryPoint
from dfnas_ray.formatting import quantity
from dfnas_ray.report.samples import Curve
from dfnas_ray.training.retraining import EpochFigures

_WIDTH, _HEIGHT = 3.75, 2.45  # inches of a panel
_AXES = (0.125, 0.18, 0.865, 0.68)  # left, bottom, width, height, as shares of it
_WIDE, _WIDE_AXES = (6.0, 2.6), (0.1, 0.17, 0.885, 0.7)  # of the one figure of accuracies
_LOG_FROM = 20  # times as many MACs
INK, MUTED, _GRID = "#010101", "#020202", "#030303"  # placeholders: each becomes a CSS variable
_VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", _GRID: "var(--grid)"}
_SERIES = tuple(f"#0{index}0000" for index in range(1, 9))
_VARIABLES.update({colour: f"var(--series-{index})" for index, colour in enumerate(_SERIES, start=1)})
_RAMP = ("#4a7bd0", "#8a6fc4", "#c0649d", "#d8685f", "#cf8a2e")  # first to last round, mid-tones on light and dark
_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dfnas",
    "font.family": "DejaVu Sans",  # ships with matplotlib; the page's own font replaces it and is not wider
    "font.size": 8.5,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
}

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
    """One network of the figure of accuracies: its 95 % interval is from ``low`` to ``high``."""

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
        """Return drawn panels as a page takes them."""
        return cls([Markup(svg) for svg in svgs], keys)


def synthesis_panels(curves: dict[int, Curve], scale_steps: Sequence[int] = ()) -> Panels:
    """Draw one panel per loss term with a line per round; dotted lines where the resolution changes."""
    rounds = sorted(curves)
    terms = list(dict.fromkeys(name for r in rounds for _, losses in curves[r] for name in losses))
    terms.sort(key=lambda name: name != "total")
    boundaries = np.cumsum(scale_steps)[:-1]
    colours = {r: _ramp(position, len(rounds)) for position, r in enumerate(rounds)}
    svgs = []
    for term in terms:
        with panel(f"synthesis-{term}", TERM_TITLES.get(term, term.replace("_", " ")), "step") as (axes, finish):
            for r in rounds:
                points = [(step, losses[term]) for step, losses in curves[r] if term in losses]
                _plot(axes, [step for step, _ in points], [value for _, value in points], colours[r])
            for boundary in boundaries:
                axes.axvline(boundary, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
            _log_scale(axes)
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
    """Return the legend of lines that are drawn in the order of ``names``."""
    return [Key(name, _variable(position)) for position, name in enumerate(names)]


def training_panels(histories: Mapping[str, Sequence[HistoryPoint]]) -> list[str]:
    """Draw what the searches recorded in training, one panel per metric with a line per trial."""
    names = list(dict.fromkeys(name for points in histories.values() for point in points for name in point.metrics))
    names.sort(key=lambda name: list(METRIC_TITLES).index(name) if name in METRIC_TITLES else len(METRIC_TITLES))
    svgs = []
    for name in names:
        with panel(f"search-{name}", METRIC_TITLES.get(name, name.replace("_", " ")), "epoch") as (axes, finish):
            for position, history in enumerate(histories.values()):
                points = [point for point in history if name in point.metrics]
                if points:
                    values = [point.metrics[name] for point in points]
                    _plot(axes, [point.number for point in points], values, series(position))
            if "loss" in name:
                _log_scale(axes)
            elif name.startswith("expected"):
                axes.yaxis.set_major_formatter(
                    FuncFormatter(lambda value, _: quantity(value) if value > 1 else tick(value))
                )
            _whole_numbers(axes)
            svgs.append(finish())
    return svgs


def sampling_panels(histories: Mapping[str, Sequence[HistoryPoint]]) -> list[str]:
    """Draw, per trial, the scores of each round as dots and the best so far as a line, all on one scale."""
    rounds = {name: [point for point in points if point.scores] for name, points in histories.items()}
    scores = np.array([score for points in rounds.values() for p in points for score in p.scores or ()], float)
    low = outlier_floor(scores)
    shown = scores[np.isfinite(scores) & (scores >= low)]
    return [
        _sampling_panel(name, position, points, low, shown)
        for position, (name, points) in enumerate(rounds.items())
        if points
    ]


def _sampling_panel(name: str, position: int, rounds: Sequence[HistoryPoint], low: float, shown: Any) -> str:
    x = np.array([point.number for point in rounds for _ in point.scores or ()], float)
    y = np.array([score for point in rounds for score in point.scores or ()], float)
    with panel(f"sampling-{name}", f"Candidates, {name}: score", "round") as (axes, finish):
        scatter(axes, x, y, series(position), low)
        best = [(p.number, p.best) for p in rounds if p.best is not None and math.isfinite(p.best)]
        axes.plot([n for n, _ in best], [b for _, b in best], color=INK, linewidth=1.4, zorder=4)
        axes.set_xlim(x.min() - 0.6, x.max() + 0.6)
        limits(axes, shown)
        _whole_numbers(axes)
        return finish()


def macs_panel(
    candidates: dict[str, list[tuple[int, float]]], limit: int | None, best: tuple[int | None, float | None]
) -> str:
    """Draw every candidate's score against its MACs, the limit, and the one chosen."""
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
    """Draw each network's accuracy, with its interval, against its MACs."""
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
        return Panels.of([finish()], [Key(row.title, _variable(place)) for place, row in enumerate(rows)])


def retraining_panels(histories: Mapping[str, Sequence[EpochFigures]]) -> Panels:
    """Draw loss and agreement of the networks named: training solid, validation dashed."""
    svgs = []
    with panel("retraining-loss", "Distillation loss", "epoch") as (axes, finish):
        for position, history in enumerate(histories.values()):
            epochs = range(1, len(history) + 1)
            _plot(axes, epochs, [entry.get("loss", math.nan) for entry in history], series(position))
            validation = [entry.get("validation_loss", math.nan) for entry in history]
            _plot(axes, epochs, validation, series(position), linestyle=(0, (3, 1.6)), linewidth=1.2)
        _log_scale(axes)
        _whole_numbers(axes)
        svgs.append(finish())
    if any("validation_agreement" in entry for history in histories.values() for entry in history):
        with panel("retraining-agreement", "Agreement with the teacher, validation", "epoch") as (axes, finish):
            for position, history in enumerate(histories.values()):
                epochs = range(1, len(history) + 1)
                agreement = [100 * entry.get("validation_agreement", math.nan) for entry in history]
                _plot(axes, epochs, agreement, series(position), linestyle=(0, (3, 1.6)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
            _whole_numbers(axes)
            svgs.append(finish())
    keys = [Key(name, _variable(position)) for position, name in enumerate(histories)]
    keys += [Key("training", "var(--muted)"), Key("validation", "var(--muted)", dashed=True)]
    return Panels.of(svgs, keys)


@contextmanager
def panel(
    name: str,
    title: str,
    x_label: str,
    size: tuple[float, float] = (_WIDTH, _HEIGHT),
    place: tuple[float, float, float, float] = _AXES,
) -> Iterator[tuple[Any, Callable[[], str]]]:
    """Give axes to draw on and a function that returns the SVG.

    Args:
        name: Unique on its page.
        title: Above the axes.
        x_label: Below them.
        size: Width and height, in inches.
        place: Left, bottom, width and height of the axes, as shares of the size. The same in every panel by default,
            so that panels side by side line up.
    """
    with rc_context(_SETTINGS):
        figure = Figure(figsize=size)
        FigureCanvasSVG(figure)
        axes = figure.add_axes(place)
        figure.text(0, 0.985, title, va="top", fontsize=9.5)
        axes.set_xlabel(x_label)
        axes.margins(x=0.02)

        def finish() -> str:
            buffer = StringIO()
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
            return _for_page(buffer.getvalue(), name, title)

        yield axes, finish


@contextmanager
def page_style(**settings: Any) -> Iterator[None]:
    """Let what is drawn in the block suit the page, in light and in dark; `element_of` makes an element of it."""
    with rc_context({**_SETTINGS, **settings}):
        yield


def element_of(figure: Figure, name: str, title: str) -> str:
    """Return a figure as an SVG element, cut to what is drawn.

    Args:
        figure: Drawn in `page_style`.
        name: Unique on its page.
        title: What a screen reader says.
    """
    buffer = StringIO()
    figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    return _for_page(buffer.getvalue(), name, title)


def middle_tones() -> LinearSegmentedColormap:
    """Return colours from first to last that are seen on light and on dark."""
    return LinearSegmentedColormap.from_list("middle-tones", _RAMP)


def _for_page(svg: str, name: str, title: str) -> str:
    """Turn matplotlib's file into an element: no prolog, ids of its own, CSS variables for colours, the page's font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    prefix = re.sub(r"[^a-z0-9]+", "-", name.lower())
    svg = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans)", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    label = re.sub(r'[<>&"]', " ", title)
    return svg.replace("<svg", f'<svg class="panel" role="img" aria-label="{label}"', 1).strip()


def _plot(axes: Any, x: Sequence[float], y: Sequence[float], colour: str, **style: Any) -> None:
    values = [value if isinstance(value, int | float) and math.isfinite(value) else math.nan for value in y]
    marker = {"marker": "o", "markersize": 3} if len(values) == 1 else {}
    axes.plot(list(x), values, color=colour, **marker, **style)


def scatter(axes: Any, x: Any, y: Any, colour: str, low: float) -> Any:
    """Draw dots; scores far below the rest are marked at the lower edge. Returns the y values that set the limits."""
    finite = np.isfinite(y)
    inside = finite & (y >= low)
    axes.plot(x[inside], y[inside], linestyle="none", marker="o", markersize=3.6, color=colour, alpha=0.6, mew=0)
    if (~inside).any():
        axes.plot(
            x[~inside],
            np.full((~inside).sum(), 0.02),
            transform=axes.get_xaxis_transform(),
            linestyle="none",
            marker="v",
            markersize=4,
            color=colour,
            alpha=0.6,
            mew=0,
        )
    return y[inside]


def outlier_floor(scores: Any) -> float:
    """Return the score below which a candidate would squeeze all others together."""
    finite = scores[np.isfinite(scores)]
    if len(finite) == 0:
        return -math.inf
    low, high = np.percentile(finite, [25, 75])
    return float(low - 3 * (high - low)) if high > low else -math.inf


def limits(axes: Any, shown: Any) -> None:
    """Let the y axis end a little outside of the values shown."""
    if len(shown) and shown.max() > shown.min():
        span = shown.max() - shown.min()
        axes.set_ylim(shown.min() - 0.08 * span, shown.max() + 0.08 * span)


def _log_scale(axes: Any) -> None:
    """Take a logarithmic scale if the values are positive and span more than a factor of four."""
    curves = [line for line in axes.lines if len(line.get_xdata()) > 2]  # not the vertical marks
    values = np.concatenate([np.empty(0), *(np.asarray(line.get_ydata(), float) for line in curves)])
    values = values[np.isfinite(values)]
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    if len(values) == 0 or values.min() <= 0 or values.max() < 4 * values.min():
        axes.yaxis.set_major_locator(MaxNLocator(5))
        return
    axes.set_yscale("log")
    decades = math.log10(values.max() / values.min())
    axes.yaxis.set_major_locator(
        LogLocator(
            subs=(1.0, 2.0, 3.0, 5.0) if decades < 1 else (1.0, 2.0, 5.0) if decades < 2.2 else (1.0,), numticks=12
        )
    )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def tick(value: float) -> str:
    """Return a tick's label: short, and never with trailing noise."""
    text = f"{value:.4g}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.1e}".replace(".0e", "e")
    return re.sub(r"e([+-])0*", lambda match: f"e{match[1].strip('+')}", text).replace("-", "−")


def _whole_numbers(axes: Any) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def series(position: int) -> str:
    """Return the colour of a series, a placeholder until the panel is finished."""
    return _SERIES[position % len(_SERIES)]


def _variable(position: int) -> str:
    return _VARIABLES[series(position)]


def _ramp(position: int, length: int) -> str:
    """Return a colour between those of the first and the last round."""
    place = (position / (length - 1) if length > 1 else 0) * (len(_RAMP) - 1)
    left = min(int(place), len(_RAMP) - 2)
    parts = [
        round(
            int(_RAMP[left][i : i + 2], 16) * (1 - place + left) + int(_RAMP[left + 1][i : i + 2], 16) * (place - left)
        )
        for i in (1, 3, 5)
    ]
    return "#" + "".join(f"{part:02x}" for part in parts)
