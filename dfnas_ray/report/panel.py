"""Draw one figure in the page's colours: a panel with axes, returned as an SVG element.

Colours are placeholders while matplotlib draws. Each becomes a CSS variable, so that one figure suits light, dark and
printed pages.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

_WIDTH, _HEIGHT = 3.75, 2.45  # inches of a panel
_AXES = (0.125, 0.18, 0.865, 0.68)  # left, bottom, width, height, as shares of the panel
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


@contextmanager
def panel(
    name: str,
    title: str,
    x_label: str,
    size: tuple[float, float] = (_WIDTH, _HEIGHT),
    place: tuple[float, float, float, float] = _AXES,
) -> Iterator[tuple[Any, Callable[[], str]]]:
    """Yield axes to draw on, and a function that returns the SVG element.

    Args:
        name: A name that is unique on the page.
        title: The title above the axes.
        x_label: The label below the axes.
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
    """Draw in the page's style, for light and dark, within the block; `element_of` makes an element of the figure."""
    with rc_context({**_SETTINGS, **settings}):
        yield


def element_of(figure: Figure, name: str, title: str) -> str:
    """Return a figure as an SVG element, cropped to what is drawn.

    Args:
        figure: A figure that was drawn in `page_style`.
        name: A name that is unique on the page.
        title: The text for screen readers.
    """
    buffer = StringIO()
    figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    return _for_page(buffer.getvalue(), name, title)


def middle_tones() -> LinearSegmentedColormap:
    """Return a colormap that is visible on light and on dark backgrounds."""
    return LinearSegmentedColormap.from_list("middle-tones", _RAMP)


def _for_page(svg: str, name: str, title: str) -> str:
    """Return matplotlib's file as an element: no prolog, unique ids, CSS variables as colours, the page's font."""
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


def plot(axes: Any, x: Sequence[float], y: Sequence[float], colour: str, **style: Any) -> None:
    """Draw a curve; a single value becomes a dot, and a value that is not finite a gap."""
    values = [value if isinstance(value, int | float) and math.isfinite(value) else math.nan for value in y]
    marker = {"marker": "o", "markersize": 3} if len(values) == 1 else {}
    axes.plot(list(x), values, color=colour, **marker, **style)


def scatter(axes: Any, x: Any, y: Any, colour: str, low: float) -> Any:
    """Draw dots, and return the y values that set the limits. Values below ``low`` are marked at the lower edge."""
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
    """Return the score below which an outlier would squeeze all others together."""
    finite = scores[np.isfinite(scores)]
    if len(finite) == 0:
        return -math.inf
    low, high = np.percentile(finite, [25, 75])
    return float(low - 3 * (high - low)) if high > low else -math.inf


def limits(axes: Any, shown: Any) -> None:
    """Set the y axis a little wider than the values shown."""
    if len(shown) and shown.max() > shown.min():
        span = shown.max() - shown.min()
        axes.set_ylim(shown.min() - 0.08 * span, shown.max() + 0.08 * span)


def log_scale(axes: Any) -> None:
    """Use a logarithmic scale if the values are positive and span at least a factor of four."""
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
    """Return the label of a tick, with at most four significant digits."""
    text = f"{value:.4g}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.1e}".replace(".0e", "e")
    return re.sub(r"e([+-])0*", lambda match: f"e{match[1].strip('+')}", text).replace("-", "−")


def whole_numbers(axes: Any) -> None:
    """Put the ticks of the x axis at whole numbers only."""
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def series(position: int) -> str:
    """Return the colour of a series, a placeholder until the panel is finished."""
    return _SERIES[position % len(_SERIES)]


def variable(position: int) -> str:
    """Return the CSS variable of a series' colour."""
    return _VARIABLES[series(position)]


def ramp(position: int, length: int) -> str:
    """Return the colour of a round, on a scale from the first round to the last."""
    place = (position / (length - 1) if length > 1 else 0) * (len(_RAMP) - 1)
    left = min(int(place), len(_RAMP) - 2)
    parts = [
        round(
            int(_RAMP[left][i : i + 2], 16) * (1 - place + left) + int(_RAMP[left + 1][i : i + 2], 16) * (place - left)
        )
        for i in (1, 3, 5)
    ]
    return "#" + "".join(f"{part:02x}" for part in parts)
