"""What a run directory holds: its finished stages with their records, and whether they belong together.

Files that were altered, or are of another version, are named and count as missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, cast

from dfnas_ray.config.yaml_text import MAX_LENGTH, YamlTextError, read_yaml
from dfnas_ray.errors import AlteredError, StorageError
from dfnas_ray.storage.location import JsonObject, Location
from dfnas_ray.storage.run_dir import RecordedInputs, RunDir
from dfnas_ray.teachers.facts import TeacherDescription
from dfnas_ray.workflow.evaluation import Evaluation
from dfnas_ray.workflow.run import REPORTED
from dfnas_ray.workflow.stage import Record, Stage
from dfnas_ray.workflow.synthesis import Synthesis

Status = Literal["finished", "missing", "outdated", "off"]
AnyStage = type[Stage[Any]]
R = TypeVar("R", bound=Record)
T = TypeVar("T")


@dataclass
class Problems:
    """Errors about files that could not be read, each one once."""

    texts: list[str] = field(default_factory=list)

    def read(self, reader: Callable[[Location], T], folder: Location) -> T | None:
        """Return the result of ``reader`` for a folder, or None if a file there is missing or damaged."""
        try:
            return reader(folder)
        except StorageError as error:
            if str(error) not in self.texts:
                self.texts.append(str(error))
            return None


@dataclass(frozen=True)
class Artefact(Generic[R]):
    """One stage as the report sees it.

    Attributes:
        stage: The class of the stage.
        problems: Where unreadable files are noted.
        status: ``outdated``: finished, but made from something that a later command replaced; ``off``: the experiment
            does not ask for it.
        folder: The folder of the stage, if it exists.
        record: The record of the stage, if it is finished.
        inputs: The recorded inputs of the stage, if it exists.
        changed: Whether experiment.yaml now has other settings for the stage.
    """

    stage: type[Stage[R]]
    problems: Problems
    status: Status
    folder: Location | None = None
    record: R | None = None
    inputs: JsonObject = field(default_factory=dict)
    changed: bool = False

    @property
    def finished(self) -> bool:
        """Whether the stage is finished, so that there is something to show."""
        return self.record is not None

    def read(self, reader: Callable[[Location], T]) -> T | None:
        """Return the result of ``reader`` for the stage's folder; None if it is unfinished or unreadable."""
        if not self.finished or self.folder is None:
            return None
        return self.problems.read(reader, self.folder)


@dataclass(frozen=True)
class Artefacts:
    """Everything that the report reads, except the shards.

    Attributes:
        run_dir: The run directory.
        config: experiment.yaml as nested mappings; empty if there is none.
        config_text: The unchanged text of the file.
        stages: The stages in the order of the report.
        problems: Files that cannot be read.
        teacher: The recorded description of the last command's teacher, if there is one.
    """

    run_dir: RunDir
    config: JsonObject
    config_text: str
    stages: dict[AnyStage, Artefact[Any]]
    problems: Problems
    teacher: TeacherDescription | None = None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes, if the recorded teacher is the one that the stages were made from."""
        stages: tuple[AnyStage, ...] = (Synthesis, Evaluation)
        known = [self.stages[stage].inputs.get("teacher") for stage in stages if self.stages[stage].finished]
        if self.teacher is None or any(sha256 != self.teacher.sha256 for sha256 in known if isinstance(sha256, str)):
            return None
        return self.teacher.class_names

    def __getitem__(self, stage: type[Stage[R]]) -> Artefact[R]:
        return cast(Artefact[R], self.stages[stage])

    @property
    def finished(self) -> list[tuple[AnyStage, Record, Artefact[Any]]]:
        """The finished stages, with their records."""
        return [(stage, found.record, found) for stage, found in self.stages.items() if found.record is not None]


def read_artefacts(run_dir: RunDir) -> Artefacts:
    """Return what a run directory holds.

    Raises:
        StorageError: no stage is finished, or the directory cannot be read.
    """
    config, text = _read_config(run_dir)
    latest, problems = run_dir.latest(), Problems()
    stages: dict[AnyStage, Artefact[Any]] = {}
    for stage in REPORTED:
        stages[stage] = _read_stage(run_dir, stage, latest, stages.values(), config, problems)
    if not any(found.finished for found in stages.values()):
        raise StorageError(
            " ".join(
                [
                    f"{run_dir.location} holds no finished stage, so there is nothing to report. Run `dfnas run` or "
                    "`dfnas synthesize` with this run directory first.",
                    *problems.texts,
                ]
            )
        )
    teacher = problems.read(TeacherDescription.find, run_dir.location)
    return Artefacts(run_dir, config, text, stages, problems, teacher)


def _read_config(run_dir: RunDir) -> tuple[JsonObject, str]:
    file = run_dir.location / "experiment.yaml"
    if not file.exists():
        return {}, ""
    text = ""
    try:
        text = file.read_bytes(4 * MAX_LENGTH).decode(errors="replace")
        config = read_yaml(text)
    except (YamlTextError, AlteredError):
        config = None
    return (config if isinstance(config, dict) else {}), text


def _read_stage(
    run_dir: RunDir,
    stage: type[Stage[R]],
    latest: dict[str, str],
    before: Iterable[Artefact[Any]],
    config: JsonObject,
    problems: Problems,
) -> Artefact[R]:
    folder, is_asked_for = run_dir.latest_stage(stage.name), stage.is_asked_for(config)
    absent = Artefact(stage, problems, "missing" if is_asked_for else "off")
    if folder is None or not (is_asked_for or stage.shown_unasked):
        return absent
    inputs = problems.read(RecordedInputs.read, folder)
    record = problems.read(lambda folder: (folder / "done.json").read_model(stage.record), folder)
    if inputs is None or record is None:
        return absent
    if not _belongs(stage, inputs, latest, before):
        return Artefact(stage, problems, "outdated", folder, None, inputs)
    return Artefact(stage, problems, "finished", folder, cast(R, record), inputs, _is_changed(inputs, config))


def _belongs(stage: AnyStage, inputs: JsonObject, latest: dict[str, str], before: Iterable[Artefact[Any]]) -> bool:
    """Return whether a stage was made from the stages that the report shows."""
    sources = stage.made_from(inputs)
    outdated = {found.stage.name for found in before if found.status == "outdated"}
    return not outdated & sources.keys() and all(key.startswith(latest.get(name, key)) for name, key in sources.items())


def _is_changed(inputs: JsonObject, config: JsonObject) -> bool:
    """Return whether experiment.yaml now has other settings than those that a stage was made with."""
    pairs = [(made, config.get(name)) for name, made in inputs.items()]
    return any(
        now.get(key) != value
        for made, now in pairs
        if isinstance(made, dict) and isinstance(now, dict)
        for key, value in made.items()
    )
