"""Measurement of a module's latency on a device."""

from __future__ import annotations

import logging
import platform
from pathlib import Path

import torch
from torch import nn


def device_name(device: torch.device) -> str:
    """Return the model name of a GPU or a processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


@torch.no_grad()
def measure_latency(
    module: nn.Module, input_shape: tuple[int, ...], batch_size: int, device: torch.device, min_seconds: float = 0.05
) -> float:
    """Return the median time of one forward pass in evaluation mode, in seconds.

    Args:
        module: A module with input (B, C, H, W).
        input_shape: (C, H, W).
        batch_size: B.
        device: The device; on a CPU, with the current number of threads.
        min_seconds: Shortest measuring time, after a warm-up.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils.benchmark import Timer  # its import looks for compilers and logs those that are missing

    module = module.to(device).eval()
    x = torch.randn(batch_size, *input_shape, device=device)
    for _ in range(3):
        module(x)
    timer = Timer("module(x)", globals={"module": module, "x": x}, num_threads=torch.get_num_threads())
    return float(timer.blocked_autorange(min_run_time=min_seconds).median)
