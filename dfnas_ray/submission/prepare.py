"""Preparation of a command for a cluster. It is checked here first, so that a typo is found before machines start."""

from __future__ import annotations

import os
import re
import secrets
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dfnas_ray.algorithms.proxyless import LatencyTermConfig
from dfnas_ray.config.dotted import Setting, list_settings
from dfnas_ray.config.experiment import ExperimentConfig, load_experiment, make_variant
from dfnas_ray.config.imports import list_imports
from dfnas_ray.datasets.parquet import ParquetConfig
from dfnas_ray.datasets.torchvision_datasets import TorchvisionDatasetConfig
from dfnas_ray.errors import ConfigError
from dfnas_ray.ranking.config import BenchmarkConfig
from dfnas_ray.storage.location import user_path
from dfnas_ray.storage.uri import is_uri
from dfnas_ray.submission.working_dir import WorkingDir
from dfnas_ray.teachers import CheckpointTeacherConfig


@dataclass(frozen=True)
class Submission:
    """A job that has been checked and can be sent."""

    id: str
    entrypoint: str
    config: ExperimentConfig
    working_dir: WorkingDir


def prepare(
    command: str,
    file: str | Path,
    overrides: Sequence[str] = (),
    root: Path | None = None,
    verbose: bool = False,
    include: Sequence[str] = (),
    options: Sequence[str] = (),
) -> Submission:
    """Return a job that can be sent, after checking the experiment and what it needs on the cluster.

    Args:
        command: The subcommand of `dfnas` that the cluster runs.
        file: The experiment file, below ``root``; or its URI, from which the job reads it.
        overrides: ``dotted.key=value``, as for the command itself.
        root: The folder that becomes the job's working directory; by default the current one.
        verbose: Let the command show Ray's output.
        include: Patterns of further files to send, relative to ``root``.
        options: Further words of the command line, such as ``--genotype``, ``22212220``.

    Raises:
        ConfigError: a setting is wrong, lacks what the command needs, or names a file that would not be where the job
            looks for it; or ``include`` names nothing that may be sent.
        TeacherError: the teacher has no checkpoint.
    """
    root = (root or Path.cwd()).resolve()
    config = load_experiment(file, overrides)
    if not root.is_dir():
        raise ConfigError(f"--working-dir ({root}) is not a folder.")
    sent = [] if is_uri(file) else [_name_below(root, file)]
    _check_needed(command, config)
    _check_run_dir(config)
    config.tracking.check_lasting(local_run_dir=not is_uri(config.run_directory))
    configs = _variants(command, config) or [config]
    named = [path for each in configs for path in _named_paths(each, root)]
    working_dir = WorkingDir.collect(root, [*sent, *dict.fromkeys(named)], include, [root / config.run_directory])
    for name in sent:
        if not working_dir.holds(name):
            raise ConfigError(f"The experiment file {file} is not sent: {working_dir.why_not(name)}.")
    for each in configs:
        _check_paths(command, each, root, working_dir)
    words = ["python", "-m", "dfnas_ray", command, sent[0].as_posix() if sent else str(file), *options]
    for override in (*overrides, "cluster.address=auto"):
        words += ["--set", override]
    words += ["--verbose"] if verbose else []
    return Submission(_job_id(config.name), shlex.join(words), config, working_dir)


def _name_below(root: Path, file: str | Path) -> Path:
    absolute = Path(os.path.abspath(user_path(file)))  # noqa: PTH100 - a link keeps the name that it is sent under
    absolute = absolute if absolute.is_relative_to(root) else absolute.resolve()
    if not absolute.is_relative_to(root):
        raise ConfigError(
            f"The experiment file {file} is not below {root}, and only files from there are sent. Submit from a folder "
            "above the file, or name that folder with --working-dir."
        )
    return absolute.relative_to(root)


_READERS = {
    "search": ("run", "search", "retrain", "evaluate", "compare"),
    "evaluation": ("run", "evaluate", "compare", "truth"),
    "sweep": ("sweep",),
    "benchmark": ("benchmark", "compare"),
    "comparison": ("compare",),
}
"""The commands that read a section, for sections that not all commands read."""

