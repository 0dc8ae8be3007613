"""The whole path: synthesize -> search -> retrain -> evaluate -> report. What is finished is not done again.

Every function takes an experiment and makes sure that its own stage and those before it are finished; the key of a stage
covers everything that it depends on, so nothing stale is ever used.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

from dfnas_ray.config.experiment import ExperimentConfig
from dfnas_ray.datasets import DatasetConfig
from dfnas_ray.errors import ConfigError, GenotypeError
from dfnas_ray.progress import Listener
from dfnas_ray.search_spaces.architecture import Architecture
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.run_dir import StageDir
from dfnas_ray.synthesis.checks import check_synthesis
from dfnas_ray.workflow import stages
from dfnas_ray.workflow.session import CLUSTER_STAGES, ClusterStage, Session
from dfnas_ray.workflow.streaming import check_room_for_both, synthesize_and_search


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


class Pipeline(Session):
    """The stages in their order, each done once."""

    def __init__(self, config: ExperimentConfig, listener: Listener | None = None, verbose: bool = False):
        super().__init__(config, listener, verbose)
        self._outcomes: dict[str, Outcome] = {}  # of this command, by stage
        self._begun: dict[str, float] = {}  # by the stages' keys, when this command began them

    # The stages

    def check(self) -> None:
        """Find what would fail later, before hours are spent on what comes first."""
        check_synthesis(self.teacher, self.config.synthesis)
        self.check_search()
        if self.config.evaluation.dataset is not None:
            self.config.evaluation.dataset.open()  # finds the files; no image is read

    def check_search(self) -> None:
        """Find a limit that no architecture keeps to, and files that algorithms cannot use."""
        _ = self.max_macs
        for algorithm, config in self.config.search.pairs:
            if algorithm.files:
                algorithm.check_files(config.space(self.teacher.image_shape, self.teacher.num_classes))

    def synthesize(self, seed: int | None = None) -> Outcome:
        """Make the synthetic images: Parquet shards, a manifest and their quality.

        Args:
            seed: Another root seed than the experiment's; such a set is not the one that reports show.
        """
        return self._synthesize(stages.synthesize, seed)

    def _synthesize(
        self, work: Callable[[Session, StageDir, stages.Entries], dict[str, Any]], seed: int | None = None
    ) -> Outcome:
        is_own = seed is None or seed == self.config.seed
        if is_own and "synthesis" in self._outcomes:
            return self._outcomes["synthesis"]
        stage = self.synthesis_stage(seed)
        config = self.config.synthesis
        kept = stages.intact_shards(self, stage)
        if stage.is_done and len(kept) < config.num_shards:
            missing = [shard for shard in range(config.num_shards) if shard not in kept]
            self.listener.say(f"Shards {missing} are missing or damaged and are made again.")
            self.check_fits("synthesis")
            stage.reopen()
        return self.finish_on_cluster("synthesis", stage, lambda: work(self, stage, kept), is_own)

    def search(self) -> Outcome:
        """Find an architecture on the synthetic images."""
        self.check_search()  # before images are made
        stage = self.run_dir.stage("search", self._search_inputs)
        if self.config.search.start_after_shards is None or stage.is_done:
            synthesis = self.synthesize()
        else:
            if not self.synthesis_stage().is_done:
                check_room_for_both(self)  # before anything is written
            synthesis = self._synthesize(partial(synthesize_and_search, search=stage, begin=self.begin))
        return self.finish_on_cluster("search", stage, lambda: stages.search(self, stage, synthesis.location))

    def retrain(self, genotype: str | None = None) -> dict[str, Outcome]:
        """Train the architecture found, or the one given, and a random one of the same budget."""
        chosen = self._found() if genotype is None else self._given(genotype)
        synthesis = self.synthesize()
        networks = {"retraining": chosen}
        if self.config.retraining.baseline:
            networks["baseline"] = chosen.random_alike(self.config.seed)
        outcomes = {}
        for name, architecture in networks.items():
            stage = self.run_dir.stage(name, self._retraining_inputs(architecture))
            work = partial(stages.retrain, self, stage, architecture, synthesis.location)
            outcomes[name] = self.finish_on_cluster("retraining", stage, work)
        return outcomes

    def evaluate(self, genotype: str | None = None) -> Outcome:
        """Measure accuracy on real images: the one time that they are read."""
        config = evaluation_dataset(self.config)
        dataset = config.open()  # fails early if it is not there
        folders = {name: outcome.location for name, outcome in self.retrain(genotype).items()}
        inputs = {
            "dataset": config.model_dump(mode="json"),
            "files": dataset.fingerprint,
            "teacher": self.teacher.fingerprint,
            "networks": {name: folder.name for name, folder in folders.items()},
        }
        stage = self.run_dir.stage("evaluation", inputs)
        return self.finish(stage, lambda: stages.evaluate(self, folders, dataset))

    def report(self) -> Location:
        """Write the report of what is finished so far."""
        from dfnas_ray.report.page import write_report

        self.record()
        return write_report(self.run_dir)

    def run(self) -> dict[str, Outcome]:
        """Go the whole way; without an evaluation dataset, as far as retraining."""
        self.check()
        for kind in self._ahead():
            self.check_fits(kind)
        search = self.search()  # it may begin before all images are made
        outcomes = {"synthesis": self.synthesize(), "search": search, **self.retrain()}
        if self.config.evaluation.dataset is not None:
            outcomes["evaluation"] = self.evaluate()
        self.report()
        return outcomes

    def _ahead(self) -> tuple[ClusterStage, ...]:
        """Return what is still to be done on the cluster, as far as it is known before the search."""
        if not self.synthesis_stage().is_done:
            return CLUSTER_STAGES
        search = self.run_dir.stage("search", self._search_inputs)
        return () if search.is_done else CLUSTER_STAGES[1:]

    # What each stage depends on

    def synthesis_stage(self, seed: int | None = None) -> StageDir:
        """Return the folder of the images of a root seed, by default the experiment's."""
        inputs = {
            "teacher": self.teacher.fingerprint,
            "seed": self.config.seed if seed is None else seed,
            "synthesis": self.config.synthesis.model_dump(mode="json"),
        }
        return self.run_dir.stage("synthesis", inputs)

    @property
    def _search_inputs(self) -> dict[str, Any]:
        return {
            "upstream": {"synthesis": self.synthesis_stage().key},
            "seed": self.config.seed,
            "search": self._search_settings,
            "threads": self.config.cluster.search.cpus,
            **({"files": files} if (files := self._search_files()) else {}),
        }

    def _search_files(self) -> dict[str, str]:
        """Return the digests of the files that algorithms read, by name."""
        files = {file for algorithm in self.config.search.algorithm for file in algorithm.files}
        return {file: sha256(Location.parse(file).read_bytes()).hexdigest() for file in sorted(files)}

    @property
    def _search_settings(self) -> dict[str, Any]:
        waits = self.config.search.start_after_shards is None  # as every search did before there was a choice
        return self.config.search.model_dump(mode="json", exclude={"start_after_shards"} if waits else None)

    def _retraining_inputs(self, architecture: Architecture) -> dict[str, Any]:
        return {
            "upstream": {"synthesis": self.synthesis_stage().key},
            "seed": self.config.seed,
            "space": architecture.config,
            "genotype": architecture.text,
            "search": {"validation_fraction": self.config.search.validation_fraction},
            "retraining": self.config.retraining.model_dump(mode="json", exclude={"baseline"}),
            "threads": self.config.cluster.retraining.cpus,
        }

    # Doing a stage, unless it is done

    def finish_on_cluster(
        self, kind: ClusterStage, stage: StageDir, work: Callable[[], dict[str, Any]], is_own: bool = True
    ) -> Outcome:
        """Do the same as `finish`, after making sure that the cluster can be reached and has room for such a stage."""
        if not stage.is_done:
            self.check_fits(kind)
        return self.finish(stage, work, is_own)

    def finish(self, stage: StageDir, work: Callable[[], dict[str, Any]], is_own: bool = True) -> Outcome:
        """Return a stage's outcome, after doing its work unless that is done.

        Args:
            stage: The stage.
            work: Returns its summary.
            is_own: Whether it belongs to the experiment as it is, and so is what reports show.
        """
        if is_own and stage.stage in self._outcomes and self._outcomes[stage.stage].location == stage.location:
            return self._outcomes[stage.stage]
        if stage.is_done:
            return self._remember(stage, True, is_own)
        started = self.begin(stage, is_own)
        summary = work()
        # A stage that went on beside another one knows better how long it took.
        timed = {"seconds": round(time.monotonic() - started, 2), **summary}
        stage.finish({**timed, "finished_at": time.time(), "machine": self.machine()})
        return self._remember(stage, False, is_own)

    def begin(self, stage: StageDir, is_own: bool = True) -> float:
        """Record that work on a stage begins, and say why, unless this command began it; return when that was."""
        if stage.key in self._begun:
            return self._begun[stage.key]
        changes = stage.changes() if is_own else []
        if stage.is_started:
            self.listener.say(f"{stage.stage}: goes on where an earlier command stopped.")
        elif changes:
            self.listener.say(f"{stage.stage}: again, because {'; '.join(changes[:3])}{' ...' if changes[3:] else ''}")
        stage.begin()
        if is_own:
            self.note(stage)
            self.record()
        self._begun[stage.key] = time.monotonic()
        return self._begun[stage.key]

    def _remember(self, stage: StageDir, reused: bool, is_own: bool) -> Outcome:
        outcome = Outcome(stage.stage, stage.location, stage.summary(), reused)
        if is_own:
            self.note(stage)
            self._outcomes[stage.stage] = outcome
        return outcome

    # Architectures

    def _found(self) -> Architecture:
        summary = self.search().summary
        return self.architecture(summary["space_config"], summary["genotype"])

    def _given(self, text: str) -> Architecture:
        """Return the architecture of a text in whichever of the experiment's spaces has it."""
        problems = []
        for config in self.config.search.space:
            try:
                return self.architecture(config.model_dump(mode="json"), text)
            except GenotypeError as error:
                problems.append(str(error))
        raise GenotypeError("\n".join(problems))


def evaluation_dataset(config: ExperimentConfig) -> DatasetConfig:
    """Return the settings of the real images, or say how to give some."""
    if config.evaluation.dataset is None:
        raise ConfigError(
            "evaluation.dataset is not set, so there is nothing to evaluate on. Give labelled images, for instance "
            "--set 'evaluation.dataset={kind: image_folder, path: PATH}'."
        )
    return config.evaluation.dataset


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
