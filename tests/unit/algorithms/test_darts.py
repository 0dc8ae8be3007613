"""DARTS: bilevel steps, early stops, beta-decay, limits, and searching with several processes."""

from __future__ import annotations

import copy

import pytest
import torch

from dfnas_ray.algorithms.darts import DartsSearchConfig, beta_decay, has_sharpened
from dfnas_ray.errors import ConfigError, GenotypeError


def make_darts(problem, **settings):
    return DartsSearchConfig(**{"epochs": 3, "batch_size": 16, **settings}).algorithm(problem)


def first_batches(darts):
    return next(iter(darts.weight_batches.epoch(0))), next(iter(darts.alpha_batches.epoch(0)))


def test_weights_and_alphas_learn_from_different_images(chain, make_problem):
    darts = make_darts(make_problem(chain))
    weights, alphas = set(darts.weight_batches.ids.tolist()), set(darts.alpha_batches.ids.tolist())
    assert weights.isdisjoint(alphas)
    assert len(weights | alphas) == 64


def test_a_weight_step_leaves_alphas_alone_and_an_alpha_step_the_weights(chain, make_problem):
    darts = make_darts(make_problem(chain), warmup_epochs=1)
    alphas = copy.deepcopy(darts.architecture.state_dict())
    darts.step(*first_batches(darts))  # warm-up: weights only
    assert all(torch.equal(alphas[name], value) for name, value in darts.architecture.state_dict().items())
    darts.epochs_done = 1
    weights = [p.detach().clone() for p in darts.supernet.parameters()]
    darts._alpha_step(*first_batches(darts))
    assert all(torch.equal(a, b) for a, b in zip(weights, darts.supernet.parameters(), strict=True))
    assert not torch.equal(next(iter(alphas.values())), next(iter(darts.architecture.state_dict().values())))


def test_both_orders_take_different_alpha_steps(chain, make_problem):
    results = []
    for order in ("first", "second"):
        darts = make_darts(make_problem(chain), order=order)
        darts.train_epoch()
        results.append(darts.architecture.rows()[0].detach())
    assert not torch.equal(*results)


def test_too_many_skips_stop_the_search_before_they_took_over(chain, make_problem):
    darts = make_darts(make_problem(chain), epochs=5, collapse={"max_skips": 1, "eigenvalue": False})
    darts.train_epoch()
    with torch.no_grad():
        for alphas in darts.architecture.alphas:
            alphas.copy_(torch.tensor([0.0, 1.0, 0.0]).expand_as(alphas))
    darts.train_epoch()
    assert darts.is_training
    with torch.no_grad():
        for alphas in darts.architecture.alphas:
            alphas.copy_(torch.tensor([9.0, 0.0, 0.0]).expand_as(alphas))  # 0 is the skip
    darts.train_epoch()
    assert not darts.is_training
    assert chain.encode(darts.best()[0]) == "1111"


@pytest.mark.parametrize(
    ("eigenvalues", "expected"),
    [
        ([1.0] * 20, False),
        ([1.0] * 5 + [2.0] * 4, True),  # averages of 5: 1.0 four epochs ago, 1.8 now
        ([1.0] * 5 + [1.1] * 4, False),
        ([1.0] * 4 + [2.0] * 4, False),  # too few to compare
        ([-1.0] * 5 + [2.0] * 4, False),  # a negative start says nothing
    ],
)
def test_sharpening_is_told_by_averages_of_five_epochs_four_epochs_apart(eigenvalues, expected):
    assert has_sharpened(eigenvalues, window=5, lookback=4, ratio=0.75) is expected


def test_sharpening_returns_the_alphas_of_four_epochs_before(chain, make_problem, monkeypatch):
    darts = make_darts(make_problem(chain), epochs=20)
    values = iter([1.0] * 5 + [3.0] * 15)
    monkeypatch.setattr(darts, "_measure_eigenvalue", lambda: next(values))
    alphas = []
    while darts.is_training:
        darts.train_epoch()
        alphas.append([a.detach().clone() for a in darts.architecture.alphas])
    assert len(alphas) < 20
    assert darts._chosen_epoch == len(alphas) - 1 - 4
    for kept, then in zip(darts._alphas[darts._chosen_epoch], alphas[darts._chosen_epoch], strict=True):
        assert torch.equal(kept, then)