_PATHS_AS_TEXT = ((ParquetConfig, "path"), (BenchmarkConfig, "table"), (LatencyTermConfig, "file"))
"""Settings that are paths or URIs."""


def _check_needed(command: str, config: ExperimentConfig) -> None:
    """Refuse what the command itself would refuse as soon as it starts."""
    from dfnas_ray.config.experiment import evaluation_dataset
    from dfnas_ray.workflow.benchmark import benchmark_config  # import everything: kept out of `dfnas --help`
    from dfnas_ray.workflow.comparison import comparison_config
    from dfnas_ray.workflow.sweep import sweep_config
    from dfnas_ray.workflow.truth import check_truth

    if isinstance(config.teacher, CheckpointTeacherConfig):
        config.teacher.file()
    needed: dict[str, Callable[[ExperimentConfig], object]] = {
        "evaluate": evaluation_dataset,
        "sweep": sweep_config,
        "benchmark": benchmark_config,
        "compare": comparison_config,
        "truth": lambda config: check_truth(config, None),
    }
    if command in needed:
        needed[command](config)


def _variants(command: str, config: ExperimentConfig) -> list[ExperimentConfig]:
    """Return the settings of a comparison's variants if the command is a comparison, else nothing."""
    if command != "compare" or config.comparison is None:
        return []
    return [make_variant(config, name, config.seed) for name in config.comparison.variants]


def _check_run_dir(config: ExperimentConfig) -> None:
    where = config.run_directory
    if not is_uri(where) and not Path(where).is_absolute():
        raise ConfigError(
            f"run_dir ({where}) is relative: on the cluster it would be in the job's working directory, which is "
            "deleted after the job. Give a place that lasts and that all machines reach: --run-dir "
            "s3://BUCKET/PREFIX, gs://..., or the absolute path of a shared folder."
        )


def _check_paths(command: str, config: ExperimentConfig, root: Path, working_dir: WorkingDir) -> None:
    """Make sure that what the command reads is sent, if the settings name it by a relative path."""
    for setting in list_settings(config):
        path, name = _path(setting), setting.path
        is_read = command in _READERS.get(name.partition(".")[0], (command,))
        if command == "compare" and config.benchmark is not None and config.benchmark.table is not None:
            is_read = is_read and not name.startswith(
                ("evaluation.", "benchmark.real.")
            )  # the table has the true accuracies
        if path is None or not is_read or path.is_absolute() or working_dir.holds(path):
            continue
        if not (root / path).exists():
            if isinstance(setting.owner, TorchvisionDatasetConfig):
                continue  # may be downloaded there
            raise ConfigError(
                f"{name} ({path}) does not exist in {root}, and only files from there are sent to the cluster. Put it "
                "there, or where the cluster's machines can read it and give the absolute path."
            )
        raise ConfigError(
            f"{name} ({path}) is not sent: {working_dir.why_not(path)}. Change that, or put it where the cluster's "
            "machines can read it and give the absolute path."
        )


def _named_paths(config: ExperimentConfig, root: Path) -> Iterator[Path]:
    """Yield what the settings name relative to ``root``: files, folders, and the code that they import."""
    for setting in list_settings(config):
        path = _path(setting)
        if path is not None and not path.is_absolute():
            yield path
    for name in dict.fromkeys(found.module.partition(".")[0] for found in list_imports(config)):
        yield from (source.relative_to(root) for source in root.glob(f"{name}.py"))
        yield from (source.relative_to(root) for source in root.glob(f"{name}/**/*.py"))


def _path(setting: Setting) -> Path | None:
    """Return a setting's value if it is a path, on this machine or on the cluster's; else None."""
    value = setting.value
    if isinstance(value, str) and (type(setting.owner), setting.field) in _PATHS_AS_TEXT and not is_uri(value):
        return Path(value)
    return value if isinstance(value, Path) else None


def _job_id(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.")
    return "-".join(filter(None, [plain, secrets.token_hex(4)]))
