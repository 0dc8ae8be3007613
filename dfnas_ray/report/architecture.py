"""Rebuild the search space from the records of a run, to draw architectures and count their cost."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from dfnas_ray.errors import DfnasError
from dfnas_ray.report.artefacts import Artefacts
from dfnas_ray.search_spaces import make_space
from dfnas_ray.search_spaces.base import Layer, SearchSpace
from dfnas_ray.storage.location import JsonObject
from dfnas_ray.teachers.base import ImageShape
from dfnas_ray.training.export import NetworkDescription
from dfnas_ray.workflow.retraining import Retraining, RetrainingRecord
from dfnas_ray.workflow.search import Search, SearchRecord
from dfnas_ray.workflow.synthesis import Synthesis

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Input:
    """The shape of a network's input, and its number of classes."""

    shape: ImageShape
    num_classes: int


def main_network(artefacts: Artefacts) -> RetrainingRecord | SearchRecord | None:
    """Return the record of the network that the report is about: of its retraining, or else of its search."""
    return artefacts[Retraining].record or artefacts[Search].record


def rebuild_space(artefacts: Artefacts) -> SearchSpace | None:
    """Return the space that was searched, or None if this version does not know it.

    The space is used only if the architecture found has the recorded MACs in it.
    """
    main, synthesis = main_network(artefacts), artefacts[Synthesis].record
    if main is None:
        return None
    network = artefacts[Retraining].read(NetworkDescription.find)
    inputs = [Input(network.image_shape, network.num_classes)] if network else []
    inputs += [Input(synthesis.teacher.image_shape, synthesis.teacher.num_classes)] if synthesis else []
    for each in inputs:
        space = _make_space(main.space_config, each)
        if space is not None and _cost(space, main.genotype) == main.macs:
            return space
    return None


def sibling(space: SearchSpace, config: JsonObject) -> SearchSpace | None:
    """Return a space with other settings for the same images and classes, or None if this version does not know it."""
    return _make_space(config, Input(space.image_shape, space.num_classes))


def layers_of(space: SearchSpace | None, genotype: str | None) -> list[Layer]:
    """Return the layers of a genotype given as text; empty if it cannot be decoded."""
    if space is None or genotype is None:
        return []
    try:
        return space.layers(space.decode(genotype))
    except Exception:  # a space of another version: the report shows the rest
        logger.warning("The architecture %s cannot be drawn.", genotype, exc_info=True)
        return []


def macs_of(space: SearchSpace | None, genotype: str) -> int | None:
    """Return the MACs of a genotype given as text, or None if they are unknown."""
    return None if space is None else _cost(space, genotype)


def _make_space(config: JsonObject, input_: Input) -> SearchSpace | None:
    try:
        return make_space(config, input_.shape, input_.num_classes)
    except (ValueError, ArithmeticError, DfnasError):  # ValidationError is one of them
        logger.warning("The search space of this run is unknown to this version: its architecture is not drawn.")
        return None


def _cost(space: SearchSpace, genotype: str) -> int | None:
    try:
        return space.cost(space.decode(genotype)).macs
    except Exception:  # a genotype, or an input, that does not fit this space
        return None
