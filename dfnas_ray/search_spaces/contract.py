"""Checks of a search space from another package before it is used; the conformance suite checks much more."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import nn

from dfnas_ray.config.registry import describe, is_built_in
from dfnas_ray.errors import ConfigError, first_line
from dfnas_ray.limits import MAX_DECISIONS, MAX_PARAMETERS
from dfnas_ray.ops.cost import make_without_memory
from dfnas_ray.search_spaces.base import SearchSpace, SpaceConfig

_tried: set[tuple[str, tuple[int, int, int], int]] = set()


def build_space(config: SpaceConfig, image_shape: tuple[int, int, int], num_classes: int) -> SearchSpace:
    """Return the space of these settings for one input shape and number of classes.

    Raises:
        ConfigError: its networks are too large; or it comes from another package and breaks the contract. Then the
            message names package, member and rule.
    """
    space = config.space(image_shape, num_classes)
    key = (config.model_dump_json(), image_shape, num_classes)
    if key in _tried:
        return space
    if is_built_in(type(config)):
        _check_size(space)
    else:
        reason = _broken_rule(space, image_shape, num_classes)
        if reason:
            raise ConfigError(f"The search space {describe(type(config))} breaks its contract: {reason}.")
    _tried.add(key)
    return space


def _check_size(space: SearchSpace) -> None:
    """Count the decisions and parameters of a space without allocating them, because the settings may not be trusted.

    Raises:
        ConfigError: there are more decisions or parameters than the limits allow.
    """
    if (decisions := len(space.num_choices)) > MAX_DECISIONS:
        raise ConfigError(
            f"The search space {space.kind} has {decisions:,} decisions with these settings; at most {MAX_DECISIONS:,} are "
            "allowed. Make its networks shorter (search.space)."
        )
    counted: dict[Hashable, int] = {}
    alone = 0
    for part in space.parts():
        if part.key not in counted:
            counted[part.key] = _num_parameters(part.make)
        alone += counted[part.key]  # all options together have more parameters than any one network
    if (most := max(_num_parameters(space.supernet), alone)) > MAX_PARAMETERS:
        raise ConfigError(
            f"The search space {space.kind} with these settings, {space.num_classes:,} classes and images of "
            f"{' x '.join(map(str, space.image_shape))} has {most:,} parameters in all options together; at most "
            f"{MAX_PARAMETERS:,} are allowed. Make its networks narrower or shorter (search.space)."
        )


def _num_parameters(make: Callable[[], nn.Module]) -> int:
    return sum(parameter.numel() for parameter in make_without_memory(make).parameters())


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
    except Exception as error:  # code from another package may raise anything
        return f"its cheapest architecture cannot be made: {type(error).__name__}: {first_line(error)}"
    for maker, output in (("build", logits), ("supernet", path)):
        shape = tuple(getattr(output, "shape", ()))
        if shape != (2, num_classes):
            found = shape or type(output).__name__
            return f"{maker}() must return a network from (B, C, H, W) to logits (B, {num_classes}), not to {found}"
    return ""
