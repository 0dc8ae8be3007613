"""The whole path: synthesize -> search -> retrain -> evaluate -> report. What is finished is not done again.

Every function takes an experiment and makes sure that its own stage and those before it are finished; the key of a stage
covers everything that it depends on, so nothing stale is ever used.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load

from dfnas_ray.datasets import ImageDataset
from dfnas_ray.errors import ConfigError, GenotypeError, ShardError
from dfnas_ray.experiment import ExperimentConfig, dump_experiment
from dfnas_ray.ops.cost import Cost
from dfnas_ray.progress import Listener, Silent, shorten
from dfnas_ray.search_spaces import Genotype, SearchSpace, make_space
from dfnas_ray.seeding import numpy_generator
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.run_dir import RunDir, StageDir, fingerprint
from dfnas_ray.storage.shards import decode_shard, load_shards, manifest_entry, shard_name
from dfnas_ray.synthesis.checks import check_synthesis
from dfnas_ray.synthesis.quality import measure_quality
from dfnas_ray.teachers import Teacher
from dfnas_ray.training.evaluation import evaluate_networks
from dfnas_ray.training.export import export_network

if TYPE_CHECKING:
    from dfnas_ray.distributed.runtime import RayRuntime
    from dfnas_ray.distributed.search_trials import ImagesRef

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """A finished stage.

    Attributes:
        stage: Its name.
        location: Its folder.
        summary: What it recorded about itself.
        reused: Whether it was finished before this command.
    """

    stage: str
    location: Location
    summary: dict[str, Any]
    reused: bool


@dataclass(frozen=True)
class Architecture:
    """One architecture and the space that it is from.

    Attributes:
        config: The space's settings, as JSON.
    """

    config: dict[str, Any]
    space: SearchSpace
    genotype: Genotype

    @property
    def text(self) -> str:
        """The genotype in the space's usual notation."""
        return self.space.encode(self.genotype)

    @property
    def cost(self) -> Cost:
        """Parameters and MACs."""
        return self.space.cost(self.genotype)


