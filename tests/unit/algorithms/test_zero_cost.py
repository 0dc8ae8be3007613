"""Training-free proxies against values worked by hand, and what networks they must tell apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from dfnas_ray.algorithms.base import SearchState
from dfnas_ray.algorithms.ranks import add_up_ranks
from dfnas_ray.algorithms.zero_cost import ZeroCostConfig
from dfnas_ray.algorithms.zero_cost.az_nas import az_nas, feature_entropy, jacobian_norm
from dfnas_ray.algorithms.zero_cost.naswot import naswot
from dfnas_ray.algorithms.zero_cost.synflow import synflow
from dfnas_ray.algorithms.zero_cost.untrained import UntrainedNetwork, initialize
from dfnas_ray.algorithms.zero_cost.zico import zico
from dfnas_ray.errors import ConfigError
from dfnas_ray.ops.cost import Cost
from dfnas_ray.training.batches import Batch


def candidate(network, *images, logits=None, shape=(1, 1, 1), blocks=()):
    batches = [Batch(x, torch.zeros(len(x), 2) if logits is None else logits) for x in images]
    return UntrainedNetwork(
        network.train(),
        blocks or list(network),
        Cost(1, 1),
        batches,
        images[0] if images else torch.empty(0),
        shape,
        torch.Generator().manual_seed(0),
    )


def linear(*rows):
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
    return layer


# SynFlow


def test_synflow_of_two_layers_equals_the_hand_computed_flow():
    # |W1| = (2, 3)^T on the input 1, |W2| = (5, 7): R = 2 * 5 + 3 * 7 = 31; each layer's sum of |theta dR/dtheta| is R.
    network = nn.Sequential(nn.Flatten(), linear((-2.0,), (3.0,)), linear((5.0, -7.0)))
    assert synflow(candidate(network)) == pytest.approx(math.log(2 * 31))
    assert network[1].weight.flatten().tolist() == [-2.0, 3.0], "the network is left as it was"


def test_synflow_of_a_network_without_flow_is_minus_infinity():
    assert synflow(candidate(nn.Sequential(nn.Flatten(), linear((0.0,), (0.0,)), linear((1.0, 1.0))))) == -math.inf


def test_synflow_does_not_depend_on_what_ran_through_the_network_before():
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), linear((1.0,) * 27)
    )
    initialize(network)
    before = synflow(candidate(network, shape=(1, 3, 3)))
    network(5 * torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(0)))  # in training mode
    assert not torch.equal(network[1].running_mean, torch.zeros(3))
    assert synflow(candidate(network, shape=(1, 3, 3))) == before


def test_synflow_passes_a_relu6_as_it_passes_a_relu():
    def network(activation):
        return nn.Sequential(nn.Flatten(), linear((20.0,), (30.0,)), activation, linear((5.0, 7.0)))

    assert synflow(candidate(network(nn.ReLU6()))) == pytest.approx(math.log(2 * (20 * 5 + 30 * 7)))
    assert synflow(candidate(network(nn.ReLU()))) == pytest.approx(math.log(2 * (20 * 5 + 30 * 7)))


@pytest.mark.parametrize("depth", [1, 200, 250])
def test_synflow_of_a_deep_network_does_not_overflow(depth):
    # Every layer multiplies the flow by 30: 30^250 is 10^369, more than a float64 holds.
    network = nn.Sequential(nn.Flatten(), *(linear((30.0,)) for _ in range(depth)))
    assert synflow(candidate(network)) == pytest.approx(math.log(depth) + depth * math.log(30))


def test_synflow_beyond_float64_is_infinite_and_not_the_lowest():
    network = nn.Sequential(nn.Flatten(), *(linear((30.0,)) for _ in range(400)))
    assert synflow(candidate(network)) == math.inf


# NASWOT


def test_naswot_equals_the_determinant_of_the_hand_computed_kernel():
    # Two ReLUs. Codes of the three images: (1, 0), (0, 1), (1, 1); the kernel counts agreements of the two units.
    network = nn.Sequential(nn.Flatten(), linear((1.0, 0.0), (0.0, 1.0)), nn.ReLU())
    images = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]).view(3, 1, 1, 2)
    kernel = np.array([[2, 0, 1], [0, 2, 1], [1, 1, 2]], float)
    assert naswot(candidate(network, images)) == pytest.approx(math.log(np.linalg.det(kernel)))


def test_naswot_of_images_with_the_same_code_is_minus_infinity():
    network = nn.Sequential(nn.Flatten(), linear((1.0, 0.0), (0.0, 1.0)), nn.ReLU())
    images = torch.tensor([[1.0, -1.0], [2.0, -3.0]]).view(2, 1, 1, 2)
    assert naswot(candidate(network, images)) == -math.inf


def test_proxies_leave_no_hooks_behind():
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)))
    images = torch.randn(4, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    naswot(candidate(network, images))
    az_nas(candidate(network, images))
    assert not any(module._forward_hooks for module in network.modules())


# ZiCo


class OneLogit(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = linear((0.0,))

    def forward(self, x):
        logit = self.layer(x.flatten(1))
        return torch.cat([logit, torch.zeros_like(logit)], dim=1)


def test_zico_equals_the_hand_computed_ratio():
    # One weight w = 0 on two logits (w x, 0): p = 1/2. With the teacher sure of class 0, dL/dw = (p - 1) x = -x / 2.
    # Batches x = 1 and x = 3: |gradients| 0.5 and 1.5, mean 1, standard deviation 0.5: log(1 / 0.5).
    sure = torch.tensor([[100.0, 0.0]])
    images = [torch.full((1, 1, 1, 1), value) for value in (1.0, 3.0)]
    measured = zico(candidate(OneLogit(), *images, logits=sure, blocks=[nn.Identity()]))
    assert measured == pytest.approx(math.log(2), rel=1e-5)


def test_zico_sees_the_small_difference_of_gradients_that_are_alike():
    # As above; |gradients| 0.5 and 0.5 (1 + 1e-5): mean over standard deviation is 2e5, where float32 would cancel.
    images = [torch.full((1, 1, 1, 1), value) for value in (1.0, 1.00001)]
    measured = zico(candidate(OneLogit(), *images, logits=torch.tensor([[100.0, 0.0]]), blocks=[nn.Identity()]))
    assert measured == pytest.approx(math.log(2e5), rel=2e-3)


# AZ-NAS


def test_the_entropy_of_features_is_that_of_their_principal_components():
    # Two uncorrelated channels of variances 1 and 3: shares 1/4 and 3/4.
    features = torch.tensor([[-1.0, -(3**0.5)], [-1.0, 3**0.5], [1.0, -(3**0.5)], [1.0, 3**0.5]]).view(4, 2, 1, 1)
    assert feature_entropy(features) == pytest.approx(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)), rel=1e-6)


def test_features_on_a_line_have_no_entropy():
    line = torch.linspace(-1, 1, 9).view(9, 1, 1, 1) * torch.tensor([1.0, 2.0, -3.0]).view(1, 3, 1, 1)
    assert feature_entropy(line) == pytest.approx(0, abs=1e-5)
    assert feature_entropy(torch.zeros(4, 3, 2, 2)) == 0


@pytest.mark.parametrize(("scale", "stride"), [(1.0, 1), (3.0, 1), (0.5, 2)])
def test_the_norm_of_a_scaled_orthogonal_map_is_its_scale(scale, stride):
    torch.manual_seed(0)
    channels = 4 * stride**2
    mix = torch.linalg.qr(torch.randn(channels, channels)).Q * scale
    before = torch.randn(512, 4, 8, 8, requires_grad=True)
    pixels = nn.functional.pixel_unshuffle(before, stride) if stride > 1 else before
    after = torch.einsum("oc,bchw->bohw", mix, pixels)
    assert jacobian_norm(before, after, torch.Generator().manual_seed(0)) == pytest.approx(
        scale, rel=0.15
    )  # an estimate from random signs


def test_the_norm_of_a_block_that_halves_one_side_alone():
    torch.manual_seed(0)
    mix = torch.linalg.qr(torch.randn(8, 8)).Q
    before = torch.randn(512, 4, 8, 1, requires_grad=True)
    pixels = before.unflatten(2, (4, 2)).permute(0, 1, 3, 2, 4).flatten(1, 2)  # two rows count as channels
    after = torch.einsum("oc,bchw->bohw", mix, pixels)
    assert jacobian_norm(before, after, torch.Generator().manual_seed(0)) == pytest.approx(1, rel=0.15)


def test_a_block_that_is_cut_off_has_norm_zero():
    before = torch.randn(2, 3, 4, 4, requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    assert jacobian_norm(before, torch.zeros(2, 3, 4, 4), generator) == 0
    assert jacobian_norm(before, torch.zeros(2, 3, 4, 4, requires_grad=True), generator) == 0


def test_trainability_is_best_for_blocks_that_keep_the_gradients_size():
    def chain(scale):
        blocks = []
        for _ in range(3):
            conv = nn.Conv2d(8, 8, 1, bias=False)
            nn.init.orthogonal_(conv.weight, gain=scale)
            blocks.append(conv)
        return nn.Sequential(nn.Conv2d(1, 8, 1), *blocks)

    torch.manual_seed(0)
    images = torch.randn(64, 1, 8, 8)
    kept, grown, vanished = (az_nas(candidate(chain(scale), images))["trainability"] for scale in (1.0, 3.0, 1 / 3))
    assert kept > grown
    assert kept > vanished
    assert -0.1 < kept <= 0


def test_progressivity_is_the_smallest_gain_in_entropy():
    # 2 channels copied to 4 keep their entropy (no gain), so the smallest difference is 0, whatever comes before.
    images = torch.randn(32, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    copy = nn.Conv2d(2, 4, 1, bias=False)
    with torch.no_grad():
        copy.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]]).view(4, 2, 1, 1))
    measured = az_nas(candidate(nn.Sequential(nn.Conv2d(2, 2, 1), nn.Identity(), copy), images))
    assert measured["progressivity"] == pytest.approx(0, abs=1e-3)


# Adding up


def test_ranks_are_added_as_logarithms():
    measurements = [{"a": 1.0, "b": 30.0}, {"a": 2.0, "b": 10.0}, {"a": 3.0, "b": 20.0}]
    expected = [math.log(1 / 3) + math.log(3 / 3), math.log(2 / 3) + math.log(1 / 3), math.log(3 / 3) + math.log(2 / 3)]
    assert add_up_ranks(measurements, ("a", "b")) == pytest.approx(expected)


def test_a_figure_that_could_not_be_measured_ranks_last_and_equals_share_a_rank():
    measurements = [{"a": math.nan}, {"a": 0.0}, {"a": -math.inf}, {"a": 5.0}]
    assert add_up_ranks(measurements, ("a",)) == pytest.approx([math.log(r / 4) for r in (1.5, 3, 1.5, 4)])


def test_initialisation_is_kaimings_and_makes_batch_norm_the_identity():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(16, 64, 3), nn.BatchNorm2d(64))
    with torch.no_grad():
        network[1].weight.fill_(7)
    initialize(network)
    assert network[0].weight.std().item() == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.05)
    assert network[0].bias.abs().max() == 0
    assert network[1].weight.tolist() == [1.0] * 64


# The search


def test_a_single_figure_is_the_score_and_several_are_ranked_among_all(chain, make_problem):
    single = ZeroCostConfig(proxies=("parameters",), batch_size=16).algorithm(make_problem(chain))
    genotype = chain.decode("1111")
    measured = single.scorer()([genotype])
    assert single.rank(measured) == [chain.cost(genotype).params]
    several = ZeroCostConfig(proxies=("parameters", "macs"), batch_size=16).algorithm(make_problem(chain))
    figures = [{"parameters": 1.0, "macs": 5.0}, {"parameters": 2.0, "macs": 6.0}]
    assert several.rank(figures) == pytest.approx([2 * math.log(0.5), 0.0])


def test_scores_are_relative_to_all_candidates_so_far(chain, make_problem):
    evolution = {"generations": 3, "population": 6, "parents": 2, "mutations": 3, "crossovers": 2}
    state = SearchState(
        ZeroCostConfig(proxies=("parameters", "macs"), batch_size=16, evolution=evolution).algorithm(
            make_problem(chain)
        )
    )
    state.run()
    algorithm = state.algorithm
    genotypes = list(algorithm.measured)
    expected = algorithm.rank([algorithm.measured[genotype] for genotype in genotypes])
    assert [algorithm.evolution.scores[genotype] for genotype in genotypes] == pytest.approx(expected)
    assert algorithm.best()[0] == genotypes[int(np.argmax(expected))]


def test_figures_of_more_repeats_are_the_mean(chain, make_problem):
    problem = make_problem(chain)
    one, two = (
        ZeroCostConfig(proxies=("naswot",), batch_size=16, repeats=n).algorithm(problem).scorer() for n in (1, 2)
    )
    genotype = chain.decode("2121")
    second = two._measure_once(genotype, 1)["naswot"]
    assert two([genotype])[0]["naswot"] == pytest.approx((one([genotype])[0]["naswot"] + second) / 2)


def test_az_nas_looks_at_noise_unless_it_is_told_to_look_at_images(chain, make_problem):
    genotype = chain.decode("2121")
    entropy = {}
    for source in ("noise", "images"):
        config = ZeroCostConfig(proxies=("expressivity",), batch_size=16, az_nas_input=source)
        assert config.needs_images == (source == "images")
        for count in (64, 48):  # other images
            entropy[source, count] = config.algorithm(make_problem(chain, count=count)).scorer()([genotype])
    assert entropy["noise", 64] == entropy["noise", 48]
    assert entropy["images", 64] != entropy["images", 48]
    assert ZeroCostConfig(proxies=("az_nas", "naswot"), az_nas_input="images").label == "az_nas(images)+naswot"
    assert ZeroCostConfig(proxies=("az_nas", "naswot")).needs_images


@pytest.mark.parametrize("proxies", [("az_nas", "synflow", "naswot", "zico"), ("expressivity", "zico", "az_nas")])
def test_a_sum_measures_what_its_parts_measure_alone(chain, make_problem, proxies):
    """Also where several draw random numbers."""
    config = ZeroCostConfig(proxies=proxies, batch_size=16, repeats=2)
    genotypes = [chain.decode(text) for text in ("2121", "0012")]
    together = config.algorithm(make_problem(chain)).scorer()(genotypes)
    alone = [part.algorithm(make_problem(chain)).scorer()(genotypes) for part in config.parts]
    assert [part.proxies for part in config.parts] == [(name,) for name in proxies]
    for number, measured in enumerate(together):
        merged = {name: value for part in alone for name, value in part[number].items()}
        assert measured == merged


def test_zico_needs_different_images_in_its_batches(chain, make_problem):
    config = ZeroCostConfig(proxies=("zico",), batch_size=16)
    problem = make_problem(chain, count=16, logits_of=lambda images: np.zeros((len(images), 10)))
    with pytest.raises(
        ConfigError, match=r"16 images of search\.images make 1 of 16\. Set search\.algorithm\.batch_size to 8"
    ):
        config.algorithm(problem).scorer()
    config.algorithm(make_problem(chain, count=16)).scorer()  # each batch has crops of its own
