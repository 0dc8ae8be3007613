"""Settings that suit a teacher: which synthesizer and coefficients, how many images, which networks, how long to train.

They follow from the teacher and from settings that the user gave, never from the machine, so an experiment means the
same on every machine. The figures were measured (experiments/results/images.md), except those for images above 48
pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dfnas_ray.algorithms.config import SearchConfig
from dfnas_ray.config.experiment import ExperimentConfig, make_experiment
from dfnas_ray.config.registry import SettingValues
from dfnas_ray.search_spaces import NASBench201Config, NASBenchMacroConfig, SpaceConfig, build_space
from dfnas_ray.synthesis.inversion.synthesizer import InversionConfig
from dfnas_ray.synthesis.settings import batch_within
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.teachers.fresh import why_not_fresh

IMAGES_PER_CLASS = 100
"""Smallest number of images per class; it matters for teachers with many classes."""

MOST_EPOCHS = 100

FEW_BATCHES = 20
"""Batches of a generator. For fewer images, pixels are optimised instead, which needs no warm-up."""

LARGE_STEM = 96
"""Pixels per side from which the first convolution of a network halves the image."""


@dataclass(frozen=True)
class RecipeRow:
    """Settings that suit images of one size.

    Attributes:
        up_to: The largest shorter side of this row, in pixels.
        images: Number of images in the set.
        batch_size: Batch size of the generator.
        width: Width of the generator.
        bn_weight: Weight of R_bn.
        student_batch: Batch size of the student and of networks that are trained.
        training_steps: Number of steps of the retraining.
        precision: Precision in which networks compute.
        long: Number of steps from which the student is compiled; infinite where that was never measured.
    """

    up_to: float
    images: int
    batch_size: int
    width: int
    bn_weight: float
    student_batch: int
    training_steps: int
    precision: str
    long: float = math.inf


ROWS = (
    RecipeRow(20, 8_000, 100, 24, bn_weight=10, student_batch=64, training_steps=1_500, precision="float32"),
    RecipeRow(48, 24_000, 200, 48, bn_weight=2, student_batch=128, training_steps=4_500, precision="auto", long=1_500),
    RecipeRow(math.inf, 20_000, 50, 48, bn_weight=2, student_batch=64, training_steps=10_000, precision="auto"),
)


def row_of(teacher: Teacher) -> RecipeRow:
    """Return the row of `ROWS` for the images of a teacher."""
    side = min(teacher.image_shape[1:])
    return next(row for row in ROWS if side <= row.up_to)


def complete(config: ExperimentConfig, teacher: Teacher) -> ExperimentConfig:
    """Return the experiment, with missing settings chosen for its teacher.

    Args:
        config: The experiment as it was given.
        teacher: Its teacher.

    Raises:
        ConfigError: the given settings do not fit the chosen ones.
    """
    given = config.model_dump(mode="json", exclude_unset=True)
    values = merged(synthesis_settings(teacher, given), given)
    images = make_experiment({"teacher": given["teacher"], "synthesis": values["synthesis"]}).synthesis.images_in_total
    values = merged(training_settings(teacher, images, given), values)
    return make_experiment(values)


def synthesis_settings(teacher: Teacher, given: Mapping[str, Any]) -> SettingValues:
    """Return the section ``synthesis`` that suits a teacher.

    In a section that the user began, only settings that decide the time are chosen.

    Args:
        teacher: The teacher of the images.
        given: The settings that the user gave.
    """
    row, said = row_of(teacher), given.get("synthesis", {})
    method = said.get("method", {})
    size = {name: said[name] for name in ("num_shards", "images_per_shard") if name in said}
    asked = math.prod(size.values()) if len(size) == 2 else None
    few = asked is not None and asked < FEW_BATCHES * row.batch_size
    kind = method.get("kind", "inversion" if few else "generator")
    settings: SettingValues = {} if said else {"flip_probability": 0.0, "precision": row.precision}
    if kind == "inversion":
        chosen = _inversion(teacher, row, size, method)
    elif kind == "generator":
        chosen = _generator(teacher, row, size, method)
    else:
        return {"synthesis": settings}
    if said:
        chosen.pop("regularizers", None)
    elif not teacher.batch_norms():
        chosen["regularizers"] = {"bn_statistics": {"weight": 0.0}}
    return {"synthesis": {**settings, **chosen}}


def _generator(teacher: Teacher, row: RecipeRow, size: Mapping[str, int], method: Mapping[str, Any]) -> SettingValues:
    count = max(row.images, IMAGES_PER_CLASS * teacher.num_classes)
    batch = method.get("batch_size") or _batch_for(size.get("images_per_shard"), row.batch_size)
    shards, per_shard = _shards(size, count, batch)
    streams = min(2, shards)
    student: SettingValues = {"steps": 30, "batch_size": row.student_batch}
    steps_of_one = shards * per_shard // (batch * method.get("streams", streams)) * student["steps"]
    if "student" not in method and steps_of_one >= row.long:
        student["compile"] = True
    if shards * per_shard < 40 * batch * streams:  # with few batches the student joins earlier
        student["warmup_batches"] = 5
    return {
        "num_shards": shards,
        "images_per_shard": per_shard,
        "compile": False,
        "method": {
            "kind": "generator",
            "streams": streams,
            "batch_size": batch,
            "width": row.width,
            "student": None if why_not_fresh(teacher.model) else student,  # no student, as for many transformers
        },
        "regularizers": {"bn_statistics": {"weight": row.bn_weight}},
    }


def _inversion(teacher: Teacher, row: RecipeRow, size: Mapping[str, int], method: Mapping[str, Any]) -> SettingValues:
    """Return few steps for small images, which change little after about 150; larger ones keep the published steps.

    An image with an odd side cannot be halved, and all steps are at its full size.
    """
    halved = all(side % 2 == 0 for side in teacher.image_shape[1:])
    if row.up_to > 48:
        if halved or "scales" in method:
            return {}
        single = {"scale": 1, "steps": sum(InversionConfig().scale_steps)}
        return {"method": {"kind": "inversion", "scales": [single]}}
    batch = method.get("batch_size") or _batch_for(size.get("images_per_shard"), 100)
    shards, per_shard = _shards(size, 800, batch)
    scales = [{"scale": 2, "steps": 50}] if halved else []
    steps: SettingValues = {"scales": [*scales, {"scale": 1, "steps": 100}], "warmup_steps": 10}
    if "scales" in method or "warmup_steps" in method:  # the two depend on each other
        steps = {}
    if not method.keys() - {"kind"}:
        steps["lr"] = 0.1
    return {
        "num_shards": shards,
        "images_per_shard": per_shard,
        "compile": False,
        "method": {"kind": "inversion", "batch_size": batch, **steps},
        "regularizers": {"bn_statistics": {"weight": 10.0}},
    }


def _batch_for(per_shard: int | None, wanted: int) -> int:
    return wanted if per_shard is None else batch_within(per_shard, wanted)


def _shards(size: Mapping[str, int], count: int, batch: int) -> tuple[int, int]:
    """Return the number of shards and the images in each, for about ``count`` images."""
    if "images_per_shard" in size:
        per_shard = size["images_per_shard"]
        return size.get("num_shards", max(1, round(count / per_shard))), per_shard
    shards = size.get("num_shards", 4 if count < 10_000 else 10)
    return shards, max(1, round(count / shards / batch)) * batch


def training_settings(teacher: Teacher, images: int, given: Mapping[str, Any]) -> SettingValues:
    """Return the sections ``search`` and ``retraining`` that suit a teacher.

    In a section that the user began, only settings that decide the time are chosen, not how networks learn.

    Args:
        teacher: The teacher of the networks.
        images: Number of images in the set.
        given: The settings that the user gave.
    """
    row = row_of(teacher)
    search, retraining = given.get("search", {}), given.get("retraining", {})
    train = images * (1 - search.get("validation_fraction", 0.2))
    manner: SettingValues = {
        "precision": row.precision,
        "distillation": {"temperature": 4.0, "augmentation": {"flip_probability": 0.0}},
    }
    optimizer = {"weight_decay": 5e-4}

    def size(said: Mapping[str, Any], steps: int) -> SettingValues:
        batch = said.get("batch_size", row.student_batch)
        return {"batch_size": batch, "epochs": min(MOST_EPOCHS, max(2, round(steps * batch / train)))}

    selection = size(search.get("selection", {}), row.training_steps // 8)
    chosen_search: SettingValues = {"selection": selection}
    chosen_retraining = size(retraining, row.training_steps)
    if not search:
        selection["optimizer"] = optimizer
        chosen_search |= {"max_macs": "50%", **manner}
    if not retraining:
        chosen_retraining |= {"optimizer": optimizer, **manner}
    if "algorithm" not in search:
        evolution = {"generations": 10, "population": 40, "mutations": 20, "crossovers": 20}
        chosen_search |= {"algorithm": {"kind": "zero_cost", "evolution": evolution}, "seeds": [0]}
    if "space" not in search:
        limit = SearchConfig(max_macs=search.get("max_macs", "50%")).macs_limit(teacher.cost.macs)
        chosen_search["space"] = fitting_space(teacher, limit).model_dump(mode="json")
    return {"search": chosen_search, "retraining": chosen_retraining}


def fitting_space(teacher: Teacher, max_macs: int | None) -> SpaceConfig:
    """Return a search space with networks on both sides of the limit of MACs, about half of them below it.

    Args:
        teacher: The teacher; the networks have its image shape and classes.
        max_macs: The limit; None: half of the teacher's MACs.
    """
    wanted = max(1.0, teacher.cost.macs / 2 if max_macs is None else max_macs)

    def distance(space: SpaceConfig) -> float:
        built = build_space(space, teacher.image_shape, teacher.num_classes)
        costs = built.cost_table.macs
        smallest = built.cost(built.cheapest()).macs
        largest = smallest + sum(float(row.max() - row.min()) for row in costs)
        return abs(math.log(math.sqrt(smallest * largest) / wanted))

    # The distance falls and then grows with the width, so the first increase ends the loop.
    best = previous = None
    for space in _widths(teacher):
        found = distance(space), space
        if best is None or found[0] < best[0]:
            best = found
        if previous is not None and found[0] > previous > 0:
            break
        previous = found[0]
    assert best is not None
    return best[1]


def _widths(teacher: Teacher) -> Iterator[SpaceConfig]:
    """Yield search spaces for the teacher's image size, from narrow to wide."""
    side = min(teacher.image_shape[1:])
    channels = sorted({max(2, round(2 * 1.15**step)) for step in range(40)})
    if side <= 48:
        for width in channels:
            yield NASBench201Config(channels=width, cells_per_stage=1)
        return
    stride = 2 if side >= LARGE_STEM else 1
    stages = max(3, min(5, round(math.log2(side / stride / 7))))
    for width in channels:
        yield NASBenchMacroConfig(
            stem_channels=width,
            stem_stride=stride,
            stage_layers=(2, *(3,) * (stages - 2), 2),
            stage_channels=tuple(width * 2**stage for stage in range(stages)),
            head_channels=width * 2 ** (stages + 1),
        )


def merged(chosen: Mapping[str, Any], given: Mapping[str, Any]) -> SettingValues:
    """Return the given settings, completed with the chosen ones.

    If both name members of different kinds, the given one is kept alone.
    """
    kinds = chosen.get("kind"), given.get("kind")
    if None not in kinds and kinds[0] != kinds[1]:
        return dict(given)
    both = {
        name: merged(chosen[name], given[name])
        for name in chosen.keys() & given.keys()
        if isinstance(chosen[name], Mapping) and isinstance(given[name], Mapping)
    }
    return {**chosen, **given, **both}
