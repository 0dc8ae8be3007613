"""All settings of an experiment, from a YAML file and overrides."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dfnas_ray.algorithms.config import SearchConfig
from dfnas_ray.comparison.config import ComparisonConfig
from dfnas_ray.config.cluster import ClusterConfig
from dfnas_ray.config.dotted import list_settings, set_dotted
from dfnas_ray.config.explain import explain
from dfnas_ray.config.registry import SettingValues
from dfnas_ray.config.tracking import TrackingConfig
from dfnas_ray.config.yaml_text import MAX_LENGTH, YamlTextError, read_yaml, write_yaml
from dfnas_ray.datasets import DatasetConfig
from dfnas_ray.errors import AlteredError, ConfigError, first_line, printable, shortened
from dfnas_ray.limits import LARGEST_SEED
from dfnas_ray.ranking.config import BenchmarkConfig
from dfnas_ray.search_spaces import SpaceConfig
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.regular_files import NotRegularError, read_regular
from dfnas_ray.storage.uri import is_uri, refuse_passwords, refuse_secrets
from dfnas_ray.sweeps.config import SweepConfig
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.teachers import TeacherConfig
from dfnas_ray.training.config import RetrainingConfig


class EvaluationConfig(BaseModel):
    """The final test on real images; without a dataset the stage is left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: DatasetConfig | None = Field(
        None, description="Labelled real images. Nothing before this stage reads them."
    )


