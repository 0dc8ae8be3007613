"""Samples and loss curves, read from shards without loading them whole."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from dfnas_ray.report.samples import MAX_SIDE, make_strip, read_curves, read_samples, spread
from dfnas_ray.storage.manifest import Manifest
from dfnas_ray.storage.shards import ShardInfo, encode_shard, shard_name


def read(stage):
    return read_samples(stage.location, Manifest.read(stage.location))


def png(size, mode="L"):
    buffer = BytesIO()
    Image.new(mode, (size, size)).save(buffer, format="PNG")
    return buffer.getvalue()


def test_spread_keeps_the_ends():
    assert spread(list(range(10)), 4) == [0, 3, 6, 9]
    assert spread([1, 2], 4) == [1, 2]


def test_samples_have_a_row_per_class_and_a_strip_per_round(run, add):
    samples = read(add.synthesis(run))
    assert [name for name, _ in samples.rows] == ["class 0", "class 1", "class 2"]
    assert samples.columns == ["round 0", "round 1"]
    assert all(strip is not None for _, strips in samples.rows for strip in strips)
    assert samples.image_shape == (1, 9, 9)
    assert samples.classes_left_out == 0


def test_soft_labels_are_the_teachers_probabilities(run, add):
    for example in read(add.synthesis(run)).examples:
        probabilities = [probability for _, probability in example.top]
        assert sum(probabilities) + example.rest == pytest.approx(1)
        assert probabilities == sorted(probabilities, reverse=True)


def test_small_images_are_enlarged_by_a_whole_factor_and_large_ones_reduced():
    small = make_strip([png(18)] * 3, "x")
    assert small.pixelated
    assert (small.width, small.height) == (3 * (18 * 3 + 2), 54)
    large = make_strip([png(256, "RGB")] * 2, "x")
    assert not large.pixelated
    assert large.height == MAX_SIDE


def test_curves_are_averaged_over_the_shards(run, add):
    stage = add.synthesis(run)
    facts = read_curves(stage.location, Manifest.read(stage.location))
    assert facts.shards_averaged == 2
    assert sorted(facts.curves) == [0, 1]
    assert facts.curves[0][1] == (1, {"cross_entropy": 1.0, "bn_statistics": 25.0, "total": 60.0})


def test_a_shard_whose_footer_cannot_be_read_is_named_once_and_left_out(run, add):
    stage = add.synthesis(run)
    (stage.location / "shard-00000.parquet").write_bytes(b"no shard")
    facts = read_curves(stage.location, Manifest.read(stage.location))
    assert facts.shards_averaged == 1
    (problem,) = facts.problems
    assert problem.startswith("shard-00000.parquet: ")
    assert problem.count("shard-00000.parquet") == 1


@pytest.mark.parametrize("curves", [None, 5, [[5]], [[{"step": "x", "losses": {}}]], [[{"step": 1, "losses": [2]}]]])
def test_a_shard_whose_curves_are_none_is_named(run, add, curves):
    stage = add.synthesis(run, num_shards=1)
    info = ShardInfo(stage.key, 0, 1, "f" * 64, curves)
    images, rounds = np.zeros((2, 1, 9, 9), np.uint8), np.zeros(2, int)
    (stage.location / shard_name(0)).write_bytes(encode_shard(info, images, rounds, rounds, np.zeros((2, 3))))
    facts = read_curves(stage.location, Manifest.read(stage.location))
    assert (facts.shards_averaged, facts.curves) == (0, {})
    assert facts.problems[0].startswith("shard-00000.parquet: ")


def test_images_of_early_and_late_shards_stand_side_by_side(run, add):
    stage = add.synthesis(run, rounds=1, num_shards=8)
    samples = read_samples(stage.location, Manifest.read(stage.location), by_age=True)
    assert samples.columns == ["early", "late"]
    early, late = samples.rows[0][1]
    assert early.uri != late.uri
    only = add.synthesis(run, rounds=1, num_shards=1)
    assert read_samples(only.location, Manifest.read(only.location), by_age=True).columns == ["round 0"]
