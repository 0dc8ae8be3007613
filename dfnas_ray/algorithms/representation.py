r"""How similarly two networks represent the same images: centred kernel alignment (CKA), the normalised HSIC.

Each network is described by the Gram matrix of its features over one batch, so their widths and sizes may differ. With
:math:`H = I - \frac1B 1 1^T`,

.. math:: HSIC(K, L) = \frac{1}{(B-1)^2} tr(K H L H), \qquad
          CKA(K, L) = \frac{HSIC(K, L)}{\sqrt{HSIC(K, K) \, HSIC(L, L)}}

Sources: Gretton et al. 2005 (HSIC); Song et al. 2012, JMLR 13 (its unbiased estimator); Kornblith et al. 2019,
arXiv:1905.00414, Sec. 3 (CKA, linear and RBF). In RMI-NAS (Zheng et al. 2022, CVPR), the normalised HSIC estimates the
mutual information of representations, which ranks architectures.
Shapes: B images, D features; Gram matrices (..., B, B), for instance one per stage of a network.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Kernel = Literal["linear", "rbf"]

_TINY = 1e-12  # if features do not vary, the centred Gram matrix is zero, and the alignment must be 0


def gram(features: Tensor, kernel: Kernel) -> Tensor:
    r"""Return the Gram matrix (B, B) of features (B, D), in float32.

    ``linear`` is :math:`x_i \cdot x_j`. ``rbf`` is :math:`\exp(-\|x_i - x_j\|^2 / 2 \sigma^2)`, where :math:`\sigma` is
    the median distance, without gradient. Neither depends on the order of the D features.
    """
    features = features.float()
    products = features @ features.T
    if kernel == "linear":
        return products
    norms = products.diagonal()
    squares = (norms[:, None] + norms[None, :] - 2 * products).clamp_min(0)
    pairs = torch.triu_indices(len(features), len(features), offset=1, device=features.device)
    median = squares.detach()[pairs[0], pairs[1]].median() if len(features) > 1 else squares.new_zeros(())
    return torch.exp(-squares / (2 * median).clamp_min(_TINY))


def center(grams: Tensor, unbiased: bool = False) -> Tensor:
    """Return H K H, or the U-centred matrix if ``unbiased``.

    Summed products of U-centred matrices give the unbiased estimator of HSIC. A U-centred matrix has a diagonal of
    zeros and needs B > 3 (Székely & Rizzo 2014, arXiv:1310.2926).
    """
    size = grams.shape[-1]
    if not unbiased:
        rows = grams.mean(-1, keepdim=True)
        return grams - rows - rows.mT + rows.mean(-2, keepdim=True)
    off_diagonal = 1 - torch.eye(size, dtype=grams.dtype, device=grams.device)
    grams = grams * off_diagonal
    rows = grams.sum(-1, keepdim=True)
    total = rows.sum(-2, keepdim=True)
    return (grams - (rows + rows.mT) / (size - 2) + total / ((size - 1) * (size - 2))) * off_diagonal


def hsic(first: Tensor, second: Tensor, unbiased: bool = False) -> Tensor:
    """Return the Hilbert-Schmidt independence criterion of Gram matrices (..., B, B), shape (...)."""
    size = first.shape[-1]
    total = (center(first, unbiased) * center(second, unbiased)).sum((-2, -1))
    return total / (size * (size - 3) if unbiased else (size - 1) ** 2)


def normalize(grams: Tensor, unbiased: bool = False) -> Tensor:
    """Return centred Gram matrices of Frobenius norm 1: CKA is the sum of the product of two of them.

    The teacher's matrices are normalised once, and then compared with many students.
    """
    centred = center(grams, unbiased)
    return centred / torch.linalg.matrix_norm(centred)[..., None, None].clamp_min(_TINY)


def cka(first: Tensor, second: Tensor, unbiased: bool = False) -> Tensor:
    """Return the centred kernel alignment of Gram matrices (..., B, B), shape (...).

    It is 1 for equal representations, and 0 for independent ones or if one does not vary. The unbiased estimate may
    fall below 0. The biased estimate grows with D / B: any two wide representations of a small batch look similar. CKA
    does not change when features are rotated or scaled as a whole.
    """
    return (normalize(first, unbiased) * normalize(second, unbiased)).sum((-2, -1))
