"""The architecture drawn, for any space."""

import xml.etree.ElementTree as ET
from typing import NamedTuple

from dfnas_ray.ops.cost import Cost
from dfnas_ray.report.drawing import draw_architecture, draw_compact, operation_colour, operations_of, picture_file


class AnyLayer(NamedTuple):
    name: str
    operation: str
    output_shape: tuple[int, ...]
    cost: Cost


LAYERS = [
    AnyLayer("stem", "conv 3x3", (16, 32, 32), Cost(432, 442_368)),
    AnyLayer("cell 1", "sep <conv> & pool", (16, 16, 16), Cost(1_000, 1_000_000)),
    AnyLayer("cell 2", "skip", (32, 16, 16), Cost(0, 0)),
    AnyLayer("head", "linear", (10,), Cost(330, 320)),
]


def texts(svg):
    return [element.text for element in ET.fromstring(svg).iter() if element.tag == "text"]


def test_every_layer_is_drawn_with_its_name_shape_and_cost(space):
    layers = space.layers(space.decode("21"))
    shown = texts(draw_architecture(layers))
    for layer in layers:
        assert layer.name in shown
        assert layer.operation in shown
        assert " × ".join(map(str, layer.output_shape)) in shown
    assert len(ET.fromstring(draw_compact(layers)).findall("g")) == len(layers)


def test_shares_of_the_macs_are_those_of_the_whole_network():
    shown = texts(draw_architecture(LAYERS))
    assert "442 k · 31\u202f%" in shown
    assert "1.00 M · 69\u202f%" in shown


def test_names_are_escaped_and_colours_follow_operations():
    svg = draw_architecture(LAYERS)
    assert "sep <conv> & pool" in texts(svg)
    operations = operations_of(LAYERS)
    assert operations == ["sep <conv> & pool", "skip"]  # stem and head are in every architecture
    colours = {operation_colour(name, operations) for name in [*operations, "conv 3x3"]}
    assert len(colours) == 3


def test_a_network_without_macs_can_be_drawn():
    assert texts(draw_architecture([AnyLayer("a", "b", (1,), Cost(0, 0))]))
    assert draw_architecture([])


def test_a_file_without_pictures_is_one():
    assert ET.fromstring(picture_file([])).tag.endswith("svg")
