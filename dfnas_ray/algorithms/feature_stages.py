"""The stages of any convolutional network, their features, and which stages of two networks correspond.

A stage is what a network computes at one spatial size; its features are the last ones before the size changes. Stages
are found by following one forward pass, so they need no knowledge of how a teacher or a candidate is built.
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
    """The module call whose output is a stage's features.

    Attributes:
        module: The module's name within the network.
        call: The number of the call in one forward pass, from 0; some modules are called more than once.
        size: The size (H, W) of the features.
    """

    module: str
    call: int
    size: Size


@dataclass
class _Call:
    """One call of a module, with the sizes of its input, output and inner feature maps."""

    module: str
    number: int
    inputs: set[Size]
    enclosing: list[_Call]
    within: set[Size] = field(default_factory=set)
    output: Size | None = None

    @property
    def is_transition(self) -> bool:
        """Whether this call changes the size, and no other size occurs within it."""
        changes = self.output is not None and bool(self.inputs - {self.output})
        return changes and self.within <= self.inputs | {self.output}

    @property
    def depth(self) -> int:
        """The number of transitions that enclose this call."""
        return sum(call.is_transition for call in self.enclosing)


def find_stages(network: nn.Module, image_shape: tuple[int, int, int]) -> list[FeatureStage]:
    """Return the stages of a network, from input to output; none if it has no feature maps larger than 1x1.

    The calls inside a block that changes the size, such as a strided residual block, belong to no stage; the features
    of the stage before are the block's input. Nothing is computed: a copy of the network runs on torch's meta device. A
    network that reads the values of its tensors runs on the CPU instead.

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
        logits: Tensor = network(images.clone())  # a network may change its input
    finally:
        for handle in handles:
            handle.remove()
    return logits, [caught[stage.module, stage.call] for stage in stages]


def pair_stages(first: Sequence[Size], second: Sequence[Size]) -> list[tuple[int, int]]:
    """Return which stages of two networks correspond, as pairs of positions.

    Every stage of the network with fewer stages gets its own partner, in order. The last stages are always partners,
    because they feed the classifiers. Of all such pairings, the one with the smallest sum of differences in log2 of the
    area is taken.

    Args:
        first: Sizes of one network's stages, from input to output.
        second: Sizes of the other network's stages, for the same images.
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
    """Return the calls of all modules in one forward pass, ordered by their end."""
    try:
        return _follow_on(network, image_shape, "meta")
    except Exception:  # the network reads values, which the meta device does not have
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
    """Return the sizes of the feature maps among ``values``, without 1x1, which global pooling leaves."""
    shapes = [value.shape for value in values if isinstance(value, Tensor) and value.ndim == 4]
    return [(shape[2], shape[3]) for shape in shapes if shape[2] * shape[3] > 1]