class Pipeline:
    """One command's work on one experiment's run directory.

    Use it as a context manager: the directory is locked, and Ray is started when a stage first needs it.
    """

    def __init__(self, config: ExperimentConfig, listener: Listener | None = None, verbose: bool = False):
        self.config = config
        self.listener = listener or Silent()
        self.verbose = verbose
        self.run_dir = RunDir(config.run_directory)
        self._outcomes: dict[str, Outcome] = {}  # of this command, by stage
        self._runtime: RayRuntime | None = None
        self._images: ImagesRef | None = None

    @contextmanager
    def opened(self) -> Iterator[Pipeline]:
        """Lock the run directory, record the experiment, and leave the cluster at the end."""
        with self.run_dir.locked():
            (self.run_dir.location / "experiment.yaml").write_bytes(dump_experiment(self.config).encode())
            try:
                yield self
            finally:
                if self._runtime is not None:
                    self._runtime.__exit__(None, None, None)

    # What several stages need

    @cached_property
    def teacher(self) -> Teacher:
        """The frozen teacher; the built-in one is trained the first time."""
        return self.config.teacher.load(self.teacher_cache)

    @property
    def teacher_cache(self) -> Location:
        """Where a teacher that had to be made is kept: another machine that goes on finds the very same."""
        return self.run_dir.location / "teacher"

    @cached_property
    def spaces(self) -> list[SearchSpace]:
        """The search spaces for the teacher's images and classes."""
        return [space.space(self.teacher.image_shape, self.teacher.num_classes) for space in self.config.search.space]

    @cached_property
    def max_macs(self) -> int | None:
        """The limit on MACs as a number; raises if a space has no architecture within it."""
        limit = self.config.search.macs_limit(self.teacher.cost.macs)
        for space in self.spaces:
            space.check_limit(limit)
        return limit

    @property
    def runtime(self) -> RayRuntime:
        """The Ray cluster, started or joined."""
        if self._runtime is None:
            from dfnas_ray.distributed.runtime import RayRuntime

            self.listener.say(f"Starting Ray ({self.config.cluster.address}).")
            self._runtime = RayRuntime(self.config.cluster, self.verbose)
        self._runtime.ensure()
        return self._runtime

    def images(self, synthesis: Outcome) -> ImagesRef:
        """The synthetic images in the cluster's object store, read once for all stages."""
        if self._images is None:
            from dfnas_ray.distributed.search_trials import load_images

            manifest = (synthesis.location / "manifest.json").read_json()
            self._images = load_images.remote(synthesis.location, manifest)
        return self._images

    # The stages

    def check(self) -> None:
        """Find what would fail later, before hours are spent on what comes first."""
        check_synthesis(self.teacher, self.config.synthesis)
        _ = self.max_macs
        if self.config.evaluation.dataset is not None:
            self.config.evaluation.dataset.open()  # finds the files; no image is read

    def synthesize(self) -> Outcome:
        """Make the synthetic images: Parquet shards, a manifest and their quality."""
        if "synthesis" in self._outcomes:
            return self._outcomes["synthesis"]
        stage = self.run_dir.stage("synthesis", self._synthesis_inputs)
        config = self.config.synthesis
        kept = self._verified_shards(stage)
        if stage.is_done and len(kept) < config.num_shards:
            missing = [shard for shard in range(config.num_shards) if shard not in kept]
            self.listener.say(f"Shards {missing} are missing or damaged and are made again.")
            stage.reopen()
        return self.finish(stage, lambda: self._synthesize(stage, kept))

    def search(self) -> Outcome:
        """Find an architecture on the synthetic images."""
        _ = self.max_macs  # an impossible limit is found before images are made
        synthesis = self.synthesize()
        stage = self.run_dir.stage("search", self._search_inputs)
        return self.finish(stage, lambda: self._search(stage, synthesis))

    def retrain(self, genotype: str | None = None) -> dict[str, Outcome]:
        """Train the architecture found, or the one given, and a random one of the same budget."""
        chosen = self._found() if genotype is None else self._given(genotype)
        synthesis = self.synthesize()
        networks = {"retraining": chosen}
        if self.config.retraining.baseline:
            networks["baseline"] = self._random_of_same_budget(chosen)
        outcomes = {}
        for name, architecture in networks.items():
            stage = self.run_dir.stage(name, self._retraining_inputs(architecture))
            outcomes[name] = self.finish(stage, lambda s=stage, a=architecture: self._retrain(s, a, synthesis))  # type: ignore[misc]
        return outcomes

    def evaluate(self, genotype: str | None = None) -> Outcome:
        """Measure accuracy on real images: the one time that they are read."""
        if self.config.evaluation.dataset is None:
            raise ConfigError(
                "evaluation.dataset is not set, so there is nothing to evaluate on. Give labelled images, for instance "
                "--set 'evaluation.dataset={kind: image_folder, path: PATH}'."
            )
        dataset = self.config.evaluation.dataset.open()  # fails early if it is not there
        networks = self.retrain(genotype)
        inputs = {
            "dataset": self.config.evaluation.dataset.model_dump(mode="json"),
            "teacher": self.teacher.fingerprint,
            "networks": {name: outcome.location.name for name, outcome in networks.items()},
        }
        stage = self.run_dir.stage("evaluation", inputs)
        return self.finish(stage, lambda: self._evaluate(stage, networks, dataset))

    def report(self) -> Location:
        """Write the report of what is finished so far."""
        from dfnas_ray.report.page import write_report

        return write_report(self.run_dir)

    def run(self) -> dict[str, Outcome]:
        """Go the whole way; without an evaluation dataset, as far as retraining."""
        self.check()
        outcomes = {"synthesis": self.synthesize(), "search": self.search(), **self.retrain()}
        if self.config.evaluation.dataset is not None:
            outcomes["evaluation"] = self.evaluate()
        self.report()
        return outcomes

    # What each stage depends on

    @cached_property
    def _synthesis_inputs(self) -> dict[str, Any]:
        return {
            "teacher": self.teacher.fingerprint,
            "seed": self.config.seed,
            "synthesis": self.config.synthesis.model_dump(mode="json"),
        }

    @property
    def _synthesis_key(self) -> str:
        return self.run_dir.stage("synthesis", self._synthesis_inputs).key

    @property
    def _search_inputs(self) -> dict[str, Any]:
        return {
            "upstream": {"synthesis": self._synthesis_key},
            "seed": self.config.seed,
            "search": self.config.search.model_dump(mode="json"),
            "threads": self.config.cluster.search.cpus,
        }

    def _retraining_inputs(self, architecture: Architecture) -> dict[str, Any]:
        return {
            "upstream": {"synthesis": self._synthesis_key},
            "seed": self.config.seed,
            "space": architecture.config,
            "genotype": architecture.text,
            "search": {"validation_fraction": self.config.search.validation_fraction},
            "retraining": self.config.retraining.model_dump(mode="json", exclude={"baseline"}),
            "threads": self.config.cluster.retraining.cpus,
        }

    # How each stage is done

    def finish(self, stage: StageDir, work: Callable[[], dict[str, Any]]) -> Outcome:
        """Return a stage's outcome, after doing its work unless that is done."""
        if stage.stage in self._outcomes and self._outcomes[stage.stage].location == stage.location:
            return self._outcomes[stage.stage]
        if stage.is_done:
            self.run_dir.set_latest(stage)
            return self._remember(stage, reused=True)
        changes = stage.changes()
        if stage.is_started:
            self.listener.say(f"{stage.stage}: goes on where an earlier command stopped.")
        elif changes:
            self.listener.say(f"{stage.stage}: again, because {'; '.join(changes[:3])}{' ...' if changes[3:] else ''}")
        stage.begin()
        self.run_dir.set_latest(stage)
        started = time.monotonic()
        summary = work()
        seconds = round(time.monotonic() - started, 2)
        stage.finish({**summary, "seconds": seconds, "finished_at": time.time(), "machine": self._machine()})
        return self._remember(stage, reused=False)

    def _machine(self) -> dict[str, str | int | float]:
        """What the stage ran on, for the report."""
        facts: dict[str, str | int | float] = {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }
        return {**facts, **(self._runtime.describe() if self._runtime is not None else {})}

    def _remember(self, stage: StageDir, reused: bool) -> Outcome:
        outcome = Outcome(stage.stage, stage.location, stage.summary(), reused)
        self._outcomes[stage.stage] = outcome
        return outcome

    def _verified_shards(self, stage: StageDir) -> dict[int, dict[str, Any]]:
        """Return the manifest entries of the shards that are committed and intact; say which are not."""
        file = stage.location / "manifest.json"
        expected = {entry["shard"]: entry for entry in file.read_json()["shards"]} if file.exists() else {}
        kept = {}
        for shard in range(self.config.synthesis.num_shards):
            location = stage.location / shard_name(shard)
            if not location.exists():
                continue
            data = location.read_bytes()
            try:
                info, images = decode_shard(data, stage.key, str(location))
            except ShardError as error:
                self.listener.say(str(error))
                continue
            entry = manifest_entry(shard, data, len(images))
            if info.shard != shard or expected.get(shard, entry) != entry:
                self.listener.say(f"Shard {location} is not the one that was made. It is replaced.")
                continue
            kept[shard] = entry
        return kept

    def _synthesize(self, stage: StageDir, kept: dict[int, dict[str, Any]]) -> dict[str, Any]:
        config, resources = self.config.synthesis, self.config.cluster.synthesis
        check_synthesis(self.teacher, config)
        todo = [shard for shard in range(config.num_shards) if shard not in kept]
        entries = dict(kept)
        if kept and todo:
            self.listener.say(f"synthesis: {len(kept)} of {config.num_shards} shards are there already.")
        num_actors = 0
        if todo:
            from dfnas_ray.distributed.board import ProgressBoard
            from dfnas_ray.distributed.synthesis_pool import ShardJob, synthesize_shards

            runtime = self.runtime
            runtime.check_fits("synthesis", resources)
            num_actors = min(len(todo), resources.actors or runtime.room_for(resources))
            job = ShardJob(config, self.config.seed, stage.key, self.teacher.fingerprint, stage.location)
            board = ProgressBoard()
            total = len(todo) * config.image_steps_per_shard
            with self.listener.task("Synthesizing", total, "image step") as task, board.shown_on(task):
                synthesize_shards(
                    self.teacher,
                    job,
                    todo,
                    resources,
                    num_actors,
                    board,
                    on_made=lambda entry: entries.__setitem__(entry["shard"], entry),
                )
        manifest: dict[str, Any] = {"key": stage.key, "shards": [entries[shard] for shard in range(config.num_shards)]}
        (stage.location / "manifest.json").write_json(manifest)
        images = load_shards(stage.location, manifest)
        quality = measure_quality(self.teacher, images)
        (stage.location / "quality.json").write_json(quality)
        summary: dict[str, Any] = {
            "images": len(images),
            "shards": config.num_shards,
            "made_now": len(todo),
            "actors": num_actors,
            "bytes": sum(entry["bytes"] for entry in manifest["shards"]),
            "quality": quality["overall"],
            "teacher": {
                "name": self.teacher.name,
                "params": self.teacher.cost.params,
                "macs": self.teacher.cost.macs,
                "image_shape": self.teacher.image_shape,
                "num_classes": self.teacher.num_classes,
            },
        }
        return summary

    def _search(self, stage: StageDir, synthesis: Outcome) -> dict[str, Any]:
        from dfnas_ray.distributed.board import ProgressBoard
        from dfnas_ray.distributed.search_trials import SearchJob, compare_architectures, run_trials

        config, resources = self.config.search, self.config.cluster.search
        self.runtime.check_fits("search", resources, 1 + resources.scoring_workers)
        job = SearchJob(config, resources, self.config.seed, self.max_macs, stage.location)
        board = ProgressBoard()
        total = sum(trial.algorithm.steps_to_show for trial in config.trials)
        with self.listener.task("Searching", total, "epoch") as task, board.shown_on(task):
            trials = run_trials(job, self.teacher, self.images(synthesis), board)
        found = {
            self._name(trial, text): self._architecture(trial["space_config"], text)
            for trial in trials
            for text in trial["finalists"]
        }
        if len(found) > 1:
            networks = {name: (architecture.space, architecture.genotype) for name, architecture in found.items()}
            with self.listener.task("Training each finalist alone", len(found), "architecture") as task:
                scores = compare_architectures(job, networks, self.teacher, self.images(synthesis), task.advance_to)
            for trial in trials:
                self._choose_finalist(trial, found, scores)
        best = max(trials, key=lambda trial: trial.get("score", trial["own_score"]))
        (stage.location / "trials.json").write_json(trials)
        left_out = ("history", "space_config")
        return {
            **{name: value for name, value in best.items() if name != "history"},
            "max_macs": self.max_macs,
            "trials": [{name: trial[name] for name in trial if name not in left_out} for trial in trials],
        }

    def _choose_finalist(self, trial: dict[str, Any], found: dict[str, Architecture], scores: dict[str, float]) -> None:
        """Make the trial's best finalist its result."""
        names = [self._name(trial, text) for text in trial["finalists"]]
        trial["finalists"] = [
            {"genotype": found[name].text, "macs": found[name].cost.macs, "score": scores[name]} for name in names
        ]
        best = max(names, key=lambda name: scores[name])
        cost = found[best].cost
        trial.update(genotype=found[best].text, macs=cost.macs, params=cost.params, score=scores[best])

    @staticmethod
    def _name(trial: dict[str, Any], genotype: str) -> str:
        """Return a name that two trials share if they found the same architecture in the same space."""
        return f"{trial['space']} {genotype} {fingerprint(trial['space_config'])[:8]}"

    def _retrain(self, stage: StageDir, architecture: Architecture, synthesis: Outcome) -> dict[str, Any]:
        from dfnas_ray.distributed.board import ProgressBoard
        from dfnas_ray.distributed.retraining import RetrainingJob, retrain

        config, resources = self.config.retraining, self.config.cluster.retraining
        self.runtime.check_fits("retraining", resources, config.num_workers)
        job = RetrainingJob(
            config,
            resources,
            self.config.seed,
            architecture.space,
            architecture.genotype,
            self.config.search.validation_fraction,
            stage.location,
        )
        board = ProgressBoard()
        what = "Retraining" if stage.stage == "retraining" else "Baseline"
        with (
            self.listener.task(f"{what} {shorten(architecture.text, 24)}", config.epochs, "epoch") as task,
            board.shown_on(task),
        ):
            retrained = retrain(job, self.teacher, self.images(synthesis), board)
        export_network(retrained.network, self.teacher.image_shape, stage.location)
        (stage.location / "history.json").write_json(retrained.history)
        cost = architecture.cost
        description = {
            "space": architecture.config,
            "genotype": architecture.text,
            "image_shape": self.teacher.image_shape,
            "num_classes": self.teacher.num_classes,
            "mean": self.teacher.mean,
            "std": self.teacher.std,
        }
        (stage.location / "network.json").write_json(description)
        return {
            "space_config": architecture.config,
            "genotype": architecture.text,
            "macs": cost.macs,
            "params": cost.params,
            **retrained.history[-1],
        }

    def _evaluate(self, stage: StageDir, networks: dict[str, Outcome], dataset: ImageDataset) -> dict[str, Any]:
        loaded: dict[str, torch.nn.Module] = {"teacher": self.teacher.model}
        costs: dict[str, tuple[str, Cost]] = {"teacher": (self.teacher.name, self.teacher.cost)}
        for name, outcome in networks.items():
            architecture = self._architecture(outcome.summary["space_config"], outcome.summary["genotype"])
            network = architecture.space.build(architecture.genotype)
            network.load_state_dict(load((outcome.location / "weights.safetensors").read_bytes()))
            loaded[name] = network
            costs[name] = (architecture.text, architecture.cost)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with self.listener.task("Evaluating on real images", len(dataset), "image") as task:
            seen = 0

            def on_images(count: int) -> None:
                nonlocal seen
                seen += count
                task.advance_to(seen)

            accuracy = evaluate_networks(loaded, self.teacher, dataset, device, on_images)
        rows = {
            name: {"architecture": text, "accuracy": accuracy[name], "params": cost.params, "macs": cost.macs}
            for name, (text, cost) in costs.items()
        }
        return {"dataset": dataset.description, "images": len(dataset), "networks": rows}

    # Architectures

    def _architecture(self, config: dict[str, Any], text: str) -> Architecture:
        space = make_space(config, self.teacher.image_shape, self.teacher.num_classes)
        return Architecture(config, space, space.decode(text))

    def _found(self) -> Architecture:
        summary = self.search().summary
        return self._architecture(summary["space_config"], summary["genotype"])

    def _given(self, text: str) -> Architecture:
        """Return the architecture of a text in whichever of the experiment's spaces has it."""
        problems = []
        for config in self.config.search.space:
            try:
                return self._architecture(config.model_dump(mode="json"), text)
            except GenotypeError as error:
                problems.append(str(error))
        raise GenotypeError("\n".join(problems))

    def _random_of_same_budget(self, architecture: Architecture) -> Architecture:
        """Draw another architecture whose MACs are within 10 % of this one's, or the nearest of many draws."""
        rng, space = numpy_generator(self.config.seed, "baseline", architecture.text), architecture.space
        budget = architecture.cost.macs
        draws = [space.sample(rng) for _ in range(1000)]
        others = [draw for draw in draws if draw != architecture.genotype]
        alike = [draw for draw in others if abs(space.cost(draw).macs - budget) <= 0.1 * budget]
        chosen = alike[0] if alike else min(others, key=lambda draw: abs(space.cost(draw).macs - budget))
        return replace(architecture, genotype=chosen)


def run(config: ExperimentConfig, listener: Listener | None = None) -> dict[str, Outcome]:
    """Go the whole way from the teacher to the report."""
    with Pipeline(config, listener).opened() as pipeline:
        return pipeline.run()


def synthesize(config: ExperimentConfig, listener: Listener | None = None) -> Outcome:
    """Make the synthetic images."""
    with Pipeline(config, listener).opened() as pipeline:
        return pipeline.synthesize()


def search(config: ExperimentConfig, listener: Listener | None = None) -> Outcome:
    """Search an architecture, after making the images if need be."""
    with Pipeline(config, listener).opened() as pipeline:
        return pipeline.search()


def retrain(
    config: ExperimentConfig, genotype: str | None = None, listener: Listener | None = None
) -> dict[str, Outcome]:
    """Train the architecture found, or the one given, from scratch."""
    with Pipeline(config, listener).opened() as pipeline:
        return pipeline.retrain(genotype)


def evaluate(config: ExperimentConfig, genotype: str | None = None, listener: Listener | None = None) -> Outcome:
    """Measure accuracy on the experiment's real images."""
    with Pipeline(config, listener).opened() as pipeline:
        return pipeline.evaluate(genotype)
