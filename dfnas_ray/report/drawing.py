"""Draw an architecture as SVG: one block per layer; its width shows the channels, its colour the operation.

The picture uses CSS variables with mid-tone fallbacks for colours: a page can adapt them to dark mode, and a separate
file is readable, too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from typing import TYPE_CHECKING

from dfnas_ray.formatting import percent, quantity

if TYPE_CHECKING:
    from dfnas_ray.search_spaces.base import Layer

_COLOURS = ("#3b78c3", "#d9822b", "#4d9a62", "#a05fb5", "#c2536b", "#2f9c9c", "#8c7a3d", "#7484b8")
_SHARED = "#7d8590"  # stem and head, which every architecture of a space has
_SHARED_NAMES = ("stem", "head")

_WIDTH, _ROW, _BLOCK = 700, 34, 24  # pixels: width of the picture, height of a row, height of a block
_CENTRE, _MIN_BLOCK, _MAX_BLOCK = 200, 140, 240
_SHAPE_X, _BAR_X, _BAR_WIDTH = 414, 434, 120


def operations_of(*architectures: Iterable[Layer]) -> list[str]:
    """Return the operations in order of appearance, which is that of the colours; stem and head are left out."""
    names = [layer.operation for layers in architectures for layer in layers if layer.name not in _SHARED_NAMES]
    return list(dict.fromkeys(names))


def operation_colour(operation: str, operations: Sequence[str]) -> str:
    """Return the CSS colour of an operation; grey for one that is not among ``operations``."""
    if operation not in operations:
        return f"var(--op-shared, {_SHARED})"
    index = operations.index(operation) % len(_COLOURS)
    return f"var(--op-{index + 1}, {_COLOURS[index]})"


def draw_architecture(layers: Sequence[Layer], operations: Sequence[str] | None = None) -> str:
    """Return an SVG element with one row per layer: name, block, output shape, share of the MACs.

    Args:
        layers: From input to output, as `SearchSpace.layers` returns them.
        operations: The operations in the order of their colours, the same for pictures side by side.
    """
    operations = operations_of(layers) if operations is None else operations
    total = max(1, sum(layer.cost.macs for layer in layers))
    largest = max([1, *(layer.cost.macs for layer in layers)])
    top = 30
    height = top + _ROW * len(layers) + 6
    parts = [
        svg_text(_CENTRE - _MAX_BLOCK / 2 - 12, 14, "layer", "end", "label"),
        svg_text(_CENTRE, 14, "operation; width: channels", "middle", "label"),
        svg_text(_SHAPE_X, 14, "output", "end", "label"),
        svg_text(_BAR_X, 14, "MACs", "start", "label"),
        svg_text(_WIDTH, 14, "parameters", "end", "label"),
    ]
    for index, layer in enumerate(layers):
        y = top + _ROW * index
        middle = y + _BLOCK / 2 + 4
        width = _block_width(layer, layers)
        colour = operation_colour("" if layer.name in _SHARED_NAMES else layer.operation, operations)
        if index:
            parts.append(
                f'<line x1="{_CENTRE}" x2="{_CENTRE}" y1="{y - _ROW + _BLOCK}" y2="{y}" stroke="currentColor" '
                'stroke-opacity="0.45"/>'
            )
            if _shrinks(layers[index - 1], layer):
                line_y = y - (_ROW - _BLOCK) / 2
                parts.append(
                    f'<line x1="0" x2="{_WIDTH}" y1="{line_y:g}" y2="{line_y:g}" stroke="currentColor" '
                    'stroke-opacity="0.25" stroke-dasharray="2 4"/>'
                )
        bar = _BAR_WIDTH * layer.cost.macs / largest
        parts += [
            f"<g><title>{escape(_describe(layer, total))}</title>",
            svg_text(_CENTRE - _MAX_BLOCK / 2 - 12, middle, _shorten(layer.name, 12), "end", "muted"),
            svg_block(_CENTRE - width / 2, y, width, _BLOCK, colour),
            svg_text(_CENTRE, middle, _shorten(layer.operation, int(width / 6.2)), "middle"),
            svg_text(_SHAPE_X, middle, _shape(layer.output_shape), "end", "muted"),
            f'<rect x="{_BAR_X}" y="{y + 7}" width="{max(bar, 1):.1f}" height="{_BLOCK - 14}" rx="2" fill="{colour}"/>',
            svg_text(
                _BAR_X + max(bar, 1) + 6,
                middle,
                f"{quantity(layer.cost.macs)} · {percent(layer.cost.macs / total, 0)}",
                "start",
            ),
            svg_text(_WIDTH, middle, quantity(layer.cost.params), "end", "muted"),
            "</g>",
        ]
    return svg_element(_WIDTH, height, "Architecture, layer by layer", parts, "architecture")


def draw_compact(layers: Sequence[Layer], operations: Sequence[str] | None = None) -> str:
    """Return a small SVG element of the blocks alone, for a second architecture beside the first."""
    operations = operations_of(layers) if operations is None else operations
    total = max(1, sum(layer.cost.macs for layer in layers))
    row, block, width = 20, 14, 150
    parts = []
    for index, layer in enumerate(layers):
        y = 2 + row * index
        own = _block_width(layer, layers) / _MAX_BLOCK * width
        colour = operation_colour("" if layer.name in _SHARED_NAMES else layer.operation, operations)
        if index:
            parts.append(
                f'<line x1="{width / 2:g}" x2="{width / 2:g}" y1="{y - row + block}" y2="{y}" stroke="currentColor" '
                'stroke-opacity="0.45"/>'
            )
        parts += [
            f"<g><title>{escape(_describe(layer, total))}</title>",
            svg_block((width - own) / 2, y, own, block, colour),
            f'<text x="{width / 2:g}" y="{y + 10.5:g}" text-anchor="middle" style="font-size:9px">'
            f"{escape(_shorten(layer.operation, int(own / 5)))}</text>",
            "</g>",
        ]
    return svg_element(width, 4 + row * len(layers), "Architecture, blocks only", parts, "architecture compact")


def _block_width(layer: Layer, layers: Sequence[Layer]) -> float:
    """Return a width that grows with the logarithm of the channels."""
    logs = [math.log2(max(1, other.output_shape[0])) for other in layers if other.output_shape]
    low, high = min(logs, default=0), max(logs, default=0)
    own = math.log2(max(1, layer.output_shape[0])) if layer.output_shape else low
    return _MIN_BLOCK + (_MAX_BLOCK - _MIN_BLOCK) * ((own - low) / (high - low) if high > low else 1)


def _shrinks(before: Layer, after: Layer) -> bool:
    return len(before.output_shape) == 3 and before.output_shape[1:] != after.output_shape[1:]


def _describe(layer: Layer, total: int) -> str:
    return (
        f"{layer.name}: {layer.operation}, output {_shape(layer.output_shape)}, {layer.cost.macs:,} MACs "
        f"({percent(layer.cost.macs / total)}), {layer.cost.params:,} parameters"
    )


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: max(1, length - 1)]}…"


def svg_block(x: float, y: float, width: float, height: float, colour: str) -> str:
    """Return a rounded box in an operation's colour."""
    return (
        f'<rect x="{x:.1f}" y="{y:g}" width="{width:.1f}" height="{height}" rx="5" fill="{colour}" '
        f'fill-opacity="0.2" stroke="{colour}" stroke-width="1.2"/>'
    )


