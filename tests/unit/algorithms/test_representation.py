"""CKA and HSIC: values by hand, against the defining formulas, and what they must not depend on."""

from __future__ import annotations

import math

import pytest
import torch

from dfnas_ray.algorithms.representation import center, cka, gram, hsic, normalize

KERNELS = ("linear", "rbf")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).float()


def column(*values):
    return torch.tensor(values, dtype=torch.float32)[:, None]


def test_linear_hsic_and_cka_equal_the_hand_computed_values():
    # Centred, x = (-1, 0, 1) and y = (-2, -1, 3): x.y = 5, x.x = 2, y.y = 14, and n - 1 = 2.
    k, ell = gram(column(0, 1, 2), "linear"), gram(column(0, 1, 5), "linear")
    assert hsic(k, ell).item() == pytest.approx(25 / 4)
    assert cka(k, ell).item() == pytest.approx(25 / 28)


def test_the_rbf_kernel_takes_the_median_distance_as_its_width():
    # Distances 1, 2, 3: sigma = 2.
    expected = [[1, math.exp(-1 / 8), math.exp(-9 / 8)], [0, 1, math.exp(-4 / 8)], [0, 0, 1]]
    found = gram(column(0, 1, 3), "rbf")
    assert found.triu().tolist() == [pytest.approx(row, abs=1e-6) for row in expected]
    assert torch.equal(found, found.T)


def test_centring_is_h_k_h():
    k = gram(draw(6, 3), "linear")
    h = torch.eye(6) - 1 / 6
    torch.testing.assert_close(center(k), h @ k @ h, atol=1e-5, rtol=0)


def test_the_unbiased_estimate_is_that_of_song_et_al():
    n = 7
    k, ell = gram(draw(n, 3), "linear"), gram(draw(n, 4, seed=1), "rbf")
    a, b, ones = k - torch.diag(k.diag()), ell - torch.diag(ell.diag()), torch.ones(n)
    expected = (
        torch.trace(a @ b)
        + (ones @ a @ ones) * (ones @ b @ ones) / ((n - 1) * (n - 2))
        - 2 / (n - 2) * ones @ a @ b @ ones
    ) / (n * (n - 3))
    assert hsic(k, ell, unbiased=True).item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
def test_cka_is_one_for_rotated_and_scaled_features_and_symmetric(kernel, unbiased):
    x, y = draw(16, 5), draw(16, 9, seed=1)
    rotation = torch.linalg.qr(draw(5, 5, seed=2)).Q
    k, turned, other = gram(x, kernel), gram(3.7 * x @ rotation, kernel), gram(y, kernel)
    assert cka(k, turned, unbiased).item() == pytest.approx(1, abs=1e-5)
    assert cka(turned, other, unbiased).item() == pytest.approx(cka(k, other, unbiased).item(), abs=1e-5)
    assert cka(other, k, unbiased).item() == pytest.approx(cka(k, other, unbiased).item(), abs=1e-6)
    assert cka(k, other, unbiased).item() < 0.9


def test_cka_is_not_invariant_to_any_linear_map():
    x = draw(16, 5)
    stretched = x * torch.tensor([100.0, 1, 1, 1, 1])
    assert cka(gram(x, "linear"), gram(stretched, "linear")).item() < 0.8


def test_wide_independent_features_agree_only_in_the_biased_estimate():
    k, ell = gram(draw(16, 5_000), "linear"), gram(draw(16, 5_000, seed=1), "linear")
    assert cka(k, ell).item() > 0.9
    assert abs(cka(k, ell, unbiased=True).item()) < 0.2


def test_several_stages_are_compared_at_once():
    first, second = (torch.stack([gram(draw(8, 3, seed=s + n), "linear") for n in range(3)]) for s in (0, 10))
    assert cka(first, second).tolist() == pytest.approx([cka(a, b).item() for a, b in zip(first, second, strict=True)])


@pytest.mark.parametrize("kernel", KERNELS)
def test_features_that_do_not_vary_are_aligned_with_nothing_and_have_finite_gradients(kernel):
    dead = torch.zeros(8, 4, requires_grad=True)
    alignment = (normalize(gram(dead, kernel)) * normalize(gram(draw(8, 4), kernel))).sum()
    alignment.backward()
    assert alignment.item() == 0
    assert torch.isfinite(dead.grad).all()
