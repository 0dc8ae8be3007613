"""The session of one command on one run directory: the teacher, spaces, executor and images for all stages."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Self

import torch

from dfnas_ray.config.experiment import ExperimentConfig, dump_experiment
from dfnas_ray.config.imports import list_imports, own_code_digest
from dfnas_ray.execution import make_executor
from dfnas_ray.execution.base import Executor
from dfnas_ray.execution.machine import use_cores_of_job
from dfnas_ray.planning.recipe import complete
from dfnas_ray.progress import Listener, Silent
from dfnas_ray.search_spaces import SearchSpace, build_space, make_space
from dfnas_ray.search_spaces.architecture import Architecture
from dfnas_ray.storage.location import JsonObject, Location
from dfnas_ray.storage.manifest import Manifest
from dfnas_ray.storage.run_dir import RunDir, StageDir
from dfnas_ray.storage.shard_sets import load_shards
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.storage.shared import Shared
from dfnas_ray.teachers.base import Teacher, load_teacher
from dfnas_ray.teachers.facts import TeacherDescription
from dfnas_ray.workflow.run_log import LoggedListener, logged


class Session:
    """One command's work on one experiment's run directory.

    `opened` locks the directory. The executor is opened when a stage first needs it.

    Attributes:
        given: The experiment as it was given.
        outcomes: The outcomes of the stages that this command has finished or found finished, by their folders.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        listener: Listener | None = None,
        verbose: bool = False,
        teacher: Teacher | None = None,
    ):
        """Set up a session for an experiment.

        Args:
            config: The settings of the experiment.
            listener: Gets messages and progress.
            verbose: Show the output of workers.
            teacher: A teacher to use instead of the one that the settings name.
        """
        self.given, self._given_teacher = config, teacher
        self.listener: Listener = listener or Silent()
        self.verbose = verbose
        self.run_dir = RunDir(config.run_directory)
        self.outcomes: dict[str, Any] = {}
        self._executor: Executor | None = None
        self._log: LoggedListener | None = None
        self._images: dict[str, Shared[SyntheticImages]] = {}
        self._noted: list[StageDir] = []
        self._whole = self

    @contextmanager
    def opened(self) -> Iterator[Self]:
        """Lock the run directory while the block runs, and close the executor at the end."""
        use_cores_of_job()  # before anything is computed, which may be before a cluster is joined
        with self.run_dir.locked(), logged(self.run_dir.location, self.listener) as listener:
            self.listener = self._log = listener
            try:
                yield self
                self.record()
            except Exception as error:
                told = self._executor.explain(error) if self._executor is not None else None
                if told is not None:
                    raise told from error
                raise
            finally:
                if self._executor is not None:
                    self._executor.close()

    def variant(self, config: ExperimentConfig) -> Session:
        """Return a session with other settings in the same command. It shares teacher, executor and finished stages.

        Its artefacts are in the same run directory, but reports do not show them.
        """
        other = Session(config, self.listener, self.verbose, self.teacher)
        other.run_dir, other.outcomes, other._images, other._whole = self.run_dir, self.outcomes, self._images, self
        return other

    @property
    def is_whole(self) -> bool:
        """Whether this is the command's own session, and not one of a variant."""
        return self._whole is self

    def record(self) -> None:
        """Write experiment, teacher and the noted stages into the run directory, if any stage was noted.

        ``experiment.yaml`` is not written if the teacher was given, because the settings do not name that teacher.
        Call this when work begins, or at the end: a command that fails earlier changes nothing.
        """
        if self._noted:
            if self._log is not None:
                self._log.begin()
            if self._given_teacher is None:  # otherwise the settings name another teacher
                (self.run_dir.location / "experiment.yaml").write_bytes(dump_experiment(self.config).encode())
            teacher: Teacher | None = vars(self).get("teacher")  # not loaded if no stage needed it
            if teacher is not None:
                TeacherDescription.of(teacher).write(self.run_dir.location)
            self.run_dir.set_latest(self._noted)
            self._noted.clear()

    def note(self, stage: StageDir) -> None:
        """Let the next `record` make ``stage`` the one that reports show."""
        self._noted.append(stage)

    @cached_property
    def config(self) -> ExperimentConfig:
        """The experiment, with settings chosen for its teacher where it gives none."""
        return complete(self.given, self.teacher)

    @cached_property
    def teacher(self) -> Teacher:
        """The frozen teacher. The built-in one is trained when it is first used."""
        if self._given_teacher is not None:
            return self._given_teacher
        return load_teacher(self.given.teacher, self.teacher_cache)

    @property
    def teacher_cache(self) -> Location:
        """The folder of a teacher that had to be trained, so that another machine continues with the same one."""
        return self.run_dir.location / "teacher"

    @cached_property
    def shared_teacher(self) -> Shared[Teacher]:
        """A handle of the teacher for all workers."""
        return self.executor.share(self.teacher) if self.is_whole else self._whole.shared_teacher

    @cached_property
    def spaces(self) -> list[SearchSpace]:
        """The search spaces for the teacher's images and classes."""
        shape, classes = self.teacher.image_shape, self.teacher.num_classes
        return [build_space(space, shape, classes) for space in self.config.search.space]

    @cached_property
    def max_macs(self) -> int | None:
        """The upper limit on MACs as a number. Raises an error if a space has no architecture within the limits."""
        limit = self.config.search.macs_limit(self.teacher.cost.macs)
        for space in self.spaces:
            space.check_window(limit, self.min_macs)
        return limit

    @cached_property
    def min_macs(self) -> int | None:
        """The lower limit on MACs as a number. Raises an error if it is above the upper limit."""
        return self.config.search.macs_at_least(self.teacher.cost.macs)

    def own_code(self, *settings: str) -> JsonObject:
        """Return the entry of a stage's inputs for the user's own code that these settings name; empty without any."""
        found = {setting: own_code_digest(self.config, setting) for setting in settings}
        code = {setting: digest for setting, digest in found.items() if digest}
        return {"code": code} if code else {}

    @property
    def executor(self) -> Executor:
        """The executor of the work, opened.

        Raises:
            ClusterError: it cannot be reached, or a node does not see the run directory.
        """
        if not self.is_whole:
            return self._whole.executor
        if self._executor is None:
            cluster = self.given.cluster
            if not cluster.is_inline:
                self.listener.say(f"Starting Ray ({cluster.address}).")
            self._executor = make_executor(cluster, self.run_dir.lock_file, self._imports, self.verbose)
            self._executor.follow(self.given.tracking, self.given.name)
        self._executor.open()
        return self._executor

    @property
    def _imports(self) -> dict[str, str]:
        """Modules outside this package that workers must be able to import, by the setting that names them."""
        found = list_imports(self.given)
        return {one.setting: one.module for one in found if not one.setting.startswith("evaluation.")}

    def images(self, folder: Location) -> Shared[SyntheticImages]:
        """Return a handle of the images in a folder for all workers. They are read once, until `forget_images`."""
        return self.kept(str(folder), lambda: self.executor.compute(load_shards, folder, Manifest.read(folder)))

    def kept(self, name: str, make: Callable[[], Shared[SyntheticImages]]) -> Shared[SyntheticImages]:
        """Return the images that were made under this name; make them the first time."""
        if name not in self._images:
            self._images[name] = make()
        return self._images[name]

    def forget_images(self) -> None:
        """Let go of all images. Those that are asked for again are read again."""
        self._images.clear()

    def architecture(self, config: JsonObject, text: str) -> Architecture:
        """Return the architecture of a genotype's text in the space of these settings."""
        space = make_space(config, self.teacher.image_shape, self.teacher.num_classes)
        return Architecture(config, space, space.decode(text))

    def machine(self) -> dict[str, str | int | float | None]:
        """Return facts about the machine and the cluster, for the report."""
        return {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            **(self._whole._executor.facts() if self._whole._executor is not None else {}),
        }
