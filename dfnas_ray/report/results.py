"""Compare the networks on real images: rows of the table, intervals, and a sentence that sums them up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

from dfnas_ray.comparison.statistics import mcnemar
from dfnas_ray.formatting import capitalised, percent, plural, points
from dfnas_ray.workflow.evaluation import NOT_DATA_FREE, ROLES, TEACHER, EvaluationRecord, Role
from dfnas_ray.workflow.retraining import Baseline, Retraining


def wilson_interval(accuracy: float, num_images: int, level: float = 0.95) -> tuple[float, float]:
    r"""Return Wilson's score interval of a share of ``num_images`` trials.

    :math:`\frac{p + z^2/2n \pm z\sqrt{p(1-p)/n + z^2/4n^2}}{1 + z^2/n}`. Source: Wilson 1927, JASA 22, 209-212.

    Raises:
        ValueError: ``num_images`` is not positive.
    """
    if num_images < 1:
        raise ValueError(f"num_images ({num_images}) must be at least 1.")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre = accuracy + z**2 / (2 * num_images)
    margin = z * math.sqrt(accuracy * (1 - accuracy) / num_images + z**2 / (4 * num_images**2))
    scale = 1 + z**2 / num_images
    return max(0.0, (centre - margin) / scale), min(1.0, (centre + margin) / scale)


@dataclass(frozen=True)
class Row:
    """One network of the comparison; position, start and width are percentages of the interval axis."""

    role: str
    title: str
    short: str
    architecture: str
    params: int
    macs: int
    accuracy: float
    low: float
    high: float
    relative_params: float | None
    relative_macs: float | None
    position: float
    start: float
    width: float

    @property
    def is_main(self) -> bool:
        """Whether it is the network that the report is about."""
        return self.role == Retraining.name


@dataclass(frozen=True)
class Comparison:
    """The rows of the networks, and the ends of the axis on which their intervals are drawn."""

    rows: list[Row]
    num_images: int
    dataset: str
    axis: tuple[float, float]
    only_right: tuple[int, int] | None = None

    def row(self, role: str) -> Row | None:
        """Return a network by its role, one of `ROLES`."""
        return next((row for row in self.rows if row.role == role), None)


def compare(record: EvaluationRecord, roles: Mapping[str, Role] = ROLES) -> Comparison:
    """Return the table of the networks in the evaluation's record.

    Args:
        record: The record of the evaluation.
        roles: The names of the networks, by role.
    """
    networks = record.in_order
    intervals = {name: wilson_interval(network.accuracy, record.images) for name, network in networks.items()}
    lowest, highest = min(low for low, _ in intervals.values()), max(high for _, high in intervals.values())
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.25, 1.0) if highest - lowest <= 5 * step or step == 1.0)
    axis = (math.floor(lowest / step + 1e-9) * step, min(1.0, math.ceil(highest / step - 1e-9) * step))
    span = max(axis[1] - axis[0], 1e-9)
    teacher = networks.get(TEACHER)
    rows = []
    for name, network in networks.items():
        low, high = intervals[name]
        role = roles.get(name, Role(name, name))
        rows.append(
            Row(
                name,
                capitalised(role.title) + ("" if network.data_free else f" ({NOT_DATA_FREE})"),
                role.short,
                network.architecture,
                network.params,
                network.macs,
                network.accuracy,
                low,
                high,
                network.params / teacher.params if teacher and teacher.params else None,
                network.macs / teacher.macs if teacher and teacher.macs else None,
                round(100 * (network.accuracy - axis[0]) / span, 2),
                round(100 * (low - axis[0]) / span, 2),
                round(100 * (high - low) / span, 2),
            )
        )
    return Comparison(rows, record.images, record.dataset, axis, record.only_right)


def _apart(comparison: Comparison, searched: Row, baseline: Row) -> str:
    """Return a sentence on whether the images tell the searched and the random network apart."""
    if comparison.only_right is not None:
        only_searched, only_baseline = comparison.only_right
        p = mcnemar(only_searched, only_baseline)
        told = (
            f" Only the searched network is right on {plural(only_searched, 'image')}, only the random one on "
            f"{only_baseline:,}: "
        )
        if p < 0.05:
            return f"{told}they differ (McNemar's exact test, p = {p:.2g})."
        return f"{told}{plural(comparison.num_images, 'image')} cannot tell the two apart (McNemar's exact test, p = {p:.2g})."
    if searched.low > baseline.high or baseline.low > searched.high:  # a record of an older version
        return " The 95 % intervals of the searched and the random network do not overlap."
    return (
        " The 95 % intervals of the searched and the random network overlap: "
        f"{plural(comparison.num_images, 'image')} cannot tell the two apart with certainty."
    )


def verdict(comparison: Comparison) -> str:
    """Return sentences on what the table shows, and whether its images can tell the networks apart."""
    searched, teacher, baseline = (comparison.row(role) for role in (Retraining.name, TEACHER, Baseline.name))
    if searched is None:
        return ""
    sentence = (
        f"The {searched.title.lower()} network classifies {percent(searched.accuracy)} of "
        f"{plural(comparison.num_images, 'real image')} correctly"
    )
    against = []
    if teacher is not None:
        against.append(f"{points(searched.accuracy - teacher.accuracy)} points against its teacher")
    if baseline is not None:
        against.append(
            f"{points(searched.accuracy - baseline.accuracy)} points against a random architecture of the same budget"
        )
    if against:
        sentence += ": " + " and ".join(against)
    sentence += "."
    if baseline is not None:
        sentence += _apart(comparison, searched, baseline)
    return sentence
