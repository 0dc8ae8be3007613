"""What a table says: differences by seed, margins, and chance."""

import pytest

from dfnas_ray.comparison.config import ComparisonConfig
from dfnas_ray.comparison.result import FoundArchitecture, verdict
from dfnas_ray.comparison.rows import rows_of
from dfnas_ray.comparison.statistics import Spread


def found(variant, seed, accuracy, random_mean=80.0, best=95.0):
    return FoundArchitecture(
        variant=variant, seed=seed, algorithm="spos", genotype="00", macs=1, accuracy=accuracy, random_mean=random_mean,
        random=3, best=best,
    )  # fmt: skip


def rows(accuracies, margins=None):
    config = ComparisonConfig(variants={name: {} for name in accuracies}, margins=margins or {})
    searched = [found(name, seed, value) for name, values in accuracies.items() for seed, value in enumerate(values)]
    return {(row.figure, row.variant): row for row in rows_of(config, dict.fromkeys(accuracies, True), searched, None)}


def test_differences_are_paired_by_seed_and_hold_without_seeds_that_one_lacks():
    by = rows({"real": [90, 92, 94], "synthetic": [89, None, 93]})
    difference = by["accuracy", "synthetic"].difference
    assert difference.per_seed == (-1, -1)
    assert by["accuracy", "synthetic"].value.per_seed == (89, 93)
    assert by["accuracy", "synthetic"].verdict == "worse"
    assert by["accuracy", "real"].difference is None


def test_a_margin_says_what_does_not_matter():
    accuracies = {"real": [90.0, 92.0, 94.0], "synthetic": [89.9, 92.1, 93.9]}
    assert rows(accuracies)["accuracy", "synthetic"].verdict == "undecided"
    assert rows(accuracies, {"accuracy": 0.5})["accuracy", "synthetic"].verdict == "not worse by the margin"


def test_what_is_found_is_held_against_chance():
    by = rows({"real": [82.0, 82.1, 81.9], "noise": [80.0, 82.0, 78.0]})
    assert by["gain", "real"].verdict == "better than chance"
    assert by["gain", "noise"].verdict == "not surely better than chance"
    assert by["regret", "noise"].value.mean == pytest.approx(15)


@pytest.mark.parametrize(
    ("per_seed", "margin", "larger_is_worse", "said"),
    [
        ([1.0, 1.1, 0.9], None, False, "better"),
        ([1.0, 1.1, 0.9], None, True, "worse"),
        ([-1.0, -1.1, -0.9], None, True, "better"),
        ([-1.0, -1.1, -0.9], 2, False, "not worse by the margin"),
        ([-1.0, 1.0, 0.1], 0.1, False, "undecided"),
        ([5.0], None, False, "one seed: no interval"),
    ],
)
def test_a_verdict_follows_from_the_interval(per_seed, margin, larger_is_worse, said):
    assert verdict(Spread.over_seeds(per_seed), margin, larger_is_worse) == said