def svg_text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    """Return text at its baseline; ``kind`` is label (small) or muted."""
    opacity = ' fill-opacity="0.68"' if kind else ""
    size = ' style="font-size:11px"' if kind == "label" else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{opacity}{size}>{escape(text)}</text>'


def svg_element(width: float, height: float, label: str, parts: Iterable[str], css_class: str) -> str:
    """Return an SVG element that takes the page's colour and font."""
    body = "\n".join(parts)
    return (
        f'<svg class="{css_class}" role="img" aria-label="{escape(label)}" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" fill="currentColor" '
        f'style="font:12px var(--sans, system-ui, sans-serif)">\n{body}\n</svg>'
    )


def picture_file(pictures: Sequence[tuple[str, str]]) -> bytes:
    """Return titled panels of the report, one below the other, as an SVG file with the page's light colours."""
    sized = [(title, re.sub(r'(width|height)="([\d.]+)pt"', r'\1="\2"', svg)) for title, svg in pictures]
    style = (resources.files("dfnas_ray.report") / "style.css").read_text(encoding="utf-8")
    variables = re.search(r":root \{.*?\}", style, re.DOTALL)  # the light colours, which come first
    assert variables is not None
    head = f' xmlns:xlink="http://www.w3.org/1999/xlink"><style>{variables[0]}</style>'
    return stack(sized).replace(">", head, 1).encode()


def stack(pictures: Sequence[tuple[str, str]]) -> str:
    """Return (title, element) pairs, one below the other, as the text of an SVG file on white."""
    sizes = [re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', picture)[0] for _, picture in pictures]
    parts, y = [], 28.0
    for (title, picture), (_, height) in zip(pictures, sizes, strict=True):
        parts.append(f'<text x="16" y="{y:g}" style="font:bold 14px system-ui, sans-serif">{escape(title)}</text>')
        parts.append(picture.replace("<svg ", f'<svg x="16" y="{y + 14:g}" ', 1))
        y += float(height) + 52
    width = max((float(width) for width, _ in sizes), default=0.0) + 32
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {y:g}" width="{width:g}" height="{y:g}" '
        f'fill="#1f2328" color="#1f2328">\n<rect width="100%" height="100%" fill="#ffffff"/>\n{body}\n</svg>\n'
    )
