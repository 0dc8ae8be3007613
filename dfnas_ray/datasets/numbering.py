"""The numbering of classes: a dataset and a teacher must number the same classes in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import scipy  # its modules are imported when they are first used
from pydantic import AfterValidator, BeforeValidator

from dfnas_ray.errors import DatasetError, printable, shortened

_SPLITS = ("train", "training", "test", "testing", "val", "valid", "validation", "dev")
_MAX_CLASSES = 2000  # limit for finding a better numbering, whose time grows with the cube of the classes
_FEWEST_IMAGES = 5  # per class on average, so that a numbering means something
_CLEARLY_BETTER, _GOOD = 0.3, 0.5


def _as_names(values: Any) -> Any:
    """Convert whole numbers to names, because YAML reads the name 0 as a number."""
    if not isinstance(values, list | tuple):
        return values
    return [str(value) if type(value) is int else value for value in values]


def _different(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if names and (twice := [name for number, name in enumerate(names) if name in names[:number]]):
        raise ValueError(f"{listed(twice)} is given twice: each place in the list is a class of the teacher's")
    return names


ClassNames = Annotated[tuple[str, ...] | None, BeforeValidator(_as_names), AfterValidator(_different)]
"""Setting: names of classes in the order of the teacher's outputs."""


@dataclass(frozen=True)
class Numbering:
    """The classes of a dataset, in the order of their labels.

    Attributes:
        names: The names of the classes.
        by: ``order``: a label is a place in the list of names, so the list must be the teacher's. ``number``: a name is
            the number of the class itself, so a class without images shifts no other class.
        is_given: Whether the user has given the names, as the setting ``classes`` does.
    """

    names: tuple[str, ...]
    by: Literal["order", "number"] = "order"
    is_given: bool = False

    def check(self, num_classes: int, setting: str, description: str) -> None:
        """Make sure that the labels can be a teacher's classes.

        Raises:
            DatasetError: there are too many classes, or too few, unless names are numbers.
        """
        count = len(self.names)
        if count == num_classes or (self.by == "number" and count < num_classes):
            return
        raise DatasetError(
            f"{setting}: {description} has {count:,} classes ({listed(self.names)}), and the teacher {num_classes:,}. Labels are "
            f"places in this list, so it must be the teacher's: name all its classes, in its order, in {setting}.classes."
        )


def number_names(
    names: Sequence[str], classes: Sequence[str] | None, where: str, what: str = "folders"
) -> tuple[list[int], Numbering]:
    """Return the label of each name, and the numbering.

    If the user gives ``classes``, they decide. Otherwise, names that are numbers from 0 on are their own labels. Other
    numbers, such as 1 to K, are numbered in their order, and other names in alphabetical order.

    Args:
        names: The names of the folders, or the distinct labels of a table.
        classes: Names in the teacher's order, if the user gave them.
        where: The name of the dataset in errors.
        what: What the names belong to, for errors: folders or labels.

    Raises:
        DatasetError: a name is not among the given classes, or folders look like splits.
    """
    if classes is not None:
        class_of = {name: number for number, name in reversed(list(enumerate(classes)))}
        strangers = [name for name in names if name not in class_of]
        if strangers:
            raise DatasetError(
                f"{where}: the {what} {listed(strangers)} are none of the {len(classes):,} classes that are given."
            )
        return [class_of[name] for name in names], Numbering(tuple(classes), is_given=True)
    if len(names) > 1 and all(name.lower() in _SPLITS for name in names):
        raise DatasetError(
            f"{where} has the sub-folders {listed(names)}, which are splits and not classes. Give one of them."
        )
    numbers = (
        [int(name) for name in names]
        if all(name.isascii() and name.isdigit() and len(name) < 7 for name in names)
        else []
    )
    if len(set(numbers)) == len(names) > 0:
        if 0 in numbers:
            return numbers, Numbering(tuple(str(number) for number in range(max(numbers) + 1)), "number")
        order = sorted(numbers)
        place = {number: label for label, number in enumerate(order)}
        return [place[number] for number in numbers], Numbering(tuple(map(str, order)))
    order_of_names = sorted(names)
    place_of_name = {name: label for label, name in enumerate(order_of_names)}
    return [place_of_name[name] for name in names], Numbering(tuple(order_of_names))


def classes_of_labels(names: Sequence[str] | None, given: Sequence[str]) -> dict[int, int]:
    """Return the class of each label whose name is among the given ones.

    Args:
        names: Names of the labels 0, 1, ... If there are none, the number of a label is its name.
        given: Names in the teacher's order.
    """
    if names is None:
        return {int(name): place for place, name in enumerate(given) if name.isascii() and name.isdigit()}
    place_of = {name: place for place, name in reversed(list(enumerate(given)))}
    return {label: place_of[name] for label, name in enumerate(names) if name in place_of}


def better_numbering(confusion: np.ndarray, names: Sequence[str] | None) -> str | None:
    """Return a sentence for the user if a network would be right far more often with another numbering of the labels.

    Args:
        confusion: (K, K), the number of images by label and by predicted class.
        names: Names of the labels, if they are known.
    """
    images, num_classes = int(confusion.sum()), len(confusion)
    if num_classes > _MAX_CLASSES or images < _FEWEST_IMAGES * max(1, int((confusion.sum(1) > 0).sum())):
        return None
    labels, classes = scipy.optimize.linear_sum_assignment(-confusion)
    before, after = np.trace(confusion) / images, confusion[labels, classes].sum() / images
    if after < max(_GOOD, before + _CLEARLY_BETTER):
        return None
    moved = [
        f"label {label}{f' ({shortened(names[label], 30)})' if names else ''} as class {found}"
        for label, found in zip(labels, classes, strict=True)
        if label != found
    ]
    more = f" and {len(moved) - 4} more" if len(moved) > 4 else ""
    return (
        f"It is right on {before:.0%} of the images, and would be on {after:.0%} if the labels were numbered otherwise: "
        f"{', '.join(moved[:4])}{more}. The dataset and the teacher seem to number their classes differently."
    )


def listed(names: Sequence[str]) -> str:
    """Return up to five names; if there are more, also the last one."""
    shown = ", ".join(shortened(printable(name), 40) for name in names[:5])
    return f"{shown}, ... {shortened(printable(names[-1]), 40)}" if len(names) > 5 else shown
