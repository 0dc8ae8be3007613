"""The stages of any convolutional network, their features, and which stage of one network answers to which of another.

A stage is what a network computes at one spatial size; its features are the last ones before the size changes. They are
found by following one forward pass, so that nothing has to be known of how a teacher or a candidate is built.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dfnas_ray.ops.networks import copy_network, evaluation_mode

Size = tuple[int, int]
"""(H, W)."""


class FeatureStage(NamedTuple):
    """Where a stage's features come out.

    Attributes:
        module: Its name within the network.
        call: Which of the module's calls in one forward pass, from 0: some modules are used more than once.
        size: Of the features, (H, W).
    """

    module: str
    call: int
    size: Size


@dataclass
class _Call:
    """One call of a module: the sizes of feature maps that went in, came out, and occurred within."""

    module: str
    number: int
    inputs: set[Size]
    enclosing: list[_Call]
    within: set[Size] = field(default_factory=set)
    output: Size | None = None

    @property
    def is_transition(self) -> bool:
        """Whether all that happens here is one change of size."""
        changes = self.output is not None and bool(self.inputs - {self.output})
        return changes and self.within <= self.inputs | {self.output}

    @property
    def depth(self) -> int:
        """Within how many transitions it happens."""
        return sum(call.is_transition for call in self.enclosing)


def find_stages(network: nn.Module, image_shape: tuple[int, int, int]) -> list[FeatureStage]:
    """Return the stages of a network, from input to output; none if it has no feature maps larger than 1x1.

    A block that changes the size, such as a strided residual block, belongs to no stage with what it computes within:
    a stage's features are those that are handed to it. Nothing is computed: a copy runs on torch's meta device, unless it
    looks at values.

    Args:
        network: Maps (B, C, H, W) to logits.
        image_shape: (C, H, W).
    """
    last: dict[Size, _Call] = {}
    for call in _follow(network, image_shape):
        size = call.output
        if size is not None and (size not in last or call.depth <= last[size].depth):
            last[size] = call
    found = [FeatureStage(call.module, call.number, size) for size, call in last.items()]
    return sorted(found, key=lambda stage: -stage.size[0] * stage.size[1])


def forward_with_features(
    network: nn.Module, stages: Sequence[FeatureStage], images: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Return the logits of images (B, C, H, W), and the features of each stage, (B, C', H', W')."""
    caught: dict[tuple[str, int], Tensor] = {}
    calls: Counter[str] = Counter()

    def catch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            caught[name, calls[name]] = output
            calls[name] += 1

        return hook

    names = dict.fromkeys(stage.module for stage in stages)
    handles = [network.get_submodule(name).register_forward_hook(catch(name)) for name in names]
    try:
        logits: Tensor = network(images.clone())  # a network may change them
    finally:
        for handle in handles:
            handle.remove()
    return logits, [caught[stage.module, stage.call] for stage in stages]


def pair_stages(first: Sequence[Size], second: Sequence[Size]) -> list[tuple[int, int]]:
    """Return which stage of one network answers to which of another, as pairs of positions.

    Every stage of the network that has fewer gets a partner of its own, in order, the last stages always each other:
    they feed the classifiers. Of all such pairings it is the one whose sizes differ least, summed over log2 of the area.

    Args:
        first: Sizes of one network's stages, from input to output.
        second: Of the other's, for the same images.
    """
    if len(first) > len(second):
        return [(a, b) for b, a in pair_stages(second, first)]
    if not first:
        return []

    def distance(partners: Iterable[int]) -> float:
        return sum(
            abs(math.log2(math.prod(size) / math.prod(second[partner])))
            for size, partner in zip(first, partners, strict=True)
        )

    candidates = [(*some, len(second) - 1) for some in combinations(range(len(second) - 1), len(first) - 1)]
    return list(enumerate(min(candidates, key=distance)))


def _follow(network: nn.Module, image_shape: tuple[int, int, int]) -> list[_Call]:
    """Return the calls of all modules in one forward pass, in the order in which they end."""
    try:
        return _follow_on(network, image_shape, "meta")
    except Exception:  # it looks at values, which the meta device does not have
        return _follow_on(network, image_shape, "cpu")


def _follow_on(network: nn.Module, image_shape: tuple[int, int, int], device: str) -> list[_Call]:
    probe = evaluation_mode(copy_network(network).to(device))
    ended: list[_Call] = []
    running: list[_Call] = []
    calls: Counter[str] = Counter()

    def enter(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            running.append(_Call(name, calls[name], set(_sizes(inputs)), list(running)))
            calls[name] += 1

        return hook

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        call = running.pop()
        for size in _sizes([output]):
            call.output = size
            for outer in call.enclosing:
                outer.within.add(size)
        ended.append(call)

    for name, module in probe.named_modules():
        module.register_forward_pre_hook(enter(name))
        module.register_forward_hook(leave)
    with torch.no_grad():
        probe(torch.zeros(1, *image_shape, device=device))
    return ended


def _sizes(values: Iterable[Any]) -> list[Size]:
    """Return the sizes of the feature maps among ``values``; 1x1, what pooling leaves, is none."""
    shapes = [value.shape for value in values if isinstance(value, Tensor) and value.ndim == 4]
    return [(shape[2], shape[3]) for shape in shapes if shape[2] * shape[3] > 1]
