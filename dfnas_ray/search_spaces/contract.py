"""What a search space of another package is tried for before it is used; the conformance suite tries much more."""

from __future__ import annotations

import torch

from dfnas_ray.config.registry import describe, is_built_in
from dfnas_ray.errors import ConfigError, first_line
from dfnas_ray.search_spaces.base import SearchSpace, SpaceConfig

_tried: set[tuple[str, tuple[int, int, int], int]] = set()


def build_space(config: SpaceConfig, image_shape: tuple[int, int, int], num_classes: int) -> SearchSpace:
    """Return the space of these settings for one input shape and number of classes.

    Raises:
        ConfigError: it is of another package, and does not keep the contract; names package, member and rule.
    """
    space = config.space(image_shape, num_classes)
    if is_built_in(type(config)):
        return space
    key = (config.model_dump_json(), image_shape, num_classes)
    if key not in _tried:
        reason = _broken_rule(space, image_shape, num_classes)
        if reason:
            raise ConfigError(f"The search space {describe(type(config))} breaks its contract: {reason}.")
        _tried.add(key)
    return space


def _broken_rule(space: object, image_shape: tuple[int, int, int], num_classes: int) -> str:
    if not isinstance(space, SearchSpace):
        return f"space() must return a SearchSpace, not a {type(space).__name__}"
    try:
        genotype = space.cheapest()
        cost, text = space.cost(genotype), space.encode(genotype)
        if min(cost.params, cost.macs) < 0:
            return f"cost() of {text!r} is negative: {cost.params} parameters, {cost.macs} MACs"
        if (decoded := space.decode(text)) != genotype:
            return f"decode() must return the genotype that encode() was given: {decoded} instead of {genotype}"
        images = torch.zeros(2, *image_shape)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = space.build(genotype).eval()(images)
            path = space.supernet().eval()(images, space.choices(genotype))
    except Exception as error:  # code of another package may raise anything
        return f"its cheapest architecture cannot be made: {type(error).__name__}: {first_line(error)}"
    for maker, output in (("build", logits), ("supernet", path)):
        shape = tuple(getattr(output, "shape", ()))
        if shape != (2, num_classes):
            found = shape or type(output).__name__
            return f"{maker}() must return a network from (B, C, H, W) to logits (B, {num_classes}), not to {found}"
    return ""
