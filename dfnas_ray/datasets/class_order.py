"""The names of a dataset's classes beside the teacher's: the same class must have the same number in both."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from dfnas_ray.config.yaml_text import write_yaml
from dfnas_ray.datasets.numbering import Numbering, listed
from dfnas_ray.errors import DatasetError
from dfnas_ray.progress import say_once

_MOST_CHARACTERS = 500  # of the line of names in an error, which has 1,000 at most


def compare_names(numbering: Numbering, names: Sequence[str], setting: str, description: str) -> None:
    """Compare the names of a dataset's classes with the teacher's, where labels are places in the list of names.

    Case, spaces, underscores and hyphens do not matter, and neither do synonyms after a comma. Names that occur twice
    are not compared. What is not certain is said once, by the logger.

    Args:
        numbering: The classes of the dataset.
        names: Names of the teacher's classes, in the order of its outputs.
        setting: The name of the dataset in errors.
        description: The description of the dataset.

    Raises:
        DatasetError: both have the same names in another order; or at least half of the names are the teacher's, and at
            least half of those have another number there. If the user gives ``classes``, only the first is an error.
    """
    if numbering.by != "order":
        return
    theirs, ours = ([_plain(name) for name in each] for each in (numbering.names, names))
    places = _places(ours)
    common = [label for name, label in _places(theirs).items() if name in places]
    moved = [label for label in common if places[theirs[label]] != label]
    what = f"{setting}: {description}"
    if theirs != ours and sorted(theirs) == sorted(ours):
        label = next(label for label, (one, other) in enumerate(zip(theirs, ours, strict=True)) if one != other)
        raise DatasetError(
            f"{what} and the teacher have the same classes in another order: class {label} is {numbering.names[label]} there, "
            f"and {names[label]} for the teacher. {_remedy(numbering, theirs, ours, setting)}"
        )
    if numbering.is_given or (common and not moved):
        return  # names that are only in one list may mean the same class
    lists = f"{what} has the classes {listed(numbering.names)}, and the teacher {listed(names)}."
    if not common:
        say_once(
            f"{lists} No name is in both lists, so they cannot be compared. Labels are places in the list: make sure that both "
            f"have the same order, or give the dataset's names in the teacher's order in {setting}.classes."
        )
        return
    label = moved[0]
    where = (
        f"{len(moved):,} of the {len(common):,} names in both lists have other numbers there, such as {numbering.names[label]}: "
        f"{label} in the dataset, {places[theirs[label]]} for the teacher. Give the dataset's names in the teacher's order in "
        f"{setting}.classes."
    )
    if 2 * len(common) >= len(theirs) and 2 * len(moved) >= len(common):
        raise DatasetError(f"{lists} {where}")
    say_once(f"{lists} {where}")


def _plain(name: str) -> str:
    """Return a name as it is compared."""
    first = name.split(",")[0]
    return re.sub(r"[\s_-]+", "", first if first.strip() else name).casefold()


def _places(names: Sequence[str]) -> dict[str, int]:
    """Return the place of each name that occurs once."""
    counts = Counter(names)
    return {name: place for place, name in enumerate(names) if counts[name] == 1}


def _remedy(numbering: Numbering, theirs: Sequence[str], ours: Sequence[str], setting: str) -> str:
    """Return what to do about the same names in another order: if it is short enough, with the line to write."""
    if numbering.is_given:
        return f"Correct {setting}.classes or teacher.class_names."
    written: dict[str, list[str]] = {}
    for plain, name in zip(theirs, numbering.names, strict=True):
        written.setdefault(plain, []).append(name)
    in_order = [written[plain].pop(0) for plain in ours]
    line = f"classes: [{', '.join(_scalar(name) for name in in_order)}]"
    if len(line) > _MOST_CHARACTERS:
        return f"Give the teacher's order in {setting}.classes, or correct teacher.class_names."
    return f"Give the teacher's order in {setting}, or correct teacher.class_names:\n{line}"


def _scalar(name: str) -> str:
    """Return a name as an entry of a list of YAML in one line."""
    return write_yaml([name], is_compact=True).strip()[1:-1]