def test_what_sharpens_in_the_warm_up_does_not_stop_the_search(chain, make_problem, monkeypatch):
    darts = make_darts(make_problem(chain), epochs=16, warmup_epochs=6)
    monkeypatch.setattr(
        darts, "_measure_eigenvalue", lambda: float(min(darts.epochs_done, 6))
    )  # grows with the weights
    while darts.is_training:
        darts.train_epoch()
    assert darts.epochs_done == 16
    assert darts._chosen_epoch is None
    assert len(darts._eigenvalues) == 10


def test_too_many_skips_in_the_warm_up_do_not_stop_the_search(chain, make_problem, monkeypatch):
    darts = make_darts(make_problem(chain), epochs=6, warmup_epochs=3, collapse={"max_skips": 1, "eigenvalue": False})
    monkeypatch.setattr(chain, "num_skips", lambda genotype: 4)
    while darts.is_training:
        darts.train_epoch()
    assert darts.epochs_done == 5  # the second epoch in which the alphas learned
    assert darts._chosen_epoch == darts.config.warmup_epochs


def test_beta_decay_is_the_mean_log_sum_exp_of_the_rows():
    rows = [torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0, 1.0, 1.0])]
    expected = (torch.tensor(2.0).log() + 1 + torch.tensor(4.0).log()) / 2
    torch.testing.assert_close(beta_decay(rows), expected)


def test_beta_decay_keeps_large_alphas_down(chain, make_problem):
    sizes = []
    for regularization in ("none", "beta"):
        darts = make_darts(make_problem(chain), regularization=regularization, alpha_optimizer={"lr": 0.1}, epochs=6)
        with torch.no_grad():
            for alphas in darts.architecture.alphas:
                alphas[:, 1] += 3.0
        while darts.is_training:
            darts.train_epoch()
        sizes.append(max(row.max().item() for row in darts.architecture.rows()))
    assert sizes[1] < sizes[0] - 0.3


def test_the_architecture_of_a_limited_search_is_within_the_limit(chain, make_problem):
    limit = chain.cost(chain.decode("1011")).macs
    darts = make_darts(make_problem(chain, max_macs=limit))
    with torch.no_grad():
        for alphas in darts.architecture.alphas:
            alphas[:, 2] += 5.0  # it would like the most expensive
    genotype, _ = darts.best()
    assert chain.cost(genotype).macs <= limit
    assert chain.cost(genotype).macs > chain.cost(chain.cheapest()).macs


def test_a_limit_that_nothing_meets_is_refused(chain, make_problem):
    with pytest.raises(GenotypeError, match="smallest architecture"):
        make_darts(make_problem(chain, max_macs=1))


def test_too_few_images_to_split_are_refused(chain, make_problem):
    with pytest.raises(ConfigError, match="too few"):
        make_darts(make_problem(chain, count=1))


def alpha_batches_of(search, epochs):
    """The images of each alpha batch, as their stored pixels, before crops."""
    seen, unvaried = [], search.alpha_batches._vary

    def vary(canvases, *others):
        seen.append([image.numpy().tobytes() for image in canvases])
        return unvaried(canvases, *others)

    search.alpha_batches._vary = vary
    for _ in range(epochs):
        search.train_epoch()
    return seen


def test_the_alphas_see_all_their_images_however_small_the_part_of_the_weights_is(chain, make_problem):
    darts = make_darts(make_problem(chain, count=160), alpha_fraction=0.8, epochs=9, collapse={"eigenvalue": False})
    per_epoch = len(darts.alpha_batches)
    assert per_epoch % len(darts.weight_batches)
    seen = alpha_batches_of(darts, -(-2 * per_epoch // len(darts.weight_batches)))
    for start in (0, per_epoch):
        images = [image for batch in seen[start : start + per_epoch] for image in batch]
        assert len(images) == len(set(images)) == per_epoch * 16


def test_the_second_order_is_computed_without_tf32(chain, make_problem, monkeypatch):
    darts = make_darts(make_problem(chain), order="second")
    seen, loss = [], darts._loss
    monkeypatch.setattr(darts, "_loss", lambda *a: seen.append(torch.backends.cudnn.allow_tf32) or loss(*a))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    darts._alpha_step(*first_batches(darts))
    assert seen
    assert not any(seen)
    assert torch.backends.cudnn.allow_tf32
