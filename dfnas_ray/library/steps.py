"""The steps as functions on Python objects: no file and no cluster, and only the given settings.

Keyword arguments are the settings of the experiment file, with the same defaults and the same errors. Everything runs
in this process unless ``address`` names a Ray cluster. With ``run_dir`` an interrupted step continues where it stopped,
and a finished one is not repeated. Without it, only the returned object is kept. The global random states of torch,
numpy and random are restored afterwards.
"""

from __future__ import annotations

import math
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dfnas_ray.algorithms.selection import ComparedTrial, Finalist, HistoryPoint
from dfnas_ray.config.cluster import INLINE
from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.config.registry import SettingValues
from dfnas_ray.datasets import DatasetConfig, ImageDataset
from dfnas_ray.datasets.base import DatasetSourceConfig, open_dataset
from dfnas_ray.errors import ConfigError
from dfnas_ray.library.images import Images
from dfnas_ray.library.networks import TrainedNetwork
from dfnas_ray.ops.cost import Cost
from dfnas_ray.ops.networks import copy_network
from dfnas_ray.progress import Listener
from dfnas_ray.search_spaces.architecture import Architecture
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.manifest import Manifest
from dfnas_ray.synthesis.base import SynthesizerConfig
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.teachers.trial import cannot_be_copied
from dfnas_ray.training.evaluation import evaluate_networks
from dfnas_ray.training.export import load_network
from dfnas_ray.training.retraining import EpochFigures
from dfnas_ray.workflow.retraining import Retraining
from dfnas_ray.workflow.search import Search, SearchRecord
from dfnas_ray.workflow.session import Session
from dfnas_ray.workflow.synthesis import Synthesis

