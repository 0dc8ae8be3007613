"""The figures at the top of the page."""

from __future__ import annotations

from dataclasses import dataclass

from dfnas_ray import formatting
from dfnas_ray.report.architecture import main_network
from dfnas_ray.report.artefacts import Artefacts
from dfnas_ray.report.cost_section import total_seconds
from dfnas_ray.report.results import Comparison
from dfnas_ray.workflow.benchmark import Benchmark
from dfnas_ray.workflow.retraining import Retraining
from dfnas_ray.workflow.synthesis import Synthesis


@dataclass(frozen=True)
class Tile:
    """One figure with its label and a note."""

    label: str
    value: str
    note: str
    is_main: bool = False


def accuracy_tiles(comparison: Comparison | None) -> list[Tile]:
    """Return one tile per network, the searched one first."""
    tiles = [
        Tile(
            f"Accuracy, {row.short}",
            formatting.percent(row.accuracy),
            f"real images; 95 %: {100 * row.low:.1f} – {100 * row.high:.1f}",
            row.is_main,
        )
        for row in (comparison.rows if comparison else [])
    ]
    return sorted(tiles, key=lambda tile: not tile.is_main)


def other_tiles(artefacts: Artefacts, comparison: Comparison | None) -> list[Tile]:
    """Return the tiles of the network's size, the benchmark, the images and the time."""
    tiles = _size_tiles(artefacts, comparison)
    benchmark, synthesis = artefacts[Benchmark].record, artefacts[Synthesis].record
    if benchmark is not None:
        tiles.append(Tile("Kendall's tau", f"{benchmark.tau:.3f}", f"best without data: {benchmark.best}"))
    if synthesis is not None:
        shards = formatting.plural(synthesis.shards, "shard")
        tiles.append(Tile("Synthetic images", formatting.count(synthesis.images), f"in {shards}"))
    stages = formatting.plural(len(artefacts.finished), "stage")
    return [*tiles, Tile("Wall time", formatting.duration(total_seconds(artefacts)), stages)]


def _size_tiles(artefacts: Artefacts, comparison: Comparison | None) -> list[Tile]:
    """Return the size tiles of the network that was evaluated, or else trained, or else found."""
    found = comparison.row(Retraining.name) if comparison else None
    network, synthesis = main_network(artefacts), artefacts[Synthesis].record
    if found is not None:
        return [
            _size_tile("MACs", found.macs, found.relative_macs),
            _size_tile("Parameters", found.params, found.relative_params),
        ]
    if network is None:
        return []
    teacher = synthesis.teacher if synthesis else None
    return [
        _size_tile("MACs", network.macs, network.macs / teacher.macs if teacher and teacher.macs else None),
        _size_tile(
            "Parameters", network.params, network.params / teacher.params if teacher and teacher.params else None
        ),
    ]


def _size_tile(label: str, value: int, relative: float | None) -> Tile:
    if relative is None:
        return Tile(label, formatting.quantity(value), "of the network found")
    return Tile(label, formatting.percent(relative, 0), f"of the teacher's ({formatting.quantity(value)})")
