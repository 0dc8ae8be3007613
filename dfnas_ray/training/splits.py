"""Splits of a set of images into two sides. An image keeps its side when more images come."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from dfnas_ray import formatting
from dfnas_ray.errors import ConfigError
from dfnas_ray.seeding import derive_seed
from dfnas_ray.storage.shards import Ids

Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
"""For each image, whether it is chosen: (N,)."""


def split_mask(ids: Ids, fraction: float, seed: int, name: str = "validation-split") -> Mask:
    """Return a mask (N,) of the images on the side of a split that has the share ``fraction``.

    An image's side depends only on its id, the seed and the name of the split, so it does not change when more shards
    arrive.
    """
    mask: Mask = _places(ids, seed, name) < fraction
    return mask


def check_split(ids: Ids, fraction: float, seed: int) -> None:
    """Make sure that some images are held out for validation, and that some are left for training.

    Args:
        ids: The ids (N,) of the images, of the finished set if it is growing.
        fraction: The value of ``search.validation_fraction``.
        seed: The seed of the split.

    Raises:
        ConfigError: one side is empty; says which, and from which value on it is not.
    """
    places = np.sort(_places(ids, seed, "validation-split"))
    held_out = int((places < fraction).sum())
    if 0 < held_out < len(places):
        return
    count = formatting.plural(len(places), "image")
    if len(places) < 2:
        problem = f"is the share of images for validation, and {count} cannot be split. Make"
    elif not held_out:
        enough = (places[0] + places[1]) / 2
        problem = f"holds out none of {count} for validation. Set it to {enough:.3g} or more, or make"
    else:
        little = (places[-2] + places[-1]) / 2
        problem = f"holds out all of {count}, and leaves none for training. Set it to {little:.3g} or less, or make"
    raise ConfigError(
        f"search.validation_fraction ({fraction:g}) {problem} more images: synthesis.num_shards, or num_images of "
        "search.images or retraining.images."
    )


def _places(ids: Ids, seed: int, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the place of each image in [0, 1), (N,); the images below the share of a split are on its smaller side."""
    # One round of the splitmix64 finaliser: enough to make neighbouring ids independent.
    with np.errstate(over="ignore"):
        z = ids + np.uint64(derive_seed(seed, name))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    places: np.ndarray[Any, np.dtype[np.float64]] = (z >> np.uint64(11)).astype(np.float64) / 2**53
    return places
