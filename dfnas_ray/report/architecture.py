"""The search space rebuilt from what the run directory recorded, to draw and to cost its architectures."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dfnas_ray.report.artefacts import Artefacts

if TYPE_CHECKING:
    from dfnas_ray.search_spaces.base import Layer, SearchSpace

logger = logging.getLogger(__name__)


def rebuild_space(
    artefacts: Artefacts, canvas_shape: tuple[int, int, int] | None, num_classes: int
) -> SearchSpace | None:
    """Return the space that was searched, or None if it is unknown here.

    A guess at the input's shape counts only if the architecture found then costs what the search recorded.
    """
    search, retraining = artefacts["search"], artefacts["retraining"]
    network = retraining.file("network.json") or {}
    config = network.get("space") or search.get("space_config")
    owner = retraining if network else search
    genotype, macs = owner.get("genotype"), owner.get("macs")
    if config is None or genotype is None:
        return None
    teacher = artefacts["synthesis"].get("teacher") or {}
    shapes = [network.get("image_shape"), teacher.get("image_shape")]
    if canvas_shape is not None:
        shapes += _shapes_within(canvas_shape, (artefacts["synthesis"].inputs or {}).get("synthesis", {}))
    classes = network.get("num_classes") or teacher.get("num_classes") or num_classes
    for shape in shapes:
        if shape is None or not classes:
            continue
        space = _make_space(config, (int(shape[0]), int(shape[1]), int(shape[2])), int(classes))
        if space is not None and _cost(space, genotype) == macs:
            return space
    return None


def sibling(space: SearchSpace, config: dict[str, Any]) -> SearchSpace | None:
    """Return the space of other settings for the same images and classes, or None if it is unknown here."""
    return _make_space(config, space.image_shape, space.num_classes)


def layers_of(space: SearchSpace | None, genotype: str | None) -> list[Layer]:
    """Return the layers of an architecture in its usual notation; empty if they cannot be told."""
    if space is None or genotype is None:
        return []
    try:
        return space.layers(space.decode(genotype))
    except Exception:  # a space of another version: the report shows all else
        logger.warning("The architecture %s cannot be drawn.", genotype, exc_info=True)
        return []


def macs_of(space: SearchSpace | None, genotype: str) -> int | None:
    """Return the MACs of an architecture in its usual notation."""
    return None if space is None else _cost(space, genotype)


def _shapes_within(canvas: tuple[int, int, int], synthesis: dict[str, Any]) -> list[tuple[int, int, int]]:
    """Return the input shapes whose canvas would have this size."""
    channels, height, width = canvas
    margin = synthesis.get("canvas_margin")
    if margin is not None:
        return [(channels, height - margin, width - margin)]
    coarsest = max((stage.get("scale", 1) for stage in synthesis.get("stages", [])), default=1)
    margins = [
        margin
        for margin in range(0, min(height, width), coarsest)
        if (min(height, width) - margin) // (7 * coarsest) * coarsest == margin
    ]
    return [(channels, height - margin, width - margin) for margin in margins]


def _make_space(config: Any, image_shape: tuple[int, int, int], num_classes: int) -> SearchSpace | None:
    from dfnas_ray.errors import ConfigError
    from dfnas_ray.search_spaces import make_space

    try:
        return make_space(config, image_shape, num_classes)
    except ConfigError:
        logger.warning("The search space of this run is unknown to this version: its architecture is not drawn.")
        return None


def _cost(space: SearchSpace, genotype: str) -> int | None:
    try:
        return space.cost(space.decode(genotype)).macs
    except Exception:  # a genotype, or an input, that does not fit this space
        return None
