"""Data-free search, end to end on one device and without Ray: what is the returned cell worth in the table?

    python tests/benchmarks/nasbench201_search.py experiments/nasbench201.yaml --out OUT --minutes 9 \
        --set teacher.checkpoint=resnet20-12fca82f.th --table nasbench201_cifar10.csv --seeds 0 1 2

For each root seed: images are synthesized, every algorithm of the experiment searches on them, its finalists are trained
alone, and the true accuracy of the best one is looked up. The table's accuracies decide nothing. After ``--minutes`` the
script stops with exit code 75, wherever it is; the same command goes on from the last shard, epoch, round or finalist, so a
shard has to fit into one call.
Seconds are those of work, over all calls.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from dfnas_ray import load_experiment
from dfnas_ray.algorithms.base import SCORE, SearchProblem, SearchState
from dfnas_ray.algorithms.config import Trial
from dfnas_ray.algorithms.stand_alone import StandAloneScorer
from dfnas_ray.config.experiment import ExperimentConfig
from dfnas_ray.ops.latency import device_name
from dfnas_ray.ranking.config import BenchmarkConfig
from dfnas_ray.ranking.table import read_table
from dfnas_ray.seeding import derive_seed, seed_everything
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.run_dir import fingerprint
from dfnas_ray.storage.shards import ShardInfo, SyntheticImages, decode_shard, encode_shard, shard_name
from dfnas_ray.teachers import Teacher
from dfnas_ray.training.batches import SyntheticBatches
from dfnas_ray.training.device_images import DeviceImages
from dfnas_ray.training.splits import split_mask

OUT_OF_TIME = 75  # EX_TEMPFAIL of sysexits.h: try again


class OutOfTime(Exception):  # noqa: N818 - it is no error
    """The time of this call is used up; everything that is finished is written."""


class Clock:
    """Counts the seconds of each kind of work over all calls, and ends a call that has used up its own."""

    def __init__(self, file: Path, minutes: float):
        self.file, self.deadline = file, time.monotonic() + 60 * minutes
        self.seconds: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}

    def check(self) -> None:
        """Raise if the time is up."""
        if time.monotonic() > self.deadline:
            raise OutOfTime

    @contextmanager
    def counts(self, work: str) -> Iterator[None]:
        """Add the block's seconds, also those of one that ends early."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[work] = self.seconds.get(work, 0.0) + time.monotonic() - started
            self.file.write_text(json.dumps(self.seconds))


def synthesize(
    config: ExperimentConfig, teacher: Teacher, seed: int, folder: Path, device: torch.device, clock: Clock
) -> SyntheticImages:
    """Make the shards that are not there, and return all images."""
    key = fingerprint([teacher.fingerprint, seed, config.synthesis.model_dump(mode="json")])
    settings, synthesizer = config.synthesis, None
    parts = []
    for shard in range(settings.num_shards):
        file = folder / shard_name(shard)
        if not file.exists():
            clock.check()
            synthesizer = synthesizer or settings.method.synthesizer(teacher, settings, device)
            *_, made = synthesizer.make(seed, shard, on_steps=lambda images: clock.check())
            info = ShardInfo(
                key,
                shard,
                settings.num_shards,
                teacher.fingerprint,
                [[asdict(p) for p in c] for c in made.curves],
            )
            Location.parse(file).write_bytes(encode_shard(info, made.images, made.labels, made.rounds, made.logits))
        parts.append(decode_shard(file.read_bytes(), key, str(file))[1])
    return SyntheticImages.concatenate(parts)


def batches_of(
    config: ExperimentConfig,
    teacher: Teacher,
    images: SyntheticImages,
    size: int,
    root: int,
    seed: int,
    device: torch.device,
) -> tuple[SyntheticBatches, SyntheticBatches]:
    """Return training and validation batches, split as in a run."""
    placed = DeviceImages(images, device)
    mask = split_mask(images.ids, config.search.validation_fraction, root)
    train, validation = (
        SyntheticBatches(placed, teacher, config.search.distillation, size, seed, side=side) for side in (~mask, mask)
    )
    return train, validation


def search(state: SearchState, file: Path, clock: Clock) -> None:
    """Run a search to its end, or until the time is up; its state is kept after every epoch and round."""
    if file.exists():
        state.load_state_dict(torch.load(BytesIO(file.read_bytes()), map_location="cpu", weights_only=True))

    def keep(state: SearchState) -> None:
        buffer = BytesIO()
        torch.save(state.state_dict(), buffer)
        Location.parse(file).write_bytes(buffer.getbuffer())
        clock.check()

    clock.check()
    state.run(keep)


