"""The tests of synthesizers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dfnas_ray.ops.regions import center_crop
from dfnas_ray.storage.shards import SyntheticImages, ids_of_shard
from dfnas_ray.synthesis.base import Chain, ShardImages, Synthesizer
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.synthesizers import SYNTHESIZERS
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.testing.member import ConfigSuite
from dfnas_ray.testing.small import small_teacher

_SHARDS = 4
_CPU = torch.device("cpu")


class MadeShards(Chain):
    """Shards that were made one after the other, in memory."""

    def __init__(self, settings: SynthesisConfig):
        self.settings = settings
        self.made: dict[int, ShardImages] = {}

    def make(self, synthesizer: Synthesizer, shard: int, seed: int = 0) -> ShardImages:
        """Make and keep a shard, with access to the earlier ones."""
        *_, self.made[shard] = synthesizer.make(seed, shard, self)
        return self.made[shard]

    def state(self, shard: int) -> bytes:
        """See `Chain`."""
        return self.made[shard].state

    def images(self, shard: int) -> SyntheticImages:
        """See `Chain`."""
        made = self.made[shard]
        return SyntheticImages(
            made.images, made.labels, made.rounds, made.logits, ids_of_shard(shard, len(made.labels))
        )


class SynthesizerSuite(ConfigSuite):
    """The tests that every synthesizer must pass.

    Give settings with few steps. A fixture ``teacher`` replaces the small network.
    """

    family = SYNTHESIZERS

    @pytest.fixture
    def teacher(self) -> Teacher:
        """An untrained network with BatchNorm."""
        return small_teacher()

    @pytest.fixture
    def settings(self, config: Any) -> SynthesisConfig:
        """A set of four shards of two batches."""
        return SynthesisConfig(
            num_shards=_SHARDS,
            images_per_shard=2 * config.batch_size,
            canvas_margin=2,
            precision="float32",
            compile=False,
            method=config,
        )

    @pytest.fixture
    def synthesizer(self, config: Any, settings: SynthesisConfig, teacher: Teacher) -> Synthesizer:
        """The synthesizer of these shards."""
        made: Synthesizer = config.synthesizer(teacher, settings, _CPU)
        return made

    def test_a_shard_has_the_rows_that_the_settings_say(
        self, settings: SynthesisConfig, synthesizer: Synthesizer, teacher: Teacher
    ) -> None:
        """Canvases have the announced size, with one label, round and row of logits for each."""
        made = MadeShards(settings).make(synthesizer, 0)
        rows, (channels, height, width) = settings.rows_per_shard, teacher.image_shape
        assert made.images.shape == (rows, channels, *settings.canvas_size(height, width))
        assert made.images.dtype == "uint8"
        assert made.labels.shape == made.rounds.shape == (rows,)
        assert made.logits.shape == (rows, teacher.num_classes)
        assert made.logits.dtype == "float32"

    def test_it_grows_by_the_rounds_that_the_settings_say(
        self, config: Any, settings: SynthesisConfig, synthesizer: Synthesizer
    ) -> None:
        """After each round the shard can be judged."""
        grown = list(synthesizer.make(0, 0, MadeShards(settings)))
        assert len(grown) == config.num_rounds
        assert [len(made.curves) for made in grown] == list(range(1, config.num_rounds + 1))
        assert all(point.losses for curve in grown[-1].curves for point in curve)

    def test_the_logits_are_the_teachers_on_the_centres(
        self, settings: SynthesisConfig, synthesizer: Synthesizer, teacher: Teacher
    ) -> None:
        """They are computed in full precision, from the images as they are stored."""
        made = MadeShards(settings).make(synthesizer, 0)
        view = center_crop(torch.from_numpy(made.images.copy()), teacher.image_shape[1:])
        with torch.no_grad():
            expected = teacher.model(teacher.normalize(view))
        torch.testing.assert_close(torch.from_numpy(made.logits), expected, rtol=1e-4, atol=1e-4)

    def test_every_class_is_asked_for_as_often_as_any_other(
        self, settings: SynthesisConfig, synthesizer: Synthesizer, teacher: Teacher
    ) -> None:
        """This holds as far as the number of images allows."""
        labels = torch.from_numpy(MadeShards(settings).make(synthesizer, 0).labels)
        counts = labels.bincount(minlength=teacher.num_classes)
        assert int(counts.max() - counts.min()) <= _times_kept(settings)

    def test_a_shard_depends_on_its_seed_and_number_and_on_no_worker(
        self, config: Any, settings: SynthesisConfig, synthesizer: Synthesizer, teacher: Teacher
    ) -> None:
        """The bytes are the same if one worker makes all shards, or if each has a worker that reads the stored ones."""
        alone, spread = MadeShards(settings), MadeShards(settings)
        for shard in range(_SHARDS):
            one = alone.make(synthesizer, shard)
            other = spread.make(config.synthesizer(teacher, settings, _CPU), shard)
            for name in ("images", "labels", "rounds", "logits"):
                assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), f"{name} of shard {shard}"
            assert one.state == other.state, f"state of shard {shard}"
            assert one.curves == other.curves

    def test_other_seeds_and_numbers_give_other_images(
        self, config: Any, settings: SynthesisConfig, synthesizer: Synthesizer, teacher: Teacher
    ) -> None:
        """No two shards are alike."""
        made = MadeShards(settings)
        first = made.make(synthesizer, 0).images.tobytes()
        assert made.make(synthesizer, 1).images.tobytes() != first
        fresh = config.synthesizer(teacher, settings, _CPU)
        assert MadeShards(settings).make(fresh, 0, seed=1).images.tobytes() != first

    def test_a_predecessor_comes_before_its_shard(self, config: Any, settings: SynthesisConfig) -> None:
        """Shards can then be made in the order of their numbers."""
        before = [config.predecessor(shard, settings) for shard in range(_SHARDS)]
        assert all(number is None or 0 <= number < shard for shard, number in enumerate(before))

    def test_progress_ends_where_it_was_announced(self, settings: SynthesisConfig, synthesizer: Synthesizer) -> None:
        """Progress counts image steps, through all shards."""
        told: list[int] = []
        made = MadeShards(settings)
        for shard in range(_SHARDS):
            *_, made.made[shard] = synthesizer.make(0, shard, made, told.append)
        assert min(told) > 0
        assert sum(told) == settings.image_steps(range(_SHARDS))

    def test_the_teacher_stays_as_it_is(
        self, settings: SynthesisConfig, synthesizer: Synthesizer, teacher: Teacher
    ) -> None:
        """Its weights, statistics and gradients do not change."""
        before = {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}
        MadeShards(settings).make(synthesizer, 0)
        assert all(torch.equal(before[name], tensor) for name, tensor in teacher.model.state_dict().items())
        assert all(parameter.grad is None for parameter in teacher.model.parameters())
        assert not teacher.model.training


def _times_kept(settings: SynthesisConfig) -> int:
    """Return how often a shard repeats the class of each image: once per kept round."""
    return settings.method.num_kept_rounds
