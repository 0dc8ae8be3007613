"""Where a step's time goes on the GPU: its kernels by name, and what choosing convolutions by trying gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity

from dfnas_ray.ops.graphs import GraphedCall
from dfnas_ray.ops.regions import Places, crop_each
from dfnas_ray.synthesis.generator.stream import Stream
from dfnas_ray.training.batches import Batch
from tests.benchmarks.gpu.bench import Bench, kernel_by_kernel
from tests.benchmarks.gpu.cifar10 import plan
from tests.benchmarks.gpu.speed import inversion_figures, large_teacher

_SHOWN = 14


def run(bench: Bench) -> dict[str, Any]:
    """Profile a batch of the generator and its student, and rates with and without cuDNN's trials."""
    result: dict[str, Any] = {}
    teacher = bench.teacher().to(bench.device)
    for trials in (False, True):
        torch.backends.cudnn.benchmark = trials
        config = plan(bench, batches=20)
        stream = Stream(teacher, config, config.method, bench.device, 0, 0)
        classes = torch.arange(config.method.batch_size) % 10
        for _ in range(13):
            began = bench.left
            stream.make_batch(classes, lambda images: None)
            bench.synchronize()
        result[f"seconds of a batch, trials {trials}"] = round(began - bench.left, 3)
        bench.write("kernels", result)
        if trials:
            result["compiled student"] = compiled_student(bench, stream)
            bench.write("kernels", result)
            break
        # the recorded functions once more, launched kernel by kernel under the profiler
        learning, adaptation = stream._learning, stream._adaptations[False, True]
        result["student's step"] = kernels(bench, lambda: learning._function(*learning._inputs))  # noqa: B023
        result["adaptation step"] = kernels(bench, lambda: adaptation._function(*adaptation._inputs))  # noqa: B023
        bench.write("kernels", result)
    large = large_teacher(bench)
    for trials in (True, False):
        torch.backends.cudnn.benchmark = trials
        figures = inversion_figures(bench, large, bench.pick(128, 2), False, bench.pick(8, 2), 0.01)
        result[f"ResNet-50, batch 128, trials {trials}"] = figures
        bench.write("kernels", result)
    with kernel_by_kernel():
        result["four steps of ResNet-50"] = kernels(
            bench, lambda: inversion_figures(bench, large, bench.pick(128, 2), False, 1, 0.01)
        )
    bench.write("kernels", result)
    if bench.left > 45 and not bench.small:
        result["ResNet-50, batch 128, compiled"] = inversion_figures(bench, large, 128, True, 8, 0.01)
    return result


def compiled_student(bench: Bench, stream: Stream) -> dict[str, float]:
    """Return the rate of the student's recorded step beside that of one whose networks are compiled."""
    assert stream.student is not None
    student, teacher = stream.student, stream.teacher
    size = bench.pick(256, 8)
    draws = [torch.randint(0, 100, (size,)), *stream._draw_places(size, torch.Generator().manual_seed(0))]
    inputs = [value.to(bench.device) for value in draws]
    backend = "eager" if bench.small else "inductor"
    learner, labeller = (
        torch.compile(model, dynamic=False, backend=backend) for model in (student.model, teacher.model)
    )

    def learn(chosen: Tensor, *place: Tensor) -> Tensor:
        views = crop_each(stream.canvases[chosen % len(stream.canvases)], Places(*place), stream.input_size)
        images = teacher.normalize(views)
        with torch.no_grad(), stream._autocast():
            logits = labeller(images)
        return student.learn(Batch(images, logits), learner)

    student.model.requires_grad_(True)
    plain, compiled = GraphedCall(stream._learn_once, bench.device), GraphedCall(learn, bench.device)
    began = bench.left
    for _ in range(5):
        compiled(*inputs)
    bench.synchronize()
    return {
        "compilation_s": round(began - bench.left, 1),
        "steps_per_s": round(bench.rate(lambda: plain(*inputs), bench.pick(100, 2)), 1),
        "compiled_steps_per_s": round(bench.rate(lambda: compiled(*inputs), bench.pick(100, 2)), 1),
    }


def kernels(bench: Bench, call: Callable[[], object]) -> list[str]:
    """Return the kernels that take longest: microseconds, how often, and their names."""
    if bench.device.type != "cuda":
        return []
    call()
    bench.synchronize()
    with torch.profiler.profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profile:
        call()
        bench.synchronize()
    events = [event for event in profile.key_averages() if event.device_type == torch.autograd.DeviceType.CUDA]
    events.sort(key=lambda event: -event.self_device_time_total)
    total, count = sum(event.self_device_time_total for event in events), sum(event.count for event in events)
    lines = [f"{event.self_device_time_total:8.0f} us {event.count:4d}x {event.key[:110]}" for event in events[:_SHOWN]]
    return [f"{total:8.0f} us {count:4d}x all", *lines]
