"""Parameters and MACs that the papers and their published networks have."""

from __future__ import annotations

import pytest

from dfnas_ray.ops.cost import measure_cost
from dfnas_ray.search_spaces import (
    DartsSpaceConfig,
    NASBench201Config,
    NASBenchMacroConfig,
    ProxylessSpaceConfig,
    ShuffleNetConfig,
)

CIFAR, IMAGENET = ((3, 32, 32), 10), ((3, 224, 224), 1000)

DARTS_V1 = (
    "Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), ('sep_conv_3x3', 1), "
    "('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)], normal_concat=[2, 3, 4, 5], "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)], reduce_concat=[2, 3, 4, 5])"
)
DARTS_V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
)


def num_params(network):
    return sum(p.numel() for p in network.parameters())


def test_the_darts_supernet():
    space = DartsSpaceConfig().space(*CIFAR)
    assert num_params(space.supernet()) == 1_930_618
    assert space.alpha_shapes() == [(14, 8), (14, 8)]


@pytest.mark.parametrize(
    ("text", "params", "with_auxiliary", "imagenet"),
    [(DARTS_V1, 3_169_414, 3_645_840, 4_510_432), (DARTS_V2, 3_349_342, 3_825_768, 4_718_752)],
    ids=["V1", "V2"],
)
def test_the_published_darts_networks(text, params, with_auxiliary, imagenet):
    space = DartsSpaceConfig().space(*CIFAR)
    large = DartsSpaceConfig(form="imagenet", channels=48, layers=14).space(*IMAGENET)
    genotype = space.decode(text)
    assert space.cost(genotype).params == num_params(space.build(genotype)) == params
    assert num_params(space.build_with_auxiliary(genotype)) == with_auxiliary
    assert large.cost(genotype).params == num_params(large.build(genotype)) == imagenet


@pytest.mark.parametrize(
    ("text", "params", "macs"),
    [
        (
            "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|",
            1_531_546,
            220.12,
        ),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", 73_306, 7.78),
        (
            "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
            129_306,
            15.65,
        ),
        (
            "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|",
            1_073_466,
            153.27,
        ),
    ],
)
def test_nasbench201(text, params, macs):
    space = NASBench201Config().space(*CIFAR)
    cost = space.cost(space.decode(text))
    assert cost.params == params
    assert round(cost.macs / 1e6, 2) == macs
    assert space.encode(space.decode(text)) == text


@pytest.mark.parametrize(
    ("text", "params", "macs"),
    [
        ("00000000", 387_882, 7_713_280),
        ("11111111", 1_588_874, 53_246_464),
        ("22222222", 2_932_586, 105_660_928),
        ("22212220", 1_985_514, 85_164_544),
    ],
)
def test_nasbench_macro(text, params, macs):
    space = NASBenchMacroConfig().space(*CIFAR)
    assert space.cost(space.decode(text)) == measure_cost(space.build(space.decode(text)), CIFAR[0]) == (params, macs)


def test_proxyless_mobile():
    space = ProxylessSpaceConfig().space(*IMAGENET)
    by_name = {(3, 3): 0, (3, 6): 1, (5, 3): 2, (5, 6): 3, (7, 3): 4, (7, 6): 5}
    stages = (
        "5e3 3e3 - -",
        "7e3 3e3 5e3 5e3",
        "7e6 5e3 5e3 5e3",
        "5e6 5e3 5e3 5e3",
        "7e6 7e6 7e3 7e3",
        "7e6",
    )
    layers = [layer for stage in stages for layer in stage.split()]
    genotype = tuple(6 if layer == "-" else by_name[int(layer[0]), int(layer[2])] for layer in layers)
    cost = space.cost(genotype)
    assert cost.params == 4_080_512
    assert round(cost.macs / 1e6, 2) == 320.43
    assert cost == measure_cost(space.build(genotype), IMAGENET[0])


@pytest.mark.parametrize(
    ("genotype", "macs"),
    [
        ((0, 0, 3, 1, 1, 1, 0, 0, 2, 0, 2, 1, 1, 0, 2, 0, 2, 1, 3, 2), 318.73),
        ((0,) * 20, 295.84),
        ((1,) * 20, 313.65),
        ((2,) * 20, 340.37),
        ((3,) * 20, 358.83),
    ],
)
def test_shufflenet(genotype, macs):
    space = ShuffleNetConfig().space(*IMAGENET)
    assert round(space.cost(genotype).macs / 1e6, 2) == macs


def test_the_shufflenet_supernet_has_no_affine_batch_norm():
    assert num_params(ShuffleNetConfig().space(*IMAGENET).supernet()) == 8_388_176
