"""Piece 2: CIFAR-10 from the published ResNet-20's checkpoint alone: how good a fresh network becomes in so many minutes."""

from __future__ import annotations

from typing import Any

import torch

from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.generator.config import StudentSettings
from dfnas_ray.synthesis.generator.stream import Stream
from dfnas_ray.synthesis.generator.synthesizer import GeneratorConfig
from dfnas_ray.synthesis.labels import class_of_slots
from dfnas_ray.training.config import OptimizerConfig
from tests.benchmarks.gpu.bench import Bench

SPARE_SECONDS = 15
POOL, POOL_IMAGES = "cifar10-images.pt", 20_000
"""The last images that were made, for the pieces that come after."""


def run(bench: Bench) -> dict[str, Any]:
    """Time a few batches, plan as many as there is time for, and train."""
    teacher = bench.teacher().to(bench.device)
    real = bench.real_images(teacher)
    trial = plan(bench, batches=14)
    stream = Stream(teacher, trial, trial.method, bench.device, bench.seed, 0)
    for _ in range(bench.pick(13, 4)):
        began = bench.left
        stream.make_batch(torch.arange(trial.method.batch_size) % 10, lambda images: None)
        seconds = began - bench.left
    available = bench.pick(1, 0) * (bench.left - SPARE_SECONDS)
    batches = max(bench.pick(40, 4), int(available / seconds))
    config = plan(bench, batches)
    method = config.method
    stream = Stream(teacher, config, method, bench.device, bench.seed, 0)
    result: dict[str, Any] = {
        "settings": config.model_dump(mode="json"),
        "seed": bench.seed,
        "seconds_of_a_batch": round(seconds, 3),
        "batches": batches,
        "curve": [],
    }
    began, measuring = bench.left, 0.0
    for number, classes in enumerate(
        class_of_slots(0, batches * method.batch_size, 10, bench.seed).split(method.batch_size)
    ):
        made = stream.make_batch(classes, lambda images: None)
        if stream.student_has_joined and (number % 25 == 24 or number == batches - 1):
            paused = bench.left
            assert stream.student is not None
            accuracy = real.accuracy(stream.student.model)
            measuring += paused - bench.left
            minutes = (began - bench.left - measuring) / 60
            point = {"batch": number + 1, "minutes": round(minutes, 2), "accuracy": round(accuracy, 4), **made.losses}
            result["curve"].append(point)
            print(point, f"{bench.left:.0f} s left", flush=True)
            bench.write("cifar10", result)
    torch.save(stream.canvases[: stream.pool_size][-POOL_IMAGES:].cpu().clone(), bench.out / POOL)
    (bench.out / "cifar10-state.pt").write_bytes(stream.state())
    return result


def plan(bench: Bench, batches: int) -> SynthesisConfig:
    student = StudentSettings(
        steps=bench.pick(250, 2), batch_size=bench.pick(256, 8), optimizer=OptimizerConfig(lr=0.1, weight_decay=5e-4),
        warmup_batches=bench.pick(10, 1),
    )  # fmt: skip
    method = GeneratorConfig(batch_size=bench.pick(200, 8), adaptation_steps=bench.pick(10, 1), student=student)
    return SynthesisConfig(
        num_shards=1, images_per_shard=batches * method.batch_size, canvas_margin=4, method=method, compile=False
    )
