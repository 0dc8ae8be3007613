"""Does the verdict on synthetic images tell good sets from bad ones? Measures of each set beside what a network learns from it.

For each teacher and seed it makes a good set with the settings that are chosen for the teacher, and bad ones: without the
BatchNorm term, with too few steps, noise. A fresh network like the teacher learns from each set and is measured on real
digits, which nothing else reads.

    python tests/benchmarks/digits_teachers.py --out teachers
    python tests/benchmarks/verdicts.py teachers/*.yaml digits --seeds 0 1 > verdicts.jsonl
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from student_quality import RealImages

import dfnas_ray as dfnas
from dfnas_ray.config.experiment import evaluation_dataset, make_experiment
from dfnas_ray.datasets.base import open_dataset
from dfnas_ray.errors import DfnasError
from dfnas_ray.ops.regions import center_crop
from dfnas_ray.planning.recipe import synthesis_settings
from dfnas_ray.seeding import seed_everything
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.run_dir import RunDir
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.sweeps.config import StudentConfig
from dfnas_ray.sweeps.measure import train_student
from dfnas_ray.synthesis.quality import QualityReport, measure_quality
from dfnas_ray.synthesis.verdict import judge
from dfnas_ray.teachers.base import Teacher, load_teacher
from dfnas_ray.teachers.fresh import fresh_copy
from dfnas_ray.training.config import AugmentationConfig, DistillationConfig, OptimizerConfig

MANNER = DistillationConfig(temperature=4.0, augmentation=AugmentationConfig(flip_probability=0.0))
WITHOUT = {"bn_statistics": {"weight": 0.0}}


def variants(teacher: Teacher, shards: int | None) -> dict[str, dict[str, Any]]:
    """Return the settings of each set by its name; the first two are good ones."""
    size = {} if shards is None else {"num_shards": shards}
    recipe = synthesis_settings(teacher, {})["synthesis"]
    generator = {**recipe, **size}
    method = {"method": {"kind": "inversion"}}
    inversion = {**synthesis_settings(teacher, {"synthesis": method})["synthesis"], "flip_probability": 0.0}
    inversion.setdefault("regularizers", recipe["regularizers"])
    few = {**generator, "num_shards": 1, "images_per_shard": 800}
    few["method"] = {**generator["method"], "streams": 1}
    short = {**inversion, "method": {**inversion["method"], "scales": [{"scale": 1, "steps": 5}], "warmup_steps": 1}}
    return {
        "generator": generator,
        "inversion": inversion,
        "generator, few images": few,
        "generator, no R_bn": {**generator, "regularizers": WITHOUT},
        "inversion, no R_bn": {**inversion, "regularizers": WITHOUT},
        "inversion, 5 steps": short,
    }


def noise(teacher: Teacher, like: SyntheticImages, seed: int) -> SyntheticImages:
    """Return noise in the place of images, with the teacher's labels."""
    images = np.random.default_rng(seed).integers(0, 256, like.images.shape, dtype=np.uint8)
    view = teacher.normalize(center_crop(torch.from_numpy(images), teacher.image_shape[1:]))
    with torch.no_grad():
        logits = torch.cat([teacher.model(part) for part in view.split(250)]).numpy()
    return SyntheticImages(images, like.labels, like.rounds, logits, like.ids)


class Measurement:
    """The sets of one teacher.

    Args:
        teacher: Whose images they are.
        real: What networks are measured on.
        folder: Where sets are kept: the same command goes on.
        student: How a network learns from them.
    """

    def __init__(self, teacher: Teacher, real: RealImages, folder: Path, student: StudentConfig):
        self.teacher, self.real, self.folder, self.student = teacher, real, folder, student
        self.made: SyntheticImages | None = None

    def __call__(self, name: str, settings: dict[str, Any], seed: int) -> dict[str, Any]:
        """Make a set, judge it, and return what there is to say of it."""
        try:
            images, report = self._made(name, settings, seed)
        except DfnasError as error:
            return {"refused": str(error)}
        config = make_experiment({"teacher": "digits", "synthesis": settings}).synthesis
        verdict = judge(report, self.teacher, config)
        seed_everything(seed)
        network = train_student(
            fresh_copy(self.teacher.model), images, self.teacher, self.student, MANNER, seed, torch.device("cpu")
        )
        figures = {**report.overall, **{f"{key}_first": report.first[key] for key in ("confidence", "agreement")}}
        return {
            "images": len(images),
            **{key: float(f"{value:.4g}") for key, value in figures.items()},
            "learned": round(self.real.accuracy(network), 4),
            "found": [finding.kind for finding in verdict.findings],
        }

    def _made(self, name: str, settings: dict[str, Any], seed: int) -> tuple[SyntheticImages, QualityReport]:
        if name == "noise":
            assert self.made is not None
            images = noise(self.teacher, self.made, seed)
            return images, measure_quality(self.teacher, images)
        run_dir = self.folder / str(seed) / name.replace(",", "").replace(" ", "-")
        images = dfnas.synthesize(self.teacher, seed=seed, run_dir=run_dir, **settings).data
        self.made = self.made or images
        stage = RunDir(Location.parse(str(run_dir))).latest_stage("synthesis")
        assert stage is not None
        report = QualityReport.find(stage)
        assert report is not None
        return images, report


def main() -> None:
    """Measure, and print a line of JSON for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teachers", nargs="+", help="YAML files with a section `teacher`, or `digits`")
    parser.add_argument("--dataset", default="digits", help="real images: `digits`, or a Parquet file")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=400, help="of the network that learns from a set")
    parser.add_argument("--shards", type=int, help="of a generator's set; fewer than are chosen, to save time")
    parser.add_argument("--sets", nargs="+", help="some of them only")
    parser.add_argument("--out", type=Path, default=Path("sets"), help="where sets are kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    student = StudentConfig(steps=arguments.steps, optimizer=OptimizerConfig(weight_decay=5e-4))
    kind = arguments.dataset if arguments.dataset == "digits" else {"kind": "parquet", "path": arguments.dataset}
    dataset = open_dataset(evaluation_dataset(make_experiment({"teacher": "digits", "evaluation": {"dataset": kind}})))
    for source in arguments.teachers:
        section = "digits" if source == "digits" else yaml.safe_load(Path(source).read_text())["teacher"]
        cache = Location.parse(str(arguments.out / "cache")).make_dir()
        teacher = load_teacher(make_experiment({"teacher": section}).teacher, cache)
        measure = Measurement(teacher, RealImages.read(dataset, teacher), arguments.out / Path(source).stem, student)
        facts = {"teacher": source, "accuracy": round(measure.real.accuracy(teacher.model), 4)}
        settings = {**variants(teacher, arguments.shards), "noise": {}}
        for seed in arguments.seeds:
            for name in arguments.sets or settings:
                found = measure(name, settings[name], seed)
                print(json.dumps({**facts, "seed": seed, "set": name, **found}), flush=True)


if __name__ == "__main__":
    main()