_MOST_PER_SHARD = 1_000
_TEACHER = "teacher"  # the key of its accuracy


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        architecture: The best architecture; ``architecture.text`` is its genotype.
        finalists: The architectures of all trials that were compared by training each one alone.
        history: One entry per epoch and round of candidates, by trial.
        record: The record of the search with all figures.
    """

    architecture: Architecture
    finalists: tuple[Finalist, ...]
    history: dict[str, tuple[HistoryPoint, ...]]
    record: SearchRecord

    @property
    def cost(self) -> Cost:
        """Parameters and MACs of the architecture."""
        return self.architecture.cost


def synthesize(
    teacher: Teacher,
    num_images: int | None = None,
    *,
    seed: int = 0,
    run_dir: str | Path | None = None,
    address: str = INLINE,
    cluster: Mapping[str, Any] | None = None,
    listener: Listener | None = None,
    **settings: Any,
) -> Images:
    """Make synthetic images from a teacher.

    Args:
        teacher: The teacher, for instance of `Teacher.from_model`.
        num_images: The number of images in all kept rounds; by default it follows from the settings.
        seed: The same seed gives the same images.
        run_dir: The folder or URI in which unfinished work is kept.
        address: ``inline``, or the address of a Ray cluster.
        cluster: Other settings of the section ``cluster``, such as ``{"synthesis": {"cpus": 2}}``.
        listener: Receives progress and messages.
        settings: Settings of the section ``synthesis``, such as ``method="generator"`` or
            ``regularizers={"bn_statistics": {"weight": 1}}``.

    Raises:
        ConfigError: a setting is wrong.
        SynthesisError: the images cannot be made.
    """
    if num_images is not None:
        settings = {**settings, **_shards_for(num_images, settings)}
    with _session(teacher, {"synthesis": settings}, seed, run_dir, address, cluster, listener) as session:
        stage = Synthesis(session)
        stage.check()
        folder = stage.finish().location
        if run_dir is not None:
            return Images(teacher, folder, Manifest.read(folder))
        kept = tempfile.TemporaryDirectory(prefix="dfnas-images-")  # the session's own folder ends with it
        moved = shutil.move(folder.path, kept.name)
        folder = Location.parse(moved)
        return Images(teacher, folder, Manifest.read(folder), owned=kept)


def search(
    teacher: Teacher,
    images: Images,
    *,
    seed: int = 0,
    run_dir: str | Path | None = None,
    address: str = INLINE,
    cluster: Mapping[str, Any] | None = None,
    listener: Listener | None = None,
    **settings: Any,
) -> Found:
    """Find an architecture on synthetic images.

    Args:
        teacher: The teacher that the images were made from; it labels them.
        images: The images to search on.
        seed: The same seed finds the same architecture.
        run_dir: The folder or URI in which unfinished work is kept.
        address: ``inline``, or the address of a Ray cluster.
        cluster: Other settings of the section ``cluster``, such as ``{"search": {"cpus": 2}}``.
        listener: Receives progress and messages.
        settings: Settings of the section ``search``, such as ``space="nasbench201", algorithm="spos", max_macs="50%"``.

    Raises:
        ConfigError: a setting is wrong, or the images were made from another teacher.
        GenotypeError: no architecture is within the limit.
    """
    images.check_teacher(teacher)
    with _session(teacher, {"search": settings}, seed, run_dir, address, cluster, listener) as session:
        stage = Search(session, images)
        stage.check()
        outcome = stage.finish()
        record = outcome.record
        trials = (outcome.location / "trials.json").read_models(ComparedTrial)
        return Found(
            session.architecture(record.space_config, record.genotype),
            tuple(finalist for trial in trials for finalist in trial.finalists),
            {trial.trial: trial.history for trial in trials},
            record,
        )


def retrain(
    teacher: Teacher,
    images: Images,
    architecture: Architecture,
    *,
    seed: int = 0,
    run_dir: str | Path | None = None,
    address: str = INLINE,
    cluster: Mapping[str, Any] | None = None,
    listener: Listener | None = None,
    **settings: Any,
) -> TrainedNetwork:
    """Train an architecture from scratch on synthetic images alone.

    Args:
        teacher: The teacher that the images were made from; the network learns from it.
        images: The training images.
        architecture: The architecture, such as ``found.architecture``.
        seed: The same seed gives the same weights.
        run_dir: The folder or URI in which unfinished work is kept.
        address: ``inline``, or the address of a Ray cluster.
        cluster: Other settings of the section ``cluster``, such as ``{"retraining": {"cpus": 2}}``.
        listener: Receives progress and messages.
        settings: Settings of the section ``retraining``, such as ``epochs=100``, except ``baseline``.

    Raises:
        ConfigError: a setting is wrong, or the images were made from another teacher.
    """
    images.check_teacher(teacher)
    sections = {"retraining": settings, "search": {"space": architecture.config}}
    with _session(teacher, sections, seed, run_dir, address, cluster, listener) as session:
        if "baseline" in settings and session.config.retraining.baseline:
            raise ConfigError(
                f"retraining.baseline ({settings['baseline']}) trains a second network, and retrain returns one. Remove it, "
                "and call retrain with a random architecture of the same space to compare with."
            )
        folder = Retraining(session, architecture, images).finish().location
        _, network = load_network(folder)
        history: list[EpochFigures] = (folder / "history.json").read_json()
        return TrainedNetwork(
            network, architecture, teacher.image_shape, teacher.mean, teacher.std, history, images.canvas_size,
            teacher.class_names, teacher.resizing,
        )  # fmt: skip


def evaluate(
    teacher: Teacher,
    networks: nn.Module | Mapping[str, nn.Module],
    dataset: ImageDataset | DatasetConfig | Mapping[str, Any] | str,
) -> dict[str, float]:
    """Return the accuracy of networks on labelled real images. Copies are measured, and the networks stay unchanged.

    Args:
        teacher: The teacher, which defines how images are prepared; it is measured, too.
        networks: One network, or several by name. A plain `nn.Module` takes normalised images, as the teacher does.
        dataset: Settings as in the experiment file, such as ``{"kind": "image_folder", "path": "photos"}`` or ``"digits"``,
            or an object with ``description`` whose items are (PIL image, class index).

    Returns:
        Top-1 accuracies in [0, 1], by the names given or ``network``, and the ``teacher``'s.

    Raises:
        ConfigError: a setting is wrong; or a network is called ``teacher``, cannot be copied, or was trained on images
            that were prepared in another way.
        DatasetError: an image or a label does not fit the teacher.
    """
    named = dict(networks) if isinstance(networks, Mapping) else {"network": networks}
    if _TEACHER in named:
        raise ConfigError(
            f"networks ({', '.join(map(str, named))}): {_TEACHER} names the teacher. Choose another name."
        )
    for name, network in named.items():
        if isinstance(network, TrainedNetwork):
            network.check_teacher(teacher, f"networks.{name}")
    opened = _open(dataset)
    copies = {name: _copy(name, network) for name, network in {_TEACHER: teacher.model, **named}.items()}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with _random_states_kept():
        return evaluate_networks(copies, teacher, opened, device)


def _open(dataset: ImageDataset | DatasetConfig | Mapping[str, Any] | str) -> ImageDataset:
    """Return a labelled dataset from its settings, or the given one.

    Raises:
        ConfigError: the argument is neither settings nor a dataset.
        DatasetError: the dataset cannot be opened.
    """
    settings: Any = dataset
    if isinstance(settings, str | Mapping):
        values = settings if isinstance(settings, str) else dict(settings)
        settings = make_experiment({"teacher": "digits", "evaluation": {"dataset": values}}).evaluation.dataset
    if isinstance(settings, DatasetSourceConfig):
        return open_dataset(settings)
    missing = [name for name in ("__len__", "__getitem__", "description") if not hasattr(settings, name)]
    if missing:
        raise ConfigError(
            f"dataset ({type(settings).__name__}) lacks {', '.join(missing)}. Give settings, such as "
            '{"kind": "image_folder", "path": "photos"}, or an object that has all of these.'
        )
    opened: ImageDataset = settings
    return opened


def _copy(name: str, network: nn.Module) -> nn.Module:
    """Return a copy of a network that takes normalised images.

    Raises:
        ConfigError: the network cannot be copied.
    """
    plain = network.network if isinstance(network, TrainedNetwork) else network
    try:
        return copy_network(plain)
    except Exception as error:  # whatever an attribute of the network raises
        raise ConfigError(cannot_be_copied(f"networks.{name}", error)) from error


def _shards_for(num_images: int, settings: Mapping[str, Any]) -> SettingValues:
    """Return the shards that hold ``num_images`` images, and the synthesizer with its batch size, as settings.

    Raises:
        ConfigError: a setting is wrong, or the images do not fill whole batches.
    """
    try:
        number = index(num_images)
    except TypeError as error:
        raise ConfigError(f"num_images ({num_images!r}) must be a whole number above 0, such as 1000.") from error
    for name in ("num_shards", "images_per_shard"):
        if name in settings:
            raise ConfigError(f"num_images ({number}) and {name} ({settings[name]}) are both given. Keep one.")
    config = _check_synthesis(settings)
    rounds, method, given = config.method.num_kept_rounds, config.method, settings.get("method", {})
    per_round, rest = divmod(number, rounds)
    is_fixed = isinstance(given, SynthesizerConfig) or "batch_size" in given
    batch = method.batch_size if is_fixed else min(method.batch_size, max(1, per_round))
    if number < 1 or rest or per_round % batch:
        step = rounds * batch
        raise ConfigError(
            f"num_images ({number}) must be a multiple of rounds x batch_size ({rounds} x {batch} = {step}), so that "
            f"every batch is whole. Next multiple: {max(1, -(-number // step)) * step}."
        )
    batches = per_round // batch
    shards = next(n for n in range(math.ceil(per_round / max(_MOST_PER_SHARD, batch)), batches + 1) if batches % n == 0)
    method = method.model_copy(update={"batch_size": batch})
    return {"num_shards": shards, "images_per_shard": per_round // shards, "method": method}


def _check_synthesis(settings: Mapping[str, Any]) -> SynthesisConfig:
    """Return validated settings of synthesis whose shards are not chosen yet.

    Raises:
        ConfigError: a setting is wrong.
    """
    method = settings.get("method")
    values = method.model_dump() if isinstance(method, SynthesizerConfig) else method
    batch = str(values.get("batch_size")) if isinstance(values, Mapping) else ""
    one_batch = {"images_per_shard": int(batch)} if batch.isdecimal() and int(batch) else {}  # any batch size fits
    return make_experiment({"teacher": "digits", "synthesis": {**settings, **one_batch}}).synthesis


@contextmanager
def _session(
    teacher: Teacher,
    sections: Mapping[str, Mapping[str, Any]],
    seed: int,
    run_dir: str | Path | None,
    address: str,
    cluster: Mapping[str, Any] | None,
    listener: Listener | None,
) -> Iterator[Session]:
    """Open a session for one step. The global random states are restored afterwards.

    Raises:
        ConfigError: a setting is wrong.
    """
    if cluster and "address" in cluster:
        raise ConfigError(f"cluster.address ({cluster['address']}) must be given as address. Remove it from cluster.")
    with _random_states_kept(), tempfile.TemporaryDirectory(prefix="dfnas-") as scratch:
        values = {
            "teacher": "digits",  # not used: the teacher is given
            "run_dir": str(run_dir or scratch),
            "seed": seed,
            "cluster": {**(cluster or {}), "address": address},
            **sections,
        }
        config = make_experiment(values)
        with Session(config, listener, teacher=teacher).opened() as session:
            yield session


@contextmanager
def _random_states_kept() -> Iterator[None]:
    """Restore the global random states of torch, numpy and random after the block."""
    gpus = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=gpus):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
