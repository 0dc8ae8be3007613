"""Export the trained network of a run directory: load it in Python, or write files for other tools."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from dfnas_ray.config.experiment import ExperimentConfig
from dfnas_ray.errors import AlteredError, ConfigError, StorageError
from dfnas_ray.library.networks import TrainedNetwork
from dfnas_ray.report.card import write_card
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.run_dir import RunDir
from dfnas_ray.storage.sealed import check_unaltered
from dfnas_ray.teachers.class_names import read_class_names
from dfnas_ray.training.export import FILES, Format, NetworkDescription, encode_network, weights_file
from dfnas_ray.training.programs import Pixels
from dfnas_ray.workflow.retraining import Baseline, Retraining

_SEARCHED, _RANDOM = "searched", "random"
_STAGES = {_SEARCHED: Retraining.name, _RANDOM: Baseline.name}
_FOLDER = "export"


def load_network(run_dir: str | Path, which: str = _SEARCHED) -> TrainedNetwork:
    """Return the trained network of a run directory, with its preprocessing and in evaluation mode.

    Nothing is unpickled, no code from the directory runs, and nothing in it is changed. A network from your own search
    space needs the class of that space.

    Args:
        run_dir: The path or URI, such as s3://bucket/prefix, of a run, or of a folder written by `dfnas export` or
            `TrainedNetwork.save`.
        which: ``searched``, or ``random`` for the baseline.

    Raises:
        ConfigError: ``which`` is something else.
        StorageError: no network is trained there yet, or a file was altered since.
    """
    return TrainedNetwork.load(network_folder(run_dir, which))


def network_folder(run_dir: str | Path | Location, which: str = _SEARCHED) -> Location:
    """Return the folder of a run's latest trained network, or ``run_dir`` itself if it holds a network.

    Raises:
        ConfigError: ``which`` is no network of a run.
        StorageError: no network is trained there yet, or a file was altered since.
    """
    if which not in _STAGES:
        raise ConfigError(f"which ({which!r}) must be {_SEARCHED} or {_RANDOM}.")
    place = Location.parse(run_dir)
    if (place / "network.json").exists():
        return place
    folder = RunDir(place).latest_stage(_STAGES[which])
    if folder is None:
        kind = "random network (retraining.baseline)" if which == _RANDOM else "network"
        raise StorageError(
            f"{place} holds no trained {kind}. Run `dfnas run FILE --run-dir {place}` to its end, or give another run directory."
        )
    check_unaltered(folder, ["network.json", "weights.safetensors"])
    return folder


class Exported(NamedTuple):
    """The result of an export.

    Attributes:
        folder: The folder that was written to.
        files: Names of the files in it.
    """

    folder: Location
    files: list[str]


def export(
    config: ExperimentConfig,
    formats: Iterable[Format],
    out: str | Path | None = None,
    pixels: Pixels = "uint8",
    which: str = _SEARCHED,
) -> Exported:
    """Write the trained network of a run as files for other tools, with its description and the model card.

    Args:
        config: The experiment of the run. Its ``teacher.class_names`` and ``teacher.crop``, ``squash`` and ``interpolation``, if
            given, replace those that the run recorded.
        formats: The formats to write.
        out: A folder or a URI; by default ``export`` in the run directory.
        pixels: The input of the programs: uint8, or float32 in [0, 1].
        which: ``searched``, or ``random`` for the baseline.

    Raises:
        ConfigError: a package is missing. The message says how to install it.
        ExportError: the network cannot be exported.
        StorageError: no network is trained yet, a file was altered since, or the folder cannot be written.
        TeacherError: the class names do not fit.
    """
    run_dir = RunDir(config.run_directory)
    source = network_folder(run_dir.location, which)
    described = NetworkDescription.read(source)
    names, resizing = described.class_names, config.teacher.resizing(described.resizing)
    if config.teacher.class_names is not None:
        names = read_class_names(config.teacher.class_names, described.num_classes)
    network = TrainedNetwork.load(source).network
    described = described.model_copy(update={"class_names": names, "resizing": resizing, "program": pixels})
    described, files = encode_network(network, described, formats, weights_file(source).read_bytes())
    folder = (Location.parse(out, "--out") if out is not None else run_dir.location / _FOLDER).make_dir()
    _remove_others(folder, described, set(files))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    described.write(folder)
    written = [*files, "network.json"]
    if which == _SEARCHED:
        written += [card.name for card in [write_card(run_dir, folder)] if card is not None]
    return Exported(folder, written)


def _remove_others(folder: Location, described: NetworkDescription, written: set[str]) -> None:
    """Remove files of another network from an earlier export, which would be mistaken for this one's."""
    try:
        before = NetworkDescription.find(folder)
    except AlteredError:
        return
    if before is not None and before.differs_from(described):
        for name in set(FILES.values()) - written:
            (folder / name).delete_file()
