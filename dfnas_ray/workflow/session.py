"""One command at work on one run directory, and what all stages need there: teacher, spaces, cluster, images."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, get_args

import torch

from dfnas_ray.config.experiment import ExperimentConfig, dump_experiment
from dfnas_ray.progress import Listener, Silent
from dfnas_ray.search_spaces import SearchSpace, build_space, make_space
from dfnas_ray.search_spaces.architecture import Architecture
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.run_dir import RunDir, StageDir
from dfnas_ray.teachers import CheckpointTeacherConfig, Teacher

if TYPE_CHECKING:
    from dfnas_ray.execution.ray.cluster import RayRuntime
    from dfnas_ray.execution.ray.images import ImagesRef


ClusterStage: TypeAlias = Literal["synthesis", "search", "retraining"]
"""The stages whose workers have settings of their own, in their order."""

CLUSTER_STAGES: tuple[ClusterStage, ...] = get_args(ClusterStage)


class Session:
    """One command's work on one experiment's run directory.

    Use it as a context manager: the directory is locked, and Ray is started when a stage first needs it.
    """

    def __init__(self, config: ExperimentConfig, listener: Listener | None = None, verbose: bool = False):
        self.config = config
        self.listener = listener or Silent()
        self.verbose = verbose
        self.run_dir = RunDir(config.run_directory)
        self._runtime: RayRuntime | None = None
        self._images: dict[str, ImagesRef] = {}
        self._noted: list[StageDir] = []

    @contextmanager
    def opened(self) -> Iterator[Self]:
        """Lock the run directory, and leave the cluster at the end."""
        with self.run_dir.locked():
            try:
                yield self
                self.record()
            finally:
                if self._runtime is not None:
                    self._runtime.__exit__(None, None, None)

    def record(self) -> None:
        """Write that the run directory is now this experiment's, with the stages that were noted, if any.

        It is called when work begins or all is done: a command that fails before that changes nothing.
        """
        if self._noted:
            (self.run_dir.location / "experiment.yaml").write_bytes(dump_experiment(self.config).encode())
            self.run_dir.set_latest(self._noted)
            self._noted.clear()

    def note(self, stage: StageDir) -> None:
        """Let the next `record` make ``stage`` the one that reports show."""
        self._noted.append(stage)

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
        shape, classes = self.teacher.image_shape, self.teacher.num_classes
        return [build_space(space, shape, classes) for space in self.config.search.space]

    @cached_property
    def max_macs(self) -> int | None:
        """The limit on MACs as a number; raises if a space has no architecture within it."""
        limit = self.config.search.macs_limit(self.teacher.cost.macs)
        for space in self.spaces:
            space.check_limit(limit)
        return limit

    @property
    def runtime(self) -> RayRuntime:
        """The Ray cluster, started or joined, all of whose nodes see the run directory.

        Raises:
            ClusterError: it cannot be reached, or a node does not see the run directory.
        """
        if self._runtime is None:
            from dfnas_ray.execution.ray.cluster import RayRuntime
            from dfnas_ray.execution.ray.shared_storage import SharedStorage

            self.listener.say(f"Starting Ray ({self.config.cluster.address}).")
            self._runtime = RayRuntime(self.config.cluster, self.verbose)
            self._shared = SharedStorage(self.run_dir.lock_file)
            self._runtime.ensure()
            self._check_code()
        else:
            self._runtime.ensure()
        self._shared.check()
        return self._runtime

    def _check_code(self) -> None:
        """Make sure that a teacher's own code is where its workers will be."""
        if isinstance(self.config.teacher, CheckpointTeacherConfig):
            from dfnas_ray.execution.ray.builder_code import check_builder

            check_builder(self.config.teacher.builder, self.config.cluster)

    def check_fits(self, stage: ClusterStage) -> None:
        """Make sure that the cluster can hold what a stage asks for.

        Raises:
            ClusterError: it cannot, or it cannot be reached.
        """
        cluster = self.config.cluster
        match stage:
            case "synthesis":
                self.runtime.check_fits(stage, cluster.synthesis)
            case "search":
                self.runtime.check_fits(stage, cluster.search, 1 + cluster.search.scoring_workers)
            case "retraining":
                self.runtime.check_fits(stage, cluster.retraining, self.config.retraining.num_workers)

    def images(self, folder: Location) -> ImagesRef:
        """The synthetic images in the cluster's object store, read once from their folder for all stages."""
        if str(folder) not in self._images:
            from dfnas_ray.execution.ray.images import load_images

            manifest = (folder / "manifest.json").read_json()
            self._images[str(folder)] = load_images.remote(folder, manifest)
        return self._images[str(folder)]

    def architecture(self, config: dict[str, Any], text: str) -> Architecture:
        """Return the architecture of a genotype's text in the space of these settings."""
        space = make_space(config, self.teacher.image_shape, self.teacher.num_classes)
        return Architecture(config, space, space.decode(text))

    def machine(self) -> dict[str, str | int | float]:
        """What the stage ran on, for the report."""
        facts: dict[str, str | int | float] = {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }
        return {**facts, **(self._runtime.describe() if self._runtime is not None else {})}
