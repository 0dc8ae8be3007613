"""Search spaces whose networks are a chain: stem, choice blocks, head."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Annotated, NamedTuple, TypeAlias

from pydantic import Field
from torch import Tensor, nn

from dfnas_ray.errors import GenotypeError
from dfnas_ray.limits import DEEP, WIDE
from dfnas_ray.ops.cost import make_without_memory, trace_cost
from dfnas_ray.ops.mixed import Choice, MixedOperation, remove_affine
from dfnas_ray.search_spaces.base import Genotype, Layer, Part, SearchSpace, Supernet

StageLayers: TypeAlias = Annotated[int, Field(le=DEEP)]
"""Number of choice blocks of a stage."""

StageChannels: TypeAlias = Annotated[int, Field(le=WIDE)]
"""Number of channels of a stage."""


class Position(NamedTuple):
    """The channels and the stride at one place of the chain."""

    in_channels: int
    out_channels: int
    stride: int


def stage_positions(
    in_channels: int, layers: Sequence[int], channels: Sequence[int], strides: Sequence[int]
) -> list[Position]:
    """Return the positions of all stages; the first layer of a stage changes the channels and has the stride."""
    positions = []
    for num_layers, out_channels, stride in zip(layers, channels, strides, strict=True):
        for number in range(num_layers):
            positions.append(Position(in_channels, out_channels, stride if number == 0 else 1))
            in_channels = out_channels
    return positions


class ChainSpace(SearchSpace):
    """A chain of choice blocks. Genotypes are digit strings with one digit per choice block.

    A subclass defines stem, head and options; everything else follows from these.

    Attributes:
        positions: The positions of the choice blocks, from input to output.
        stem_name: A short description of the stem, for drawings.
        head_name: A short description of the head, for drawings.
        has_affine_supernet: Whether the supernet's BatchNorms have scale and shift.
    """

    positions: list[Position]
    stem_name = "conv 3x3"
    head_name = "conv 1x1, pool, linear"
    has_affine_supernet = True

    def __init__(self, positions: list[Position], image_shape: tuple[int, int, int], num_classes: int):
        self.positions = positions
        self.image_shape = image_shape
        self.num_classes = num_classes
        self.num_choices = tuple(len(self.option_names(number)) for number in range(len(positions)))
        self.num_options = self.num_choices

    @abstractmethod
    def stem(self) -> nn.Module:
        """Return the layers before the choice blocks."""

    @abstractmethod
    def head(self) -> nn.Module:
        """Return the layers after the choice blocks, including the classifier."""

    @abstractmethod
    def make_option(self, position: int, choice: int) -> nn.Module:
        """Return the block of one choice at one position."""

    def supernet(self) -> Supernet:
        """Return a new supernet; each choice block holds all its options."""
        supernet = _ChainSupernet(self)
        if not self.has_affine_supernet:
            remove_affine(supernet)
        return supernet

    def build(self, genotype: Genotype) -> nn.Module:
        """Return the stand-alone network."""
        self.check_genotype(genotype)
        blocks = [self.make_option(position, choice) for position, choice in enumerate(genotype)]
        return nn.Sequential(self.stem(), *blocks, self.head())

    def parts(self) -> Iterator[Part]:
        """Yield the stem, the options of each block, and the head."""
        shapes = self._shapes
        yield Part(0, None, "stem", self.stem, self.image_shape)
        for number, position in enumerate(self.positions):
            for choice, name in enumerate(self.option_names(number)):
                yield Part(
                    number + 1,
                    (number, choice),
                    (name, *position),
                    lambda number=number, choice=choice: self.make_option(number, choice),  # type: ignore[misc]
                    shapes[number],
                )
        yield Part(len(self.positions) + 1, None, "head", self.head, shapes[-1])

    def layers(self, genotype: Genotype) -> list[Layer]:
        """Return the stem, the choice blocks and the head."""
        costs, shapes = self.layer_costs(genotype), self._shapes
        blocks = [
            Layer(f"layer {number}", self.option_names(number - 1)[choice], shapes[number], costs[number])
            for number, choice in enumerate(genotype, start=1)
        ]
        return [
            Layer("stem", self.stem_name, shapes[0], costs[0]),
            *blocks,
            Layer("head", self.head_name, (self.num_classes,), costs[len(blocks) + 1]),
        ]

    def encode(self, genotype: Genotype) -> str:
        """Return one digit per choice block."""
        self.check_genotype(genotype)
        return "".join(map(str, genotype))

    def decode(self, text: str) -> Genotype:
        """Parse one digit per choice block."""
        digits = text.isascii() and text.isdecimal() and len(text) == len(self.num_choices)
        genotype = tuple(map(int, text)) if digits else ()
        wrong = [
            n for n, (choice, count) in enumerate(zip(genotype, self.num_choices, strict=False)) if choice >= count
        ]
        if not digits or wrong:
            where = f" Digit {wrong[0] + 1} must be at most {self.num_choices[wrong[0]] - 1}." if wrong else ""
            raise GenotypeError(
                f"{text!r} is not a genotype of {self.kind}: it must be {len(self.num_choices)} digits out of "
                f"{''.join(map(str, range(max(self.num_choices))))}, one per layer.{where}"
            )
        return genotype

    @cached_property
    def _shapes(self) -> list[tuple[int, ...]]:
        """The output shapes of the stem and of each block."""
        shapes = [trace_cost(make_without_memory(self.stem), self.image_shape)[1]]
        for position in self.positions:
            size = (-(-side // position.stride) for side in shapes[-1][1:])
            shapes.append((position.out_channels, *size))
        return shapes


class _ChainSupernet(Supernet):
    def __init__(self, space: ChainSpace):
        super().__init__()
        self.stem = space.stem()
        self.choice_blocks = nn.ModuleList(
            MixedOperation(space.make_option(number, choice) for choice in range(count))
            for number, count in enumerate(space.num_choices)
        )
        self.head = space.head()

    def forward(self, x: Tensor, choices: Sequence[Choice]) -> Tensor:
        x = self.stem(x)
        for block, choice in zip(self.choice_blocks, choices, strict=True):
            x = block(x, choice)
        logits: Tensor = self.head(x)
        return logits
