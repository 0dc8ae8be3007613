"""Shards from streams: each stream makes its shards one after another, and its state is committed with each of them."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import numpy as np
import torch
from torch import nn

from dfnas_ray.errors import SynthesisError
from dfnas_ray.ops.networks import evaluation_mode
from dfnas_ray.synthesis.base import Chain, LossPoint, OnSteps, ShardImages, Synthesizer
from dfnas_ray.synthesis.checks import check_synthesis
from dfnas_ray.synthesis.generator.config import GeneratorSettings
from dfnas_ray.synthesis.generator.stream import MadeBatch, Stream
from dfnas_ray.synthesis.labels import class_of_slots
from dfnas_ray.synthesis.settings import SetSettings
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.teachers.fresh import fresh_copy


class GeneratorConfig(GeneratorSettings):
    """A network that makes images, as a synthesizer."""

    def synthesizer(self, teacher: Teacher, settings: SetSettings, device: torch.device) -> Synthesizer:
        """See `SynthesizerConfig`."""
        return GeneratorSynthesizer(teacher, settings, self, device)

    def load_student(self, state: bytes, teacher: Teacher) -> nn.Module:
        """See `SynthesizerConfig`."""
        network = fresh_copy(teacher.model).cpu()
        network.load_state_dict(torch.load(BytesIO(state), map_location="cpu", weights_only=True)["student"]["model"])
        return evaluation_mode(network)


class GeneratorSynthesizer(Synthesizer):
    """Makes shards with a generator.

    Raises:
        SynthesisError: this teacher cannot make these images.
    """

    def __init__(self, teacher: Teacher, settings: SetSettings, config: GeneratorSettings, device: torch.device):
        check_synthesis(teacher, settings, config)
        self.teacher, self.settings, self.config, self.device = teacher.to(device), settings, config, device
        self._stream: tuple[int, int, Stream] | None = None  # the seed, the shard that comes next, and the stream

    def make(
        self, seed: int, shard: int, chain: Chain | None = None, on_steps: OnSteps = lambda images: None
    ) -> Iterator[ShardImages]:
        """See `Synthesizer`."""
        stream = self._stream_at(seed, shard, chain)
        self._stream = None  # a stream that fails within a shard is not used again
        settings, config = self.settings, self.config
        size = settings.images_per_shard
        classes = class_of_slots(shard * size, size, self.teacher.num_classes, seed)
        made: list[MadeBatch] = []
        first = stream.batches
        for batch in classes.split(config.batch_size):
            try:
                made.append(stream.make_batch(batch, on_steps))
            except SynthesisError as error:
                raise SynthesisError(f"Shard {shard}: {error}") from error
        self._stream = (seed, shard + config.streams, stream)
        yield ShardImages(
            images=torch.cat([batch.canvases for batch in made]).numpy(),
            labels=classes.numpy(),
            rounds=torch.cat([batch.is_calibrated for batch in made]).numpy().astype(np.int64),
            logits=torch.cat([batch.logits for batch in made]).numpy(),
            curves=[[LossPoint(number, batch.losses) for number, batch in enumerate(made, first)]],
            state=stream.state(),
        )

    def _stream_at(self, seed: int, shard: int, chain: Chain | None) -> Stream:
        """Return the stream of a shard, in the state after all its earlier shards."""
        if self._stream is not None and self._stream[:2] == (seed, shard):
            return self._stream[2]
        config, streams = self.config, self.config.streams
        stream = Stream(self.teacher, self.settings, config, self.device, seed, shard % streams)
        before = config.predecessor(shard, self.settings)
        if before is not None:
            assert chain is not None, "a shard that has a predecessor is made with it"
            held = -(-config.pool_size(shard % streams, self.settings) // self.settings.images_per_shard)
            parts = [chain.images(number) for number in range(shard % streams, shard, streams)[-held:]]
            stream.load(
                chain.state(before),
                [torch.from_numpy(part.images) for part in parts],
                [torch.from_numpy(part.logits.copy()) for part in parts],
            )
        return stream
