"""The precision in which networks compute: bfloat16 where the hardware supports it, through torch's autocast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

Precision = Literal["auto", "float32", "bfloat16"]


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the type in which convolutions and matrix products compute; ``auto`` depends on the hardware."""
    if precision == "float32":
        return torch.float32
    if precision == "bfloat16":
        return torch.bfloat16
    if device.type == "cuda":
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        supported = torch.backends.cpu.get_cpu_capability() in ("AVX512", "AMX") and _cpu_has_bf16()
    return torch.bfloat16 if supported else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """Return a context in which networks compute in ``dtype``; float32 changes nothing."""
    context: AbstractContextManager[None] = torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
    return context


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute float32 as such in the block: cuDNN's convolutions round to TF32 by default, which has 10 bits."""
    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cublas.allow_tf32
    cudnn.allow_tf32 = cublas.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, cublas.allow_tf32 = before


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution without bias, padded so that stride 1 keeps the size.

    On CPUs, oneDNN's backward pass of a strided or large depthwise kernel is up to eight times slower in bfloat16 than
    in float32, and the other kernels are not faster overall. So in training on a CPU, it computes in float32 even under
    autocast.
    """

    def __init__(self, channels: int, kernel_size: int, stride: int = 1, dilation: int = 1):
        padding = dilation * (kernel_size - 1) // 2
        super().__init__(channels, channels, kernel_size, stride, padding, dilation, groups=channels, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H / stride, W / stride)."""
        if input.device.type == "cpu" and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(input.float())
        return super().forward(input)


def _cpu_has_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and bool(torch.cpu._is_avx512_bf16_supported())
