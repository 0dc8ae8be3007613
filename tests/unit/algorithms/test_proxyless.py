"""ProxylessNAS: gates of two paths, probabilities of the others kept, memory of two paths, and the better path found."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from dfnas_ray.algorithms.proxyless import ProxylessSearchConfig
from dfnas_ray.ops.mixed import MixedOperation, Mixture
from dfnas_ray.search_spaces.chain import ChainSpace, Position

FREE = {"cost": {"kind": "macs", "weight": 0}}


def make_proxyless(problem, **settings):
    return ProxylessSearchConfig(**{"epochs": 3, "warmup_epochs": 0, "batch_size": 16, **settings}).algorithm(problem)


def probabilities(proxyless):
    return [p.detach().double().clone() for p in proxyless.architecture.probabilities()]


def test_options_that_were_not_sampled_keep_their_probabilities(make_problem):
    from dfnas_ray.search_spaces import NASBench201Config

    space = NASBench201Config(channels=4, cells_per_stage=1).space((1, 16, 16), 10)
    proxyless = make_proxyless(make_problem(space), alpha_lr=0.1)
    sampled = []
    sample = proxyless._sample_gates
    proxyless._sample_gates = lambda: sampled.append(sample()) or sampled[-1]
    for batch in proxyless.alpha_batches.epoch(0):
        for _ in range(15):  # also where zeros cut a node off, so that the loss does not depend on some gates
            before = probabilities(proxyless)
            proxyless.alpha_step(batch)
            after, moved = probabilities(proxyless), 0.0
            for old, new, pair in zip(before, after, sampled[-1][0], strict=True):
                others = [option for option in range(len(old)) if option not in pair]
                assert (new[others] - old[others]).abs().max() < 1e-6
                moved += float((new[list(pair)] - old[list(pair)]).abs().sum())
            assert moved > 1e-3


def test_the_gate_gradient_is_that_of_the_papers_equation(chain, make_problem):
    """dL/dalpha_i = sum_j dL/dg_j p_j (delta_ij - p_i), over the two sampled options: Eq. 4."""
    proxyless = make_proxyless(make_problem(chain), **FREE)
    applied = []
    proxyless._apply = lambda gradients, pairs: applied.append((gradients, pairs))
    batch = next(iter(proxyless.alpha_batches.epoch(0)))
    seen = []
    supernet = proxyless.supernet
    proxyless.supernet = lambda images, mixtures: seen.append(mixtures) or supernet(images, mixtures)
    supernet.eval()  # the same output again
    proxyless.supernet.train = lambda: None
    proxyless._gate_step(batch)
    from dfnas_ray.training.distillation import distillation_loss

    gates = [m.weights.detach().clone().requires_grad_() for m in seen[0]]
    mixtures = [m._replace(weights=g) for m, g in zip(seen[0], gates, strict=True)]
    loss = distillation_loss(supernet(batch.images, mixtures), batch.teacher_logits, 3.0)
    gate_gradients = torch.autograd.grad(loss, gates)
    for row, (found, pair), dg in zip(
        proxyless.architecture.rows(), zip(*applied[0], strict=True), gate_gradients, strict=True
    ):
        p = row.detach()[list(pair)].softmax(0)
        for i in range(2):
            expected = sum(dg[j] * p[j] * (float(i == j) - p[i]) for j in range(2))
            torch.testing.assert_close(found[pair[i]], expected, rtol=1e-4, atol=1e-6)
        assert all(found[o] == 0 for o in range(len(found)) if o not in pair)


def saved_bytes(forward):
    """Bytes that autograd keeps for the backward pass, each storage once."""
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = forward()
    assert output.requires_grad
    return sum(storages.values())


def test_memory_is_that_of_two_paths_however_many_there_are():
    def block():
        return nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))

    x = torch.randn(4, 8, 16, 16)
    one = saved_bytes(lambda: MixedOperation([block()])(x, 0))
    for num_options in (2, 8):
        mixed = MixedOperation([block() for _ in range(num_options)])
        gates = torch.tensor([1.0, 0.0], requires_grad=True)
        last = num_options - 1
        two = saved_bytes(partial(mixed, x, Mixture((0, last), gates, constant=(last,))))
        assert one < two < 2 * one
    everything = MixedOperation([block() for _ in range(8)])
    weights = torch.full((8,), 1 / 8, requires_grad=True)
    assert saved_bytes(lambda: everything(x, Mixture(tuple(range(8)), weights))) > 6 * one


class TwoPathSpace(ChainSpace):
    """One place with two ways: the first drowns the signal in noise, the second keeps it."""

    kind = "two_paths"

    def __init__(self):
        super().__init__([Position(1, 1, 1)], (1, 16, 16), 10)

    def stem(self):
        return nn.Identity()

    def head(self):
        return nn.Sequential(nn.Flatten(), nn.Linear(256, 10))

    def option_names(self, position):
        return ("noise", "signal")

    def make_option(self, position, choice):
        return _Noise() if self.option_names(position)[choice] == "noise" else nn.Identity()


class _Noise(nn.Module):
    def forward(self, x):
        return torch.randn_like(x)


def bright_side(images):
    """Logits that tell which half of an image is brighter: only a network that sees the image can follow."""
    inner = images[:, 0, 1:-1, 1:-1].astype(float)
    difference = (inner[:, :8].mean((1, 2)) - inner[:, 8:].mean((1, 2))) / 8
    return np.stack([difference, -difference] + [np.full(len(images), -5.0)] * 8, axis=1)


@pytest.mark.parametrize("update", ["gradient", "reinforce"])
def test_the_better_path_is_found_in_at_least_19_of_20_seeds(make_problem, update):
    space, found = TwoPathSpace(), 0
    for seed in range(20):
        problem = make_problem(space, seed=seed, count=256, logits_of=bright_side)
        settings = {"update": update, "epochs": 12, "warmup_epochs": 4, "alpha_lr": 0.05, "optimizer": {"lr": 0.02}}
        proxyless = make_proxyless(problem, **settings, **FREE)
        while proxyless.is_training:
            proxyless.train_epoch()
        found += proxyless.best()[0] == (1,)
    assert found >= 19


def test_the_cost_term_prefers_the_cheaper_of_two_equal_ways(chain, make_problem):
    costs = []
    for weight in (0.0, 5.0):
        cost = {"kind": "macs", "weight": weight}
        proxyless = make_proxyless(make_problem(chain), epochs=8, alpha_lr=0.05, cost=cost)
        while proxyless.is_training:
            proxyless.train_epoch()
        with torch.no_grad():
            costs.append(float(proxyless.expected_cost()))
    assert costs[1] < 0.9 * costs[0]


def test_the_expected_cost_is_the_mean_over_drawn_architectures(chain, make_problem):
    proxyless = make_proxyless(make_problem(chain))
    with torch.no_grad():
        for alphas in proxyless.architecture.alphas:
            alphas.copy_(torch.randn(alphas.shape, generator=torch.Generator().manual_seed(1)))
    drawn = [chain.cost(proxyless.sample_path()).macs for _ in range(4000)]
    assert float(proxyless.expected_cost().detach()) == pytest.approx(np.mean(drawn), rel=0.02)


def test_the_alphas_go_on_in_their_images_where_the_last_epoch_ended(chain, make_problem):
    proxyless = make_proxyless(make_problem(chain, count=160), alpha_fraction=0.5, alpha_every=2, epochs=4)
    seen, vary = [], proxyless.alpha_batches._vary
    proxyless.alpha_batches._vary = lambda canvases, *others: (
        seen.append([image.numpy().tobytes() for image in canvases]) or vary(canvases, *others)
    )
    per_epoch = len(proxyless.alpha_batches)
    while len(seen) < per_epoch:
        proxyless.train_epoch()
    images = [image for batch in seen[:per_epoch] for image in batch]
    assert len(images) == len(set(images)) == per_epoch * 16
