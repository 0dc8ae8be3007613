"""How good synthetic images are, measured without a real one: semantics, diversity, domain gap.

Source: the three criteria of Liu et al. 2022, arXiv:2112.02086; the measures are this project's, each stated below.
Cost: one forward pass of the teacher over the set, and nearest neighbours within each class.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from dfnas_ray.ops.batching import batch_size_for
from dfnas_ray.ops.networks import device_of
from dfnas_ray.ops.regions import center_crop
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.synthesis.observed import FeatureTap, ObservedTeacher
from dfnas_ray.teachers.base import Teacher

_BATCH_SIZE = 250
_MAX_PER_CLASS = 200  # neighbours are searched among this many images of a class
_MAX_IN_ALL = 2_000  # images of the whole set that are compared with each other
_DUPLICATE_SIMILARITY = 0.999
_FILE = "quality.json"

Quality: TypeAlias = dict[str, float]
"""The measures of a set of images, by name."""


class QualityReport(BaseModel):
    """How good a finished set is: ``quality.json``.

    Attributes:
        overall: The measures of the whole set.
        rounds: The measures of each round of calibration.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    overall: Quality
    rounds: dict[int, Quality]

    @property
    def first(self) -> Quality:
        """The measures of the first round, whose images asked for one class each."""
        return self.rounds[min(self.rounds)] if self.rounds else self.overall

    @classmethod
    def find(cls, folder: Location) -> QualityReport | None:
        """Return the report in the folder of a set; None if there is none.

        Raises:
            StorageError: the file is of another version, or was altered.
        """
        file = folder / _FILE
        return file.read_model(cls) if file.exists() else None

    def write(self, folder: Location) -> None:
        """Write the report into the folder of a set."""
        (folder / _FILE).write_model(self)


def classes_seen(logits: Tensor) -> float:
    """Return the share of classes that the teacher sees often: at least a third of an equal share of the images."""
    counts = torch.bincount(logits.argmax(1), minlength=logits.shape[1])
    return float((counts >= len(logits) / logits.shape[1] / 3).float().mean())


