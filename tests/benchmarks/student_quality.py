"""How good a network becomes on synthetic images alone: accuracy on real images over the minutes since the checkpoint.

A fresh copy of the teacher's own network learns from what the experiment's synthesizer makes. A generator's student learns
beside it; on images of an inversion, the student learns when they are all made, for as many minutes as the budget leaves.
Real images are for the measurement alone, whose time is not counted.

    python tests/benchmarks/student_quality.py experiments/cifar10.yaml --minutes 45 --threads 2 \
        --set teacher.checkpoint=resnet20-12fca82f.th --set evaluation.dataset.path=cifar10_test.parquet
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dfnas_ray.config.experiment import evaluation_dataset, load_experiment
from dfnas_ray.datasets.base import ImageDataset, open_dataset, read_image, to_uint8
from dfnas_ray.seeding import derive_seed, seed_everything
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.shards import SyntheticImages, ids_of_shard
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.generator.config import GeneratorSettings
from dfnas_ray.synthesis.generator.stream import Stream
from dfnas_ray.synthesis.labels import class_of_slots
from dfnas_ray.teachers.base import Teacher, load_teacher
from dfnas_ray.teachers.fresh import fresh_copy
from dfnas_ray.training.batches import SyntheticBatches
from dfnas_ray.training.config import AugmentationConfig, DistillationConfig, OptimizerConfig
from dfnas_ray.training.device_images import DeviceImages
from dfnas_ray.training.student import Student

CPU = torch.device("cpu")


class Clock:
    """Minutes since the start, without those of measurements."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def minutes(self) -> float:
        return (time.monotonic() - self._start) / 60

    def pause(self, work: Callable[[], float]) -> float:
        began = time.monotonic()
        result = work()
        self._start += time.monotonic() - began
        return result


@dataclass
class RealImages:
    """Labelled images, uint8 (N, C, H, W), to measure with."""

    images: Tensor
    labels: Tensor
    teacher: Teacher

    @classmethod
    def read(cls, dataset: ImageDataset, teacher: Teacher) -> RealImages:
        items = [read_image(dataset, index, "evaluation.dataset") for index in range(len(dataset))]
        images = torch.stack([to_uint8(image, teacher.image_shape, where) for image, _, where in items])
        return cls(images, torch.tensor([label for _, label, _ in items]), teacher)

    def to(self, device: torch.device) -> RealImages:
        """Return the same where networks are measured."""
        return RealImages(self.images.to(device), self.labels.to(device), self.teacher)

    @torch.no_grad()
    def accuracy(self, network: nn.Module, count: int | None = None) -> float:
        """Return the share of right answers, of so many images drawn once."""
        was_training = network.training
        network.eval()
        order = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(0))[:count].to(
            self.labels.device
        )
        right = sum(
            int((network(self.teacher.normalize(self.images[part])).argmax(1) == self.labels[part]).sum())
            for part in order.split(250)
        )
        network.train(was_training)
        return right / len(order)


def by_generator(
    teacher: Teacher, config: SynthesisConfig, seed: int, clock: Clock, minutes: float
) -> Iterator[nn.Module]:
    """Yield the student after each batch that it learned after."""
    method = config.method
    assert isinstance(method, GeneratorSettings)
    assert method.student is not None
    stream = Stream(teacher, config, method, CPU, seed, 0)
    assert stream.student is not None
    classes = class_of_slots(0, stream.num_batches * method.batch_size, teacher.num_classes, seed)
    for batch in classes.split(method.batch_size):
        made = stream.make_batch(batch, lambda images: None)
        if made.losses.get("student") is not None:
            yield stream.student.model
        if clock.minutes > minutes:
            return


def by_inversion(
    teacher: Teacher, config: SynthesisConfig, seed: int, clock: Clock, minutes: float
) -> Iterator[nn.Module]:
    """Yield the student after every 100 steps, when all images are made."""
    synthesizer = config.method.synthesizer(teacher, config, CPU)
    parts = []
    for shard in range(config.num_shards):
        *_, made = synthesizer.make(seed, shard)
        ids = ids_of_shard(shard, len(made.labels))
        parts.append(SyntheticImages(made.images, made.labels, made.rounds, made.logits, ids))
        print(json.dumps({"shard": shard, "minutes": round(clock.minutes, 2)}), flush=True)
    images = SyntheticImages.concatenate(parts)
    variation = AugmentationConfig(flip_probability=config.flip_probability)
    distillation = DistillationConfig(temperature=4.0, augmentation=variation)
    batches = SyntheticBatches(DeviceImages(images, CPU), teacher, distillation, 128, seed)
    seed_everything(derive_seed(seed, "student-quality"))
    began, student, steps = clock.minutes, None, 0
    trial = Student(fresh_copy(teacher.model), OptimizerConfig(weight_decay=5e-4), 4.0, 100, config.precision)
    for batch in batches.first(10):  # how many steps the rest of the budget holds
        trial.step(batch)
    total = round((minutes - clock.minutes) / ((clock.minutes - began) / 10))
    student = Student(fresh_copy(teacher.model), OptimizerConfig(weight_decay=5e-4), 4.0, total, config.precision)
    epoch = 0
    while steps < total:
        for batch in batches.epoch(epoch):
            student.step(batch)
            steps += 1
            if steps % 100 == 0 or steps == total:
                yield student.model
            if steps == total:
                return
        epoch += 1


def main() -> None:
    """Measure, and print a line of JSON for each point of the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--every", type=int, default=10, help="points of the curve between two measurements")
    parser.add_argument("--images", type=int, default=2000, help="real images of a measurement; the last one takes all")
    parser.add_argument("--name", default="")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    experiment = load_experiment(arguments.experiment, arguments.overrides)
    teacher = load_teacher(experiment.teacher, Location.parse("runs/teacher", "cache").make_dir())
    real = RealImages.read(open_dataset(evaluation_dataset(experiment)), teacher)
    config = experiment.synthesis
    clock = Clock()
    grow = by_generator if isinstance(config.method, GeneratorSettings) else by_inversion
    facts = {"name": arguments.name, "seed": experiment.seed, "method": config.method.model_dump(mode="json")["kind"]}
    network: nn.Module | None = None
    for number, network in enumerate(grow(teacher, config, experiment.seed, clock, arguments.minutes), 1):
        if number % arguments.every == 0:
            accuracy = clock.pause(lambda: real.accuracy(network, arguments.images))  # noqa: B023
            print(json.dumps({**facts, "minutes": round(clock.minutes, 2), "accuracy": round(accuracy, 4)}), flush=True)
    assert network is not None
    print(
        json.dumps(
            {
                **facts,
                "minutes": round(clock.minutes, 2),
                "final": round(real.accuracy(network), 4),
                "images": len(real.labels),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
