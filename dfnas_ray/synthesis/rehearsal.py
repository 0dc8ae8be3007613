"""A few steps of a small synthesis, from which the time of the whole one is estimated."""

from __future__ import annotations

import time

import torch

from dfnas_ray.ops.compiling import compiled_time
from dfnas_ray.synthesis.base import Rehearsal
from dfnas_ray.synthesis.settings import SetSettings
from dfnas_ray.synthesis.synthesizers import make_synthesizer
from dfnas_ray.teachers.base import Teacher


class _EnoughSeenError(Exception):
    """Ends a rehearsal."""


def rehearse(teacher: Teacher, settings: SetSettings, rehearsal: Rehearsal, device: torch.device) -> float:
    """Return the seconds that one worker would take for the whole set, all shards together.

    Args:
        teacher: The teacher that the images are made from.
        settings: The settings of the whole set.
        rehearsal: What `SynthesizerConfig.rehearsal` returns for them.
        device: The device that makes the images.

    Raises:
        SynthesisError: this teacher cannot make these images.
    """
    small = settings.model_copy(
        update={"num_shards": 1, "images_per_shard": rehearsal.images_per_shard, "compile": False}
    )
    synthesizer = make_synthesizer(rehearsal.method, teacher, small, device)
    last = max(part.end for part in rehearsal.parts)
    times = [0.0]  # the start, then the end of each step

    def on_steps(images: int) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter())
        if len(times) > last:
            raise _EnoughSeenError

    times[0] = time.perf_counter()
    try:
        for _ in synthesizer.make(0, 0, None, on_steps):
            pass
    except _EnoughSeenError:
        pass
    seconds = 0.0
    for part in rehearsal.parts:
        end = min(part.end, len(times) - 1)  # another package's synthesizer may take fewer steps than it says
        first = min(part.first, end - 1)
        took = part.steps * (times[end] - times[first]) / (end - first)
        seconds += compiled_time(took) if part.is_compiled and device.type == "cpu" else took
    return seconds
