"""How fast the generator's step and its student's step are beside the same steps written plainly.

    python tests/benchmarks/generator_speed.py --checkpoint resnet20-12fca82f.th --threads 2

All ways run in one process on the same teacher, alternating, because a machine's speed drifts. *Plain* is the method of
Fang et al. 2022 (arXiv:2112.06253) from its formulas: float32, eager, (B, C, H, W) in memory, a deep copy of the generator
for each batch, one forward hook per BatchNorm layer that takes the variance of a permuted copy. *Product* is `Stream` at its
default settings, *compiled* is the same with ``student.compile``. Without a checkpoint the teacher is an untrained ResNet-20.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from synthesis_speed import IMAGE_SHAPE, MEAN, STD, StatisticsHook, permuted_statistics
from torch import Tensor, nn

from dfnas_ray.ops.regions import Places, crop_each, draw_places
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.generator.config import GeneratorSettings
from dfnas_ray.synthesis.generator.network import ImageGenerator
from dfnas_ray.synthesis.generator.stream import BETAS, Stream
from dfnas_ray.teachers.base import Teacher, freeze_teacher
from dfnas_ray.teachers.checkpoint import load_weights
from dfnas_ray.teachers.cifar_resnet import resnet20
from dfnas_ray.teachers.fresh import fresh_copy
from dfnas_ray.teachers.weight_files import read_state_dict

CPU = torch.device("cpu")
SETTINGS = {"num_shards": 1, "images_per_shard": 100_000, "canvas_margin": 4, "compile": False}


class Plain:
    """The generator and its student, term by term, without any care for speed."""

    def __init__(self, teacher: Teacher, settings: SynthesisConfig, method: GeneratorSettings):
        self.settings, self.method = settings, method
        self.model = copy.deepcopy(teacher.model).eval()
        self.hooks = [
            StatisticsHook(each, permuted_statistics)
            for each in self.model.modules()
            if isinstance(each, nn.BatchNorm2d)
        ]
        self.canvas, self.size = settings.canvas_size(*teacher.image_shape[1:]), teacher.image_shape[1:]
        self.generator = ImageGenerator(method.latent_dim, self.canvas, method.width, teacher.mean, teacher.std)
        self.student = fresh_copy(teacher.model)
        self.optimizer = torch.optim.SGD(self.student.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)
        self.mean, self.std = (torch.tensor(value).view(1, -1, 1, 1) for value in (teacher.mean, teacher.std))
        self.pool = torch.empty((0, 3, *self.canvas), dtype=torch.uint8)

    def view(self, canvases: Tensor) -> Tensor:
        """Return the teacher's inputs: a random crop of each canvas, perhaps mirrored, and normalised."""
        places: Places = draw_places(len(canvases), self.canvas, self.size, 0.5, torch.Generator())
        return (crop_each(canvases, places, self.size) - self.mean) / self.std

    def make_batch(self) -> None:
        """Adapt a copy of the generator in a few steps, keep a batch, and move the generator towards the copy."""
        weights, targets = self.settings.regularizers, torch.arange(self.method.batch_size) % 10
        adapted = copy.deepcopy(self.generator).train()
        noise = torch.randn((len(targets), self.method.latent_dim), requires_grad=True)
        groups = [
            {"params": list(adapted.parameters()), "lr": self.method.lr},
            {"params": [noise], "lr": self.method.latent_lr},
        ]
        optimizer = torch.optim.Adam(groups, betas=BETAS)
        self.student.eval()
        for _ in range(self.method.adaptation_steps):
            images = self.view(adapted(noise))
            logits, guesses = self.model(images), self.student(images)
            agrees = (logits.argmax(1) == guesses.argmax(1)).float()
            divergence = F.kl_div(guesses.log_softmax(1), logits.log_softmax(1), reduction="none", log_target=True).sum(
                1
            )
            loss = F.cross_entropy(logits, targets) - weights.adversarial.weight * (agrees * divergence).mean()
            loss = loss + weights.bn_statistics.weight * sum(hook.distance for hook in self.hooks)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            made = (adapted(noise) * 255).round().to(torch.uint8)
            for kept, new in zip(self.generator.parameters(), adapted.parameters(), strict=True):
                kept.lerp_(new, self.method.meta_rate)
        self.pool = torch.cat([self.pool, made])

    def teach(self, steps: int) -> None:
        """Train the student on random images of the pool."""
        self.student.train()
        for _ in range(steps):
            chosen = torch.randint(0, len(self.pool), (128,))
            images = self.view(self.pool[chosen].float() / 255)
            with torch.no_grad():
                logits = self.model(images)
            student, teacher = ((each / 4).log_softmax(1) for each in (self.student(images), logits))
            loss = 16 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.student.parameters(), 5.0)
            self.optimizer.step()


class Product:
    """A stream whose two parts can be timed."""

    def __init__(self, teacher: Teacher, settings: SynthesisConfig, method: GeneratorSettings):
        self.stream, self.batch = Stream(teacher, settings, method, CPU, 0, 0), torch.arange(method.batch_size) % 10
        self.stream.make_batch(self.batch, lambda images: None)

    def make_batch(self) -> None:
        """Make a batch without the student's steps, whose number is that of `teach`."""
        with mock.patch.object(self.stream, "_teach", return_value=0.0):
            self.stream.make_batch(self.batch, lambda images: None)

    def teach(self, steps: int) -> None:
        """Take the student's steps."""
        self.stream._teach(lambda images: None)


def timed(work: Callable[[], None]) -> float:
    """Return the seconds that it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Time all ways in turn, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="steps of the student in one repetition")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = resnet20()
    if arguments.checkpoint is not None:
        load_weights(model, read_state_dict(arguments.checkpoint), str(arguments.checkpoint))
    teacher = freeze_teacher("resnet20", model, IMAGE_SHAPE, MEAN, STD)
    ways = {}
    for name, compiled in (("plain", False), ("product", False), ("compiled", True)):
        student = {"steps": arguments.steps, "warmup_batches": 0, "compile": compiled}
        values = {**SETTINGS, "method": {"kind": "generator", "student": student}}
        settings = SynthesisConfig.model_validate(values)
        ways[name] = (Plain if name == "plain" else Product)(teacher, settings, settings.method)
    times: dict[str, dict[str, list[float]]] = {name: {"batch": [], "step": []} for name in ways}
    for repeat in range(arguments.repeats + 1):
        for name, way in ways.items():
            batch, step = timed(way.make_batch), timed(lambda way=way: way.teach(arguments.steps)) / arguments.steps
            if repeat:  # the first one warms up
                times[name]["batch"].append(batch)
                times[name]["step"].append(step)
    print(
        json.dumps({"threads": arguments.threads, **{name: summary(of, times["plain"]) for name, of in times.items()}})
    )


def summary(times: dict[str, list[float]], plain: dict[str, list[float]]) -> dict[str, float]:
    """Return median milliseconds, and how many times as fast as the plain way, in the median of the repetitions."""
    return {f"{part}_ms": round(1000 * statistics.median(taken), 1) for part, taken in times.items()} | {
        f"{part}_ratio": round(statistics.median(b / a for a, b in zip(taken, plain[part], strict=True)), 2)
        for part, taken in times.items()
    }


if __name__ == "__main__":
    main()
