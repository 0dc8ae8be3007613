"""Piece 0: everything imports, the teacher is as good as it should be, and what the hardware gives."""

from __future__ import annotations

from typing import Any

import torch

from tests.benchmarks.gpu.bench import Bench

EXPECTED = 0.8103


def run(bench: Bench) -> dict[str, Any]:
    """Return accuracy, matmul rate and copy rate."""
    teacher = bench.teacher().to(bench.device)
    real = bench.real_images(teacher)
    accuracy = real.accuracy(teacher.model)
    if not bench.small and abs(accuracy - EXPECTED) > 0.002:
        raise RuntimeError(f"The teacher has {accuracy:.2%} instead of {EXPECTED:.2%}: no figure would mean anything.")
    size = bench.pick(8192, 256)
    a, b = (torch.randn(size, size, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    flops = 2 * size**3 * bench.rate(lambda: a @ b, 10)
    source = torch.randn(bench.pick(1 << 30, 1 << 16), device=bench.device)
    target = torch.empty_like(source)
    copied = 2 * source.numel() * 4 * bench.rate(lambda: target.copy_(source), 10)
    return {
        "accuracy": round(accuracy, 4),
        "matmul_tflops": round(flops / 1e12, 1),
        "copy_tb_per_s": round(copied / 1e12, 2),
    }