def compare(finalists: list[str], file: Path, score: Callable[[str], float], clock: Clock) -> dict[str, float]:
    """Return each finalist's score by training it alone; those that are written already are not trained again."""
    scores: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
    for text in finalists:
        if text not in scores:
            clock.check()
            scores[text] = score(text)
            file.write_text(json.dumps(scores))
    return scores


def run(
    config: ExperimentConfig, trial: Trial, teacher: Teacher, root: int, out: Path, device: torch.device, clock: Clock
) -> dict[str, Any]:
    """Go the whole way with one algorithm and one root seed; return what was found."""
    folder = out / f"seed-{root}"
    own = folder / trial.name
    own.mkdir(parents=True, exist_ok=True)
    if (own / "result.json").exists():
        return dict(json.loads((own / "result.json").read_text()))
    with clock.counts(f"seed {root}: synthesis"):
        images = synthesize(config, teacher, root, folder, device, clock)
    seed = derive_seed(root, "search", trial.seed)
    space = trial.space.space(teacher.image_shape, teacher.num_classes)
    with clock.counts(f"seed {root}: {trial.name}"):
        seed_everything(seed)
        train, validation = batches_of(config, teacher, images, trial.algorithm.batch_size, root, seed, device)
        limit = config.search.macs_limit(teacher.cost.macs)
        problem = SearchProblem(
            space, train, validation, config.search.distillation, limit, seed, config.search.precision
        )
        state = SearchState(trial.algorithm.algorithm(problem))
        search(state, own / "state.pt", clock)
        chosen = config.search.selection
        finalists = [space.encode(genotype) for genotype in state.algorithm.finalists(chosen.finalists)]
        selection_seed = derive_seed(root, "selection")
        train, validation = batches_of(config, teacher, images, chosen.batch_size, root, selection_seed, device)
        scorer = StandAloneScorer(
            space, train, validation, config.search.distillation, chosen.optimizer, chosen.epochs, selection_seed,
            config.search.precision,
        )  # fmt: skip
        scores = compare(finalists, own / "finalists.json", lambda text: scorer([space.decode(text)])[0][SCORE], clock)
    best = max(finalists, key=lambda text: scores[text])
    result = {"own_best": finalists[0], "best": best, "finalists": scores}
    (own / "result.json").write_text(json.dumps(result))
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--table", required=True)
    parser.add_argument("--out", type=Path, required=True, help="Kept between calls.")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=9.0, help="Of one call.")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = load_experiment(options.file, options.overrides)
    options.out.mkdir(parents=True, exist_ok=True)
    teacher = config.teacher.load(Location.parse(options.out / "teacher"))
    clock = Clock(options.out / "seconds.json", options.minutes)
    search_once = config.search.model_copy(update={"seeds": (0,)})  # the root seed makes searches differ
    found: dict[str, list[dict[str, Any]]] = {}
    try:
        for root in options.seeds:
            for trial in search_once.trials:
                found.setdefault(trial.name, []).append(run(config, trial, teacher, root, options.out, device, clock))
                print(f"seed {root}, {trial.name}: done", flush=True)
    except OutOfTime:
        print(f"Out of time: run the same command again. Seconds so far: {clock.seconds}")
        return OUT_OF_TIME
    space = config.search.space[0].space(teacher.image_shape, teacher.num_classes)
    table = read_table(BenchmarkConfig(table=options.table), space)
    truth = dict(zip(map(space.encode, table.architectures), table.accuracies.tolist(), strict=True))
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    ).stdout.strip()
    print(f"{device_name(device)}, torch {torch.__version__}, commit {commit}, {datetime.date.today()}")
    print("| algorithm | seed | cell | accuracy | the search's own best |\n|---|---|---|---|---|")
    for name, results in found.items():
        for root, result in zip(options.seeds, results, strict=True):
            print(
                f"| {name} | {root} | {result['best']} | {truth[result['best']]:.2f} | {truth[result['own_best']]:.2f} |"
            )
        values = [truth[result["best"]] for result in results]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name}: {statistics.mean(values):.2f} +- {spread:.2f}; best of the table {max(truth.values()):.2f}")
    print(f"seconds: { {work: round(seconds) for work, seconds in clock.seconds.items()} }")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
