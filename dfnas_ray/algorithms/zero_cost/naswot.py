"""NASWOT: how differently an untrained network's ReLUs respond to different images.

Source: Mellor et al. 2021, arXiv:2006.04647. Written from the formula.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dfnas_ray.algorithms.zero_cost.untrained import UntrainedNetwork


@torch.no_grad()
def naswot(candidate: UntrainedNetwork) -> float:
    r"""Return :math:`\log |\det K_H|` on the first batch.

    :math:`(K_H)_{ij} = N_A - d_H(c_i, c_j)`. The code :math:`c_i` of image i says which of the network's :math:`N_A`
    ReLUs are active; :math:`d_H` is the Hamming distance. Two images with the same code make the determinant 0 and the
    score minus infinity.
    """
    images = candidate.batches[0].images
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64, device=images.device)

    def add(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        code = (output > 0).flatten(1).float()
        units = code.shape[1]
        on = code.sum(1)
        both = code @ code.T
        # Agreements: both on, or both off.
        kernel.add_((units - on[:, None] - on[None, :] + 2 * both).double())

    relus = [module for module in candidate.network.modules() if isinstance(module, nn.ReLU | nn.ReLU6)]
    handles = [module.register_forward_hook(add) for module in relus]
    try:
        candidate.network(images.clone())  # the network may change its input
    finally:
        for handle in handles:
            handle.remove()
    return log_determinant(kernel)


def log_determinant(kernel: Tensor) -> float:
    """Return log |det| of a symmetric (B, B) matrix; minus infinity for a singular one."""
    return float(torch.linalg.slogdet(kernel).logabsdet)
