"""Draw a cell as SVG: nodes are upright lines from left to right, and each connection is an arrow on its own row.

Arrows on rows never cross their labels, whatever the graph. Colours are those of `dfnas_ray.report.drawing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from dfnas_ray.report.drawing import operation_colour, svg_block, svg_element, svg_text

if TYPE_CHECKING:
    from dfnas_ray.search_spaces.base import Edge

_COLUMN, _ROW, _BLOCK, _TOP = 120, 30, 20, 34  # pixels: between nodes, between arrows, an arrow's label, the header
_MARGIN = 44


def nodes_of(edges: Sequence[Edge]) -> list[str]:
    """Return the nodes in an order in which every connection leads forward."""
    names = list(dict.fromkeys(name for edge in edges for name in (edge.source, edge.target)))
    ordered: list[str] = []
    while names:
        ready = [n for n in names if all(e.source in ordered for e in edges if e.target == n)]
        if not ready:
            raise ValueError(f"the connections of {names} form a circle")
        last = [name for name in ready if name == "output"]
        ordered.append(next((name for name in ready if name not in last), ready[0]))
        names.remove(ordered[-1])
    return ordered


def draw_cell(title: str, edges: Sequence[Edge], operations: Sequence[str]) -> str:
    """Return an SVG element of one cell.

    Args:
        title: The type of the cell.
        edges: Its connections; those without an operation are listed in the caption of the output.
        operations: The operations in the order of their colours.
    """
    nodes = nodes_of(edges)
    drawn = [edge for edge in edges if edge.operation]
    drawn.sort(key=lambda edge: (nodes.index(edge.target), nodes.index(edge.source)))
    joined = [edge.source for edge in edges if not edge.operation]
    nodes = [name for name in nodes if any(name in (edge.source, edge.target) for edge in drawn)]
    x = {name: _MARGIN + _COLUMN * position for position, name in enumerate(nodes)}
    height = _TOP + _ROW * len(drawn) + 14
    width = 2 * _MARGIN + _COLUMN * (len(nodes) - 1)
    parts = []
    for name in nodes:
        parts.append(svg_text(x[name], 14, name, "middle"))
        parts.append(
            f'<line x1="{x[name]}" x2="{x[name]}" y1="22" y2="{height - 8}" stroke="currentColor" stroke-opacity="0.35"/>'
        )
    for row, edge in enumerate(drawn):
        parts += _arrow(x[edge.source], x[edge.target], _TOP + _ROW * row, edge, operations)
    if joined:
        text = f"output: {', '.join(joined)} side by side"
        height += 14
        parts.append(svg_text(width - 4, height - 6, text, "end", "label"))
    return svg_element(width, height, f"{title}, drawn as a graph", parts, "architecture cell")


def _arrow(start: float, end: float, y: float, edge: Edge, operations: Sequence[str]) -> list[str]:
    colour, middle = operation_colour(edge.operation, operations), y + _BLOCK / 2
    centre, label_width = (start + end) / 2, max(84, 6.4 * len(edge.operation) + 10)
    label_width = min(label_width, end - start - 16)
    shown = edge.operation if 6.0 * len(edge.operation) <= label_width else _abbreviate(edge.operation)
    return [
        f"<g><title>{escape(f'{edge.source} to {edge.target}: {edge.operation}')}</title>",
        f'<circle cx="{start}" cy="{middle}" r="3.5" fill="{colour}"/>',
        f'<line x1="{start}" x2="{end - 6}" y1="{middle}" y2="{middle}" stroke="{colour}" stroke-width="1.6"/>',
        f'<path d="M{end - 8} {middle - 4}L{end - 1} {middle}L{end - 8} {middle + 4}Z" fill="{colour}"/>',
        f'<rect x="{centre - label_width / 2:.1f}" y="{y:g}" width="{label_width:.1f}" height="{_BLOCK}" rx="5" '
        'fill="var(--surface, #ffffff)"/>',
        svg_block(centre - label_width / 2, y, label_width, _BLOCK, colour),
        f'<text x="{centre:g}" y="{middle + 4:g}" text-anchor="middle" style="font-size:11px">{escape(shown)}</text>',
        "</g>",
    ]


def _abbreviate(operation: str) -> str:
    """Return a short name that fits between neighbouring nodes: sep_conv_3x3 becomes sep 3x3."""
    return operation.replace("_connect", "").replace("_conv", "").replace("_pool", " pool").replace("_", " ")