def semantics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return measures of what the teacher sees in images.

    They follow from its logits, (N, num_classes), and the classes asked for, ``labels`` (N,).

    ``confidence``: mean highest probability. ``entropy``: mean entropy in nats. ``agreement``: share of images whose
    most likely class is the one asked for. ``classes``: see `classes_seen`. ``largest_class``: share of the images in the
    class that the teacher sees most often.
    """
    log_probabilities = F.log_softmax(logits.float(), dim=1)
    probabilities = log_probabilities.exp()
    return {
        "confidence": float(probabilities.max(dim=1).values.mean()),
        "entropy": float(-(probabilities * log_probabilities).sum(dim=1).mean()),
        "agreement": float((logits.argmax(1) == labels).float().mean()),
        "classes": classes_seen(logits),
        "largest_class": float(torch.bincount(logits.argmax(1)).max() / len(logits)),
    }


def diversity(features: np.ndarray[Any, Any], classes: np.ndarray[Any, Any]) -> dict[str, float]:
    """Return how different the images of one class are, from features (N, D) and classes (N,).

    ``distance``: mean pairwise cosine distance within a class. ``relative``: the same as a share of the mean distance of
    any two images, because the scale of distances depends on the teacher. ``duplicates``: share of images whose nearest
    neighbour in the class has a cosine similarity above 0.999. All are NaN if no class has two images.
    """
    from sklearn.metrics import pairwise_distances

    distances, duplicates = [], []
    for label in np.unique(classes):
        members = features[classes == label][:_MAX_PER_CLASS]
        if len(members) < 2:
            continue
        pairwise = pairwise_distances(members, metric="cosine")
        distances.append(pairwise[np.triu_indices(len(members), 1)].mean())
        np.fill_diagonal(pairwise, np.inf)
        duplicates.extend(pairwise.min(axis=1) < 1 - _DUPLICATE_SIMILARITY)
    if not distances:
        return {"distance": math.nan, "relative": math.nan, "duplicates": math.nan}
    distance, of_any = float(np.mean(distances)), _mean_distance(features)
    relative = distance / of_any if of_any > 0 else math.nan
    return {"distance": distance, "relative": relative, "duplicates": float(np.mean(duplicates))}


def _mean_distance(features: np.ndarray[Any, Any]) -> float:
    """Return the mean cosine distance of any two images, from a sample spread evenly over the set."""
    from sklearn.metrics import pairwise_distances

    step = -(-len(features) // _MAX_IN_ALL)
    some = features[::step]
    return float(pairwise_distances(some, metric="cosine")[np.triu_indices(len(some), 1)].mean())


def domain_gap(
    means: list[Tensor], variances: list[Tensor], running_means: list[Tensor], running_vars: list[Tensor]
) -> float:
    r"""Return the mean over BatchNorm layers of the distance between Gaussians with these statistics, each (C,).

    Per layer, the squared 2-Wasserstein distance of diagonal Gaussians in units of the teacher's own variance:
    :math:`\frac1C \sum_c [(\mu_c - \hat\mu_c)^2 + (\sigma_c - \hat\sigma_c)^2] / \hat\sigma_c^2`. NaN without layers.
    """
    gaps = [
        (((mean - running_mean) ** 2 + (var.sqrt() - running_var.sqrt()) ** 2) / running_var.clamp_min(1e-6)).mean()
        for mean, var, running_mean, running_var in zip(means, variances, running_means, running_vars, strict=True)
    ]
    return float(torch.stack(gaps).mean()) if gaps else math.nan


@torch.no_grad()
def measure_quality(teacher: Teacher, images: SyntheticImages) -> QualityReport:
    """Measure the whole set and each calibration round on the stored, centred images."""
    observed = ObservedTeacher(teacher.model)
    features = FeatureTap(observed)
    device = device_of(observed)
    batch_size = batch_size_for(teacher.image_shape, _BATCH_SIZE, device)
    rounds = {}
    collected = []
    for round_index in np.unique(images.rounds):
        rows = np.flatnonzero(images.rounds == round_index)
        statistics = _Statistics()
        part_features = []
        for start in range(0, len(rows), batch_size):
            canvases = torch.from_numpy(images.images[rows[start : start + batch_size]]).to(device)
            view = center_crop(canvases, teacher.image_shape[1:])
            _, bn_inputs = observed(teacher.normalize(view))
            statistics.add([(entry.x, entry.running_mean, entry.running_var) for entry in bn_inputs])
            part_features.append(features.take().cpu().numpy())
        stacked = np.concatenate(part_features)
        collected.append((rows, stacked, statistics))
        rounds[int(round_index)] = _summary(images, rows, stacked, statistics)
    every_row = np.concatenate([rows for rows, _, _ in collected])
    total = _Statistics.merge([statistics for _, _, statistics in collected])
    overall = _summary(images, every_row, np.concatenate([stacked for _, stacked, _ in collected]), total)
    return QualityReport(overall=overall, rounds=rounds)


def _summary(
    images: SyntheticImages, rows: np.ndarray[Any, Any], features: np.ndarray[Any, Any], statistics: _Statistics
) -> Quality:
    """Return the measures of the images at ``rows``, whose features are given in the same order."""
    labels = images.labels[rows]
    return {
        **semantics(torch.from_numpy(images.logits[rows]), torch.from_numpy(labels)),
        **{f"diversity_{name}": value for name, value in diversity(features, labels).items()},
        "domain_gap": statistics.gap(),
    }


class _Statistics:
    """Sums over the set for each BatchNorm layer, from which its mean and variance are computed."""

    def __init__(self) -> None:
        self.count: list[float] = []
        self.sums: list[Tensor] = []
        self.squares: list[Tensor] = []
        self.running: list[tuple[Tensor, Tensor]] = []

    def add(self, layers: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        for index, (x, running_mean, running_var) in enumerate(layers):
            dims = [0, *range(2, x.ndim)]
            x = x.double()
            if index == len(self.sums):
                zeros = torch.zeros_like(running_mean, dtype=torch.float64)
                self.count.append(0.0)
                self.sums.append(zeros)
                self.squares.append(zeros)
                self.running.append((running_mean.double(), running_var.double()))
            self.count[index] += x.numel() / x.shape[1]
            self.sums[index] = self.sums[index] + x.sum(dims)
            self.squares[index] = self.squares[index] + (x**2).sum(dims)

    @staticmethod
    def merge(parts: list[_Statistics]) -> _Statistics:
        total = _Statistics()
        total.running = parts[0].running
        total.count = [sum(counts) for counts in zip(*(part.count for part in parts), strict=True)]
        total.sums = [torch.stack(sums).sum(0) for sums in zip(*(part.sums for part in parts), strict=True)]
        total.squares = [torch.stack(sums).sum(0) for sums in zip(*(part.squares for part in parts), strict=True)]
        return total

    def gap(self) -> float:
        means = [total / count for total, count in zip(self.sums, self.count, strict=True)]
        variances = [
            (square / count - mean**2).clamp_min(0)
            for square, count, mean in zip(self.squares, self.count, means, strict=True)
        ]
        return domain_gap(means, variances, [mean for mean, _ in self.running], [var for _, var in self.running])
