"""The shards of one set: what each leaves for the next one of its chain, and which have to be made."""

import numpy as np
import pytest

from dfnas_ray.errors import ShardError
from dfnas_ray.storage.location import Location
from dfnas_ray.synthesis.base import ShardImages, SynthesizerConfig
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.job import ShardJob, TeacherLabel


class TwoChains(SynthesizerConfig):
    """Shards 0, 2, 4 go on from each other, and so do 1, 3, 5."""

    @property
    def steps_per_image(self):
        return 1

    def canvas_size(self, settings, height, width):
        return height, width

    def predecessor(self, shard, settings):
        return shard - 2 if shard >= 2 else None

    def synthesizer(self, teacher, settings, device):
        raise NotImplementedError


def images_of(shard, state):
    return ShardImages(
        images=np.full((2, 1, 4, 4), shard, np.uint8),
        labels=np.zeros(2, np.int64),
        rounds=np.zeros(2, np.int64),
        logits=np.zeros((2, 3), np.float32),
        curves=[[]],
        state=state,
    )


def file_of(folder, kind, shard):
    (file,) = folder.glob(f"{kind}-{shard:05d}.*")
    return file


@pytest.fixture
def job(tmp_path):
    """Six shards of two chains, all made."""
    config = SynthesisConfig(num_shards=6).model_copy(update={"method": TwoChains()})
    job = ShardJob(config, 0, "key", TeacherLabel("f" * 64, (1, 4, 4)), Location.parse(tmp_path))
    for shard in range(6):
        job.commit(images_of(shard, f"left by {shard}".encode()), shard)
    return job


def test_a_shard_leaves_its_state_and_its_images_for_the_next_one(job):
    assert job.predecessor(3) == 1
    assert job.state(1) == b"left by 1"
    np.testing.assert_array_equal(job.images(1).images, images_of(1, b"").images)


def test_a_shard_without_a_state_leaves_no_file(tmp_path):
    job = ShardJob(SynthesisConfig(), 0, "key", TeacherLabel("f" * 64, (1, 4, 4)), Location.parse(tmp_path))
    job.commit(images_of(0, b""), 0)
    assert [path.name for path in tmp_path.iterdir()] == ["shard-00000.parquet"]
    assert job.to_make([2, 0]) == [0, 2]


def test_a_state_that_was_altered_is_named(job, tmp_path):
    file_of(tmp_path, "state", 1).write_bytes(b"left by 2")
    with pytest.raises(ShardError, match=r"state-00001\.\w+ is not the state that shard 1 left"):
        job.state(1)


def remove(file):
    file.unlink()


def damage(file):
    file.write_bytes(b"cut o")


@pytest.mark.parametrize(
    ("missing", "changes", "made"),
    [
        ([3], {}, [3]),
        ([0, 1], {}, [0, 1]),
        ([5, 2], {}, [2, 5]),
        ([3], {("state", 1): remove}, [1, 3]),
        ([5], {("state", 1): remove}, [5]),
        ([5], {("state", 3): remove}, [3, 5]),
        ([5], {("state", 1): remove, ("state", 3): remove}, [1, 3, 5]),
        ([4, 5], {("state", 0): remove, ("state", 3): damage}, [3, 4, 5]),
        ([3], {("shard", 1): remove}, [1, 3]),
        ([3], {("shard", 1): damage}, [1, 3]),
    ],
)
def test_a_missing_shard_needs_those_before_it_whose_state_is_gone_or_damaged(job, tmp_path, missing, changes, made):
    for shard in missing:
        file_of(tmp_path, "shard", shard).unlink()
    for (kind, shard), change in changes.items():
        change(file_of(tmp_path, kind, shard))
    assert job.to_make(missing) == made
