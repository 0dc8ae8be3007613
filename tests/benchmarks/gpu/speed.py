"""Piece 1: steps per second, launched kernel by kernel, recorded as a graph, and compiled; beside the published formulation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torchvision.models import resnet50

from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.generator.config import StudentSettings
from dfnas_ray.synthesis.generator.stream import Stream
from dfnas_ray.synthesis.generator.synthesizer import GeneratorConfig
from dfnas_ray.synthesis.inversion.config import ScaleConfig
from dfnas_ray.synthesis.inversion.inverter import Inverter
from dfnas_ray.synthesis.inversion.synthesizer import InversionConfig
from dfnas_ray.teachers.base import Teacher, freeze_teacher
from tests.benchmarks.gpu.bench import MEAN, STD, Bench, kernel_by_kernel, launches
from tests.benchmarks.synthesis_speed import PublishedPath, draw_targets

SECONDS_OF_A_COMPILATION = 60


def run(bench: Bench) -> dict[str, Any]:
    """Measure one thing after the other, as long as there is time."""
    result: dict[str, Any] = {}
    teacher = bench.teacher()
    for part in (generator_steps(bench, teacher), inversion_steps(bench, teacher), large_inversion_steps(bench)):
        for name, figures in part:
            result[name] = figures
            print(name, figures, f"{bench.left:.0f} s left", flush=True)
            bench.write("speed", result)
            if bench.left < 5:
                return {**result, "ended": "out of time"}
    return result


def generator_steps(bench: Bench, teacher: Teacher) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rates of a generator's and its student's steps; both ways must lead to the same weights."""
    student = StudentSettings(steps=bench.pick(50, 2), batch_size=bench.pick(256, 8), warmup_batches=1)
    size = bench.pick(200, 8)
    method = GeneratorConfig(batch_size=size, student=student, adaptation_steps=bench.pick(10, 2))
    config = SynthesisConfig(num_shards=1, images_per_shard=40 * size, canvas_margin=4, method=method, compile=False)
    classes = torch.arange(size) % teacher.num_classes
    weights = []
    for recorded in (False, True):
        with kernel_by_kernel(not recorded):
            stream = Stream(teacher.to(bench.device), config, method, bench.device, 0, 0)
            seconds = {"adaptation": 0.0, "student": 0.0}
            for batch in range(bench.pick(10, 3)):
                began = bench.left
                timed(bench, stream, classes)
                if batch >= bench.pick(6, 1):
                    seconds["adaptation"] += began - bench.left - stream_student_seconds(stream)
                    seconds["student"] += stream_student_seconds(stream)
            batches = bench.pick(4, 2)
            assert stream.student is not None
            weights.append(torch.cat([p.detach().flatten() for p in stream.student.parameters]))
            figures: dict[str, Any] = {
                "adaptation_steps_per_s": round(batches * method.adaptation_steps / seconds["adaptation"], 1),
                "student_steps_per_s": round(batches * student.steps / seconds["student"], 1),
            }
            if bench.device.type == "cuda":
                figures["per_batch"] = launches(lambda: stream.make_batch(classes, lambda images: None))  # noqa: B023
            yield f"generator, {'recorded' if recorded else 'kernel by kernel'}", figures
    first, second = weights
    yield (
        "generator, recorded beside kernel by kernel",
        {"relative_difference_of_student_weights": float((first - second).norm() / first.norm())},
    )


_student_seconds: dict[int, float] = {}


def stream_student_seconds(stream: Stream) -> float:
    """Return the seconds that the student took in the latest batch."""
    return _student_seconds.get(id(stream), 0.0)


def timed(bench: Bench, stream: Stream, classes: torch.Tensor) -> None:
    """Make a batch, and note the student's share of the time: from the first of its steps to the end."""
    began: list[float] = []

    def on_steps(images: int) -> None:
        if images == student_batch and not began:
            bench.synchronize()
            began.append(bench.left)

    assert stream.config.student is not None
    student_batch = stream.config.student.batch_size
    stream.make_batch(classes, on_steps)
    bench.synchronize()
    _student_seconds[id(stream)] = began[0] - bench.left if began else 0.0


