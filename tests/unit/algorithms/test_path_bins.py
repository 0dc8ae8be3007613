"""Paths over bins of MACs: each bin as often, and nothing beyond the limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dfnas_ray.algorithms.path_bins import MacsBins
from dfnas_ray.algorithms.spos import SposConfig


def macs_of(chain, bins, draws=2000):
    rng = np.random.default_rng(0)
    return np.array([chain.cost(bins.draw(rng)).macs for _ in range(draws)])


def test_each_bin_is_drawn_as_often_within_three_sigma(chain):
    bins = MacsBins(chain, 4, None, None)
    assert bins.bins[0][0] == chain.cost(chain.cheapest()).macs
    assert bins.bins[-1][1] == chain.most_macs
    counts, _ = np.histogram(macs_of(chain, bins), [low for low, _ in bins.bins] + [bins.bins[-1][1]])
    assert np.abs(counts - 500).max() < 3 * np.sqrt(500 * 3 / 4)
    uniform = [chain.cost(chain.sample(np.random.default_rng(n))).macs for n in range(2000)]
    counts, _ = np.histogram(uniform, 4, (bins.bins[0][0], chain.most_macs))
    assert np.abs(counts - 500).max() > 6 * np.sqrt(500 * 3 / 4), "which drawing uniformly does not"


def test_bins_lie_between_the_limits_and_an_empty_one_takes_the_nearest(chain):
    every = sorted({chain.cost(genotype).macs for genotype in chain.all_architectures()})
    low, high = every[5], every[40]
    drawn = macs_of(chain, MacsBins(chain, 50, high, low))
    assert drawn.min() >= low
    assert drawn.max() <= high
    gap = max(np.diff(every[5:41]))
    assert gap > (high - low) / 50, "there are bins that hold nothing"


def test_a_lower_limit_below_the_space_makes_no_empty_bins(chain):
    assert MacsBins(chain, 4, None, 2).bins == MacsBins(chain, 4, None, None).bins


@pytest.mark.parametrize("bins", [0, 3])
def test_a_supernet_trains_such_paths(chain, make_problem, monkeypatch, bins):
    spos, paths = SposConfig(epochs=2, batch_size=16, path_bins=bins).algorithm(make_problem(chain)), []
    monkeypatch.setattr(
        spos.student, "step", lambda batch, forward: paths.append(forward(batch.images)) or torch.zeros(())
    )
    monkeypatch.setattr(spos, "supernet", lambda images, path: path)
    while len(paths) < 1000:
        spos.train_epoch()
    macs = [chain.cost(tuple(path)).macs for path in paths]
    third = (chain.most_macs - chain.cost(chain.cheapest()).macs) / 3
    share = np.mean(np.array(macs) > chain.most_macs - third)
    assert (share == pytest.approx(1 / 3, abs=0.05)) == bool(bins)