class ExperimentConfig(BaseModel):
    """From a teacher's checkpoint to a searched, retrained and evaluated network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("experiment", pattern=r"^\w[\w.-]*$", description="Name of the run directory and the report.")
    run_dir: str | None = Field(None, description="Folder or URI for all results; by default runs/NAME.")
    seed: int = Field(
        0, ge=0, le=LARGEST_SEED, description="Root seed of all random numbers, except the built-in teacher's."
    )
    allow_real_images: bool = Field(
        False, description="Allow real images in search.images and retraining.images; the results are not data-free."
    )
    teacher: TeacherConfig
    synthesis: SynthesisConfig = SynthesisConfig()
    search: SearchConfig = SearchConfig()
    retraining: RetrainingConfig = RetrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    sweep: SweepConfig | None = Field(None, description="Tuning of synthesis settings; only `dfnas sweep` reads it.")
    benchmark: BenchmarkConfig | None = Field(
        None, description="Rankings against true accuracies; only `dfnas benchmark` reads it."
    )
    comparison: ComparisonConfig | None = Field(
        None, description="The same search under different settings; only `dfnas compare` reads it."
    )
    cluster: ClusterConfig = ClusterConfig()
    tracking: TrackingConfig = TrackingConfig()

    @field_validator("run_dir")
    @classmethod
    def _refuse_variables(cls, folder: str | None) -> str | None:
        if folder is not None and (found := re.search(r"\$\{?\w+\}?", folder)):
            raise ValueError(
                f"{found[0]} would be the name of a folder: environment variables are not replaced here. Write the path itself, "
                "or give it with --run-dir on the command line, where the shell replaces them."
            )
        return folder

    @model_validator(mode="after")
    def _check(self) -> Self:
        for space in self.search.space:
            for setting, supported in (
                ("auxiliary_weight", space.has_auxiliary_classifier),
                ("drop_path", space.has_drop_path),
            ):
                value = getattr(self.retraining, setting)
                if value and not supported:
                    raise ValueError(
                        f"retraining.{setting} ({value}) does nothing for networks of {space.kind}. Set it to 0."
                    )
        if self.tracking.is_on and self.cluster.is_inline:
            raise ValueError(
                "tracking: MLflow and Weights & Biases need Ray, and cluster.address is inline. Remove tracking, or "
                "use another address; the files for TensorBoard are always written."
            )
        start, shards = self.search.start_after_shards, self.synthesis.num_shards
        if start is not None and start > shards:
            raise ValueError(
                f"search.start_after_shards ({start}) is more than synthesis.num_shards ({shards}): the search would never "
                f"start. Set it to {shards} or less, or to null to wait for all."
            )
        for setting, images in (("search.images", self.search.images), ("retraining.images", self.retraining.images)):
            if not images.is_data_free and not self.allow_real_images:
                raise ValueError(
                    f"{setting} ({images.kind}) are not data-free: their results say nothing about a teacher without "
                    "its data. Allow them with allow_real_images: true, or leave the setting out."
                )
            if self.evaluation.dataset is not None and getattr(images, "dataset", None) == self.evaluation.dataset:
                raise ValueError(
                    f"{setting}.dataset and evaluation.dataset are the same images: a network would be tested on what it "
                    "learned from. Give others, such as another split."
                )
        workers, resources = self.retraining.num_workers, self.cluster.retraining
        # Above 0.5 GPUs, or with a node for each worker, no two workers share a GPU.
        if workers > 1 and 0 < resources.gpus <= 0.5 and resources.placement != "STRICT_SPREAD":
            raise ValueError(
                f"cluster.retraining.gpus ({resources.gpus:g}) lets the workers of retraining.num_workers ({workers}) share a "
                "GPU, on which NCCL refuses to average their gradients. Set cluster.retraining.gpus to 1, or to 0 to train on "
                "CPUs, or retraining.num_workers to 1."
            )
        return self

    @property
    def uses_synthesis(self) -> bool:
        """Whether the search or the retraining uses synthetic images."""
        return self.search.images.is_synthetic or self.retraining.images.is_synthetic

    @property
    def is_data_free(self) -> bool:
        """Whether neither the search nor the retraining uses real images."""
        return self.search.images.is_data_free and self.retraining.images.is_data_free

    @property
    def run_directory(self) -> str:
        """The folder or URI of all results."""
        return self.run_dir or f"runs/{self.name}"


def load_experiment(path: str | Path, overrides: Iterable[str] = ()) -> ExperimentConfig:
    """Return the experiment in a YAML file, with ``dotted.key=value`` overrides applied.

    Top-level keys that begin with ``x-`` are ignored, so that they can hold YAML anchors.

    Args:
        path: The file, or its URI in an object store, as for `Location.parse`.
        overrides: Settings that replace those of the file.

    Raises:
        ConfigError: the file is missing or is not a YAML mapping, or a setting is wrong. The message names the setting,
            its value and the remedy.
        StorageError: a setting is a URI that may hold a credential, or the file's store cannot be read.
    """
    file, text = _read_text(path)
    try:
        values = read_yaml(text)
    except YamlTextError as error:
        raise ConfigError(f"The experiment file {file} is not valid YAML: {error}.") from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"The experiment file {file} must be a mapping with at least a teacher, such as `teacher: digits`."
        )
    return make_experiment({name: value for name, value in values.items() if not name.startswith("x-")}, overrides)


def _read_text(path: str | Path) -> tuple[str, str]:
    file, most = printable(path), 4 * MAX_LENGTH  # a character has four bytes at most
    try:
        place = Location.parse(path, "The experiment file")
        data = read_regular(Path(place.path), most) if place.is_local else place.read_bytes(most)
        return file, data.decode()
    except NotRegularError as error:
        raise ConfigError(f"The experiment file {file} {error}.") from error
    except AlteredError as error:
        raise ConfigError(f"The experiment file {file} has more than {most:,} bytes.") from error
    except (OSError, ValueError) as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else first_line(error)
        raise ConfigError(f"The experiment file {file} cannot be read: {reason}.") from error


def make_experiment(values: Mapping[str, Any], overrides: Iterable[str] = ()) -> ExperimentConfig:
    """Return the experiment of nested mappings, with ``dotted.key=value`` overrides applied.

    Raises:
        ConfigError: as `load_experiment`.
        StorageError: likewise.
    """
    merged = dict(values)
    for override in overrides:
        merged = _override(merged, override)
    merged = _without_empty_sections(merged)
    config = _validate(merged)
    for setting in list_settings(config):
        if isinstance(setting.value, str) and is_uri(setting.value):
            refuse_secrets(setting.value, setting.path)
    for path, text in _texts(config.model_dump(mode="json")):
        refuse_passwords(text, path)
    if config.sweep is not None:
        _check_sweep(merged, config.synthesis, config.sweep)
    for name in config.comparison.variants if config.comparison is not None else ():
        make_variant(config, name, config.seed)
    return config


def make_variant(config: ExperimentConfig, name: str, seed: int) -> ExperimentConfig:
    """Return the experiment with the settings of one variant of its comparison, and with a root seed.

    Its search uses this seed alone: one trial of every algorithm in every space.

    Raises:
        ConfigError: the variant names an unknown setting, or gives a wrong value. The message names the variant.
    """
    assert config.comparison is not None
    values: SettingValues = config.model_dump(mode="json", exclude_unset=True)
    for section in ("comparison", "sweep"):
        values.pop(section, None)
    for path, value in config.comparison.variants[name].items():
        values = set_dotted(values, path, value, f"comparison.variants.{name}.{path}")
    values = set_dotted(values, "search.seeds", [0], "search.seeds")
    try:
        return _validate({**values, "seed": seed})
    except ConfigError as error:
        raise ConfigError(f"comparison.variants.{name}: {error}") from error


def _without_empty_sections(values: Mapping[str, Any]) -> SettingValues:
    """Return the values without empty sections, such as one with only comments: YAML reads them as null."""
    sections = {name for name, field in ExperimentConfig.model_fields.items() if isinstance(field.default, BaseModel)}
    return {name: value for name, value in values.items() if value is not None or name not in sections}


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text in nested values with its dotted path, keys included."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(str(name), path)
            yield from _texts(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, path)


def _validate(values: Mapping[str, Any]) -> ExperimentConfig:
    try:
        return ExperimentConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, values, ExperimentConfig)) from error


def _check_sweep(values: Mapping[str, Any], synthesis: SynthesisConfig, sweep: SweepConfig) -> None:
    """Validate the ends of every range, one at a time, to find a wrong path or value before the first trial."""
    base = {name: value for name, value in values.items() if name != "sweep"}
    # A sweep may vary settings of the default synthesizer, which the file does not name: they need its kind.
    base["synthesis"] = synthesis.model_dump(mode="json")
    if isinstance(base.get("search"), Mapping):  # trials run no search, and may have fewer shards
        base["search"] = {name: value for name, value in base["search"].items() if name != "start_after_shards"}
    for path, value in sweep.fixed.items():
        base = set_dotted(base, path, value, f"sweep.fixed.{path}")
    _try(base, "sweep.fixed")
    for path, range_ in sweep.settings.items():
        for limit in range_.limits:
            where = f"sweep.settings.{path} at {limit!r}"
            _try(set_dotted(base, path, limit, where), where)
    if sweep.pruning is not None:
        most = sweep.most_rounds(_validate(base).synthesis)
        if sweep.pruning.min_rounds >= most:
            raise ConfigError(
                f"sweep.pruning.min_rounds ({sweep.pruning.min_rounds}) must be below the {most} rounds that a trial makes in "
                "all its shards: otherwise no trial could be pruned. Lower it, or raise synthesis.num_shards."
            )


def _try(values: Mapping[str, Any], where: str) -> None:
    try:
        _validate(values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def evaluation_dataset(config: ExperimentConfig) -> DatasetConfig:
    """Return the settings of the real images for the evaluation.

    Raises:
        ConfigError: there are none. The message says how to give some.
    """
    if config.evaluation.dataset is None:
        raise ConfigError(
            "evaluation.dataset is not set, so there is nothing to evaluate on. Give labelled images, for instance "
            "--set 'evaluation.dataset={kind: image_folder, path: PATH}'."
        )
    return config.evaluation.dataset


def make_space_config(values: Mapping[str, Any], overrides: Iterable[str] = ()) -> SpaceConfig:
    """Return the settings of a search space, with ``dotted.key=value`` overrides applied.

    Raises:
        ConfigError: as `load_experiment`.
    """
    nested = [f"search.space.{override}" for override in overrides]
    return make_experiment({"teacher": "digits", "search": {"space": dict(values)}}, nested).search.space[0]


def dump_experiment(config: ExperimentConfig) -> str:
    """Return the resolved experiment as YAML, which `load_experiment` reads back to an equal one."""
    return write_yaml(config.model_dump(mode="json"))


def _override(values: SettingValues, override: str) -> SettingValues:
    path, equals, text = override.partition("=")
    path = path.strip()
    if not equals or not path:
        raise ConfigError(
            f"--set {shortened(repr(override), 100)} must have the form dotted.key=value, such as synthesis.num_shards=3."
        )
    try:
        value = read_yaml(text)
    except YamlTextError as error:
        raise ConfigError(
            f"--set {shortened(path, 100)}: {shortened(repr(text), 100)} is not a YAML value: {error}."
        ) from error
    if isinstance(value, str) and text.strip() and text.strip()[0] not in "\"'|>&!":
        value = text.strip()  # on a command line, # does not begin a comment
    return set_dotted(values, path, value, f"--set {path}")