def inversion_steps(bench: Bench, teacher: Teacher) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield image-steps per second on ResNet-20 at several batch sizes, and those of the published formulation."""
    published: dict[int, float] = {}
    for size in (bench.pick(128, 4), bench.pick(1024, 8)):
        config = inversion_config(bench, size, compiled=False, bn_weight=1.0)
        path = PublishedPath(teacher, config, bench.device)
        targets = draw_targets(size, teacher.num_classes, 0)
        steps = bench.pick(20, 1)
        rate = bench.rate(lambda: path.invert([ScaleConfig(scale=1, steps=steps)], targets, 0), 1, 3, 1)  # noqa: B023
        published[size] = rate * steps * size
        yield f"inversion, published, batch {size}", {"image_steps_per_s": round(published[size])}
    for size, recorded, compiled in (
        (bench.pick(128, 4), False, False),
        (bench.pick(128, 4), True, False),
        (bench.pick(512, 6), True, False),
        (bench.pick(1024, 8), False, False),
        (bench.pick(1024, 8), True, False),
        (bench.pick(1024, 8), True, True),
    ):
        if compiled and (bench.left < SECONDS_OF_A_COMPILATION or bench.small):
            continue
        with kernel_by_kernel(not recorded):
            figures = inversion_figures(bench, teacher, size, compiled, steps=bench.pick(60, 2), bn_weight=1.0)
        if size in published:
            figures["of_published"] = round(figures["image_steps_per_s"] / published[size], 2)
        how = "compiled and recorded" if compiled else "recorded" if recorded else "kernel by kernel"
        yield f"inversion, {how}, batch {size}", figures


def large_inversion_steps(bench: Bench) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield image-steps per second on a ResNet-50 at 224 pixels, and the share of arithmetic in bfloat16."""
    teacher = large_teacher(bench)
    for size, compiled in ((bench.pick(64, 1), False), (bench.pick(128, 2), False), (bench.pick(128, 2), True)):
        if compiled and (bench.left < SECONDS_OF_A_COMPILATION or bench.small):
            continue
        figures = inversion_figures(bench, teacher, size, compiled, steps=bench.pick(12, 2), bn_weight=0.01)
        # forward, and the gradient of the inputs: 2 x 2 x MACs
        figures["tflops"] = round(4 * teacher.cost.macs * figures["image_steps_per_s"] / 1e12, 1)
        yield f"inversion of ResNet-50, {'compiled and ' if compiled else ''}recorded, batch {size}", figures


def large_teacher(bench: Bench) -> Teacher:
    """Return a ResNet-50 of random weights."""
    torch.manual_seed(0)
    side = bench.pick(224, 32)
    return freeze_teacher("resnet50", resnet50(), (3, side, side), MEAN, STD)


def inversion_config(bench: Bench, size: int, compiled: bool, bn_weight: float, steps: int = 1) -> SynthesisConfig:
    return SynthesisConfig(
        num_shards=1,
        images_per_shard=size,
        canvas_margin=4,
        method=InversionConfig(batch_size=size, scales=(ScaleConfig(scale=1, steps=steps),), lr=0.1, warmup_steps=0),
        regularizers={"bn_statistics": {"weight": bn_weight}, "total_variation": {"weight": 2.5e-5}},  # type: ignore[arg-type]
        compile=compiled,
    )


def inversion_figures(
    bench: Bench, teacher: Teacher, size: int, compiled: bool, steps: int, bn_weight: float
) -> dict[str, Any]:
    config = inversion_config(bench, size, compiled, bn_weight, steps)
    assert isinstance(config.method, InversionConfig)
    inverter = Inverter(teacher, config, config.method, bench.device)
    targets = draw_targets(size, teacher.num_classes, 0)
    began = bench.left
    inverter.invert(targets, torch.Generator().manual_seed(0))
    first = began - bench.left
    rate = bench.rate(lambda: inverter.invert(targets, torch.Generator().manual_seed(0)), 1, 3, 0)
    return {"image_steps_per_s": round(rate * steps * size), "first_call_s": round(first, 1)}
