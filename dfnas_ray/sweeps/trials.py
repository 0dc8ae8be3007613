"""One trial of a sweep: the images of one setting, made and measured, in any process."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dfnas_ray.errors import AlteredError, DfnasError
from dfnas_ray.progress import Board
from dfnas_ray.storage.location import JsonObject, Location
from dfnas_ray.storage.run_dir import fingerprint
from dfnas_ray.storage.shards import SyntheticImages, decode_shard, ids_of_shard, shard_name
from dfnas_ray.sweeps.checks import check_settings
from dfnas_ray.sweeps.config import SweepConfig
from dfnas_ray.sweeps.measure import Judge
from dfnas_ray.sweeps.ranges import Parameter
from dfnas_ray.sweeps.record import trial_folder
from dfnas_ray.synthesis.base import Synthesizer
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.job import ShardJob, TeacherLabel
from dfnas_ray.synthesis.synthesizers import make_synthesizer
from dfnas_ray.teachers.base import Teacher

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepJob:
    """What all trials of one sweep share."""

    sweep: SweepConfig
    synthesis: SynthesisConfig
    seed: int
    folder: Location

    @staticmethod
    def steps(config: SynthesisConfig) -> int:
        """Return image steps of one trial, to show progress by."""
        return config.image_steps()

    @property
    def steps_of_a_trial(self) -> int:
        """Image steps of a trial with the experiment's own settings; the progress counts every trial as this many."""
        return self.steps(self.sweep.synthesis(self.synthesis, {}, fixed=True))


def shard_job(teacher: Teacher, config: SynthesisConfig, seed: int, folder: Location) -> ShardJob:
    """Return the job of one setting's shards; its key covers everything that they depend on."""
    key = fingerprint([teacher.fingerprint, seed, config.model_dump(mode="json")])
    return ShardJob(config, seed, key, TeacherLabel.of(teacher), folder)


def run_trial(
    number: int,
    compared: int,
    parameters: Mapping[str, Parameter],
    job: SweepJob,
    judge: Judge,
    device: torch.device,
    board: Board,
) -> Iterator[JsonObject]:
    """Make one setting's images and measure them; yield the figures at each rung and at the end.

    An error of the setting is a result, too. A caller that stops iterating stops the trial.

    Args:
        number: The number of the trial, which names its folder.
        compared: Number of rounds after which it was last compared.
        parameters: Values by dotted path, as Optuna stores them.
        job: What the trial shares with the others.
        judge: Measures the images.
        device: The device to compute on.
        board: Receives the progress.

    Yields:
        ``number`` together with ``rounds``, ``finished`` and the figures by name; or together with ``failed``.
    """
    folder = trial_folder(job.folder, number)
    write = board.writer(f"trial {number}")
    started = time.monotonic()
    total = job.steps_of_a_trial
    try:
        settings = check_settings(judge.teacher, job.synthesis, job.sweep, parameters)
        shards = shard_job(judge.teacher, settings, job.seed, folder)
        synthesizer = make_synthesizer(settings.method, judge.teacher, settings, device)
        done = 0

        def on_steps(count: int) -> None:
            nonlocal done
            done += count
            write(min(1.0, done / job.steps(settings)) * total)

        for rounds, images in _growing(synthesizer, shards, on_steps):
            if rounds == settings.num_rounds:
                figures = judge(SyntheticImages.concatenate(images), device)
                seconds = round(time.monotonic() - started, 1)
                result = {"number": number, "rounds": rounds, "figures": figures, "seconds": seconds}
                (folder / "result.json").write_json(result)
                yield {**figures, "number": number, "rounds": rounds, "finished": True}
            elif job.sweep.pruning is not None and job.sweep.pruning.has_rung(compared, rounds):
                figures = judge(SyntheticImages.concatenate(images), device)
                yield {**figures, "number": number, "rounds": rounds, "finished": False}
                compared = rounds
    except DfnasError as error:
        logger.warning("Trial %d of the sweep cannot be finished: %s", number, error)
        (folder / "result.json").write_json({"number": number, "error": str(error)})
        yield {"number": number, "failed": True}
    write(total, f"trial {number}")


def reference_images(teacher: Teacher, job: ShardJob, device: torch.device) -> SyntheticImages:
    """Return the images of the last round of a setting's first shard, without the warm-up images.

    Raises:
        SynthesisError: the setting gives no images.
    """
    synthesizer = make_synthesizer(job.config.method, teacher, job.config, device)
    *_, (_, images) = _rounds(synthesizer, job, 0, lambda images: None)
    last = images if job.config.method.num_rounds == 1 else images.select(images.rounds == images.rounds.max())
    return last.select(np.arange(job.config.method.warmup_images, len(last)))


def _rounds(
    synthesizer: Synthesizer, job: ShardJob, shard: int, on_steps: Callable[[int], None]
) -> Iterator[tuple[int, SyntheticImages]]:
    """Yield after each round of a shard the number of its rounds and its images; commit it after the last one.

    A shard that was committed before is yielded once, complete.
    """
    location = job.folder / shard_name(shard)
    if location.exists():
        try:
            yield job.config.method.num_rounds, decode_shard(location.read_bytes(), job.key, str(location))[1]
            return
        except AlteredError as error:
            logger.warning("%s", error)
    for made in synthesizer.make(job.seed, shard, job, on_steps):
        rounds = len(made.curves)  # not made.rounds, which counts calibrations: an image of a generator may have one
        if rounds == job.config.method.num_rounds:
            job.commit(made, shard)
        ids = ids_of_shard(shard, len(made.labels))
        yield rounds, SyntheticImages(made.images, made.labels, made.rounds, made.logits, ids)


def _growing(
    synthesizer: Synthesizer, job: ShardJob, on_steps: Callable[[int], None]
) -> Iterator[tuple[int, Sequence[SyntheticImages]]]:
    """Make a trial's shards; yield after each round the number of rounds and each shard's images so far."""
    whole: list[SyntheticImages] = []
    for shard in range(job.config.num_shards):
        for rounds, latest in _rounds(synthesizer, job, shard, on_steps):
            yield shard * job.config.method.num_rounds + rounds, [*whole, latest]
        whole.append(latest)
