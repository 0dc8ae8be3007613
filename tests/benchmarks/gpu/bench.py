"""What every piece of the runbook is given, and what it leaves."""

from __future__ import annotations

import datetime
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from dfnas_ray.datasets.base import open_dataset
from dfnas_ray.datasets.parquet import ParquetConfig
from dfnas_ray.ops import graphs
from dfnas_ray.ops.latency import device_name
from dfnas_ray.teachers.base import Teacher, freeze_teacher
from dfnas_ray.teachers.checkpoint import load_weights
from dfnas_ray.teachers.cifar_resnet import resnet20
from dfnas_ray.teachers.weight_files import read_state_dict
from tests.benchmarks.student_quality import RealImages

CHECKPOINT, TEST_IMAGES = "resnet20-12fca82f.th", "cifar10_test.parquet"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass
class Bench:
    """Where a piece runs, and how long it may.

    Attributes:
        data: Folder with the checkpoint and the real images.
        out: Where results are written.
        device: A GPU; in tests of the runbook itself, a CPU.
        seconds: Of this piece.
        small: Whether sizes are those of a test.
        seed: Of whatever a piece draws.
    """

    data: Path
    out: Path
    device: torch.device
    seconds: float
    small: bool = False
    seed: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.seconds - (time.monotonic() - self.started)

    def pick(self, size: int, small: int) -> int:
        """Return a size, or the small one."""
        return small if self.small else size

    def teacher(self) -> Teacher:
        """Return the published ResNet-20; in the small, one of random weights."""
        model = resnet20()
        if self.small:
            return freeze_teacher("resnet20", model, (3, 32, 32), MEAN, STD)
        load_weights(model, read_state_dict(self.data / CHECKPOINT), CHECKPOINT)
        return freeze_teacher("resnet20", model, (3, 32, 32), MEAN, STD)

    def real_images(self, teacher: Teacher) -> RealImages:
        """Return CIFAR-10's test images, to measure with; in the small, noise."""
        if self.small:
            images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
            return RealImages(images, torch.randint(0, 10, (64,)), teacher).to(self.device)
        dataset = open_dataset(ParquetConfig(kind="parquet", path=str(self.data / TEST_IMAGES)))
        return RealImages.read(dataset, teacher).to(self.device)

    def synchronize(self) -> None:
        """Wait for the GPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def rate(self, call: Callable[[], object], calls: int, repetitions: int = 5, warmup: int = 6) -> float:
        """Return calls per second: the median of a few repetitions, after some that compile and record."""
        for _ in range(warmup):
            call()
        rates = []
        for _ in range(repetitions):
            self.synchronize()
            began = time.perf_counter()
            for _ in range(calls):
                call()
            self.synchronize()
            rates.append(calls / (time.perf_counter() - began))
        return statistics.median(rates)

    def facts(self) -> dict[str, Any]:
        """Return what a figure is worth nothing without."""
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
        return {
            "device": device_name(self.device),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "commit": os.environ.get("DFNAS_COMMIT") or commit or "unknown",
            "date": str(datetime.date.today()),
        }

    def file(self, name: str) -> Path:
        """Return where a piece's result is; one of another seed stands beside it."""
        return self.out / (f"{name}.json" if not self.seed else f"{name}-seed-{self.seed}.json")

    def read(self, name: str) -> dict[str, Any]:
        """Return what is known so far."""
        return dict(json.loads(self.file(name).read_text())) if self.file(name).exists() else {}

    def write(self, name: str, result: dict[str, Any]) -> None:
        """Write what is known so far; a piece may do so many times."""
        facts = {**self.facts(), "seconds": round(time.monotonic() - self.started, 1)}
        self.out.mkdir(parents=True, exist_ok=True)
        self.file(name).write_text(json.dumps({**facts, **result}, indent=1) + "\n")


def kernel_by_kernel(yes: bool = True) -> AbstractContextManager[object]:
    """Keep steps from being recorded as graphs: the state of things to compare with."""
    return mock.patch.object(graphs, "_EAGER_CALLS", 10**9) if yes else nullcontext()


def launches(call: Callable[[], object]) -> dict[str, int]:
    """Count what one call asks of the GPU: kernels, and how often the host waits."""
    call()
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        call()
        torch.cuda.synchronize()
    counts = {event.key: event.count for event in profile.key_averages()}

    def count(names: Sequence[str]) -> int:
        return sum(counts.get(name, 0) for name in names)

    return {
        "kernels": count(["cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx"]),
        "graphs": count(["cudaGraphLaunch"]),
        "waits": count(["cudaStreamSynchronize", "cudaEventSynchronize", "aten::_local_scalar_dense"]),
    }
