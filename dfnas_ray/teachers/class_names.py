"""The names of a teacher's classes, from a list in the settings or from a file, which may come from a stranger."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator

from dfnas_ray.errors import TeacherError, first_line, printable, shortened
from dfnas_ray.storage.location import user_path

ClassNames: TypeAlias = tuple[str, ...]
"""Names in the order of a teacher's outputs."""

_SETTING = "teacher.class_names"
_MAX_BYTES = 16 * 2**20
_MAX_LENGTH = 200  # characters of one name
_FORMS = (
    "It must be a text file with one name per line, or JSON: a list of names, or an object such as "
    '{"0": "cat", "1": "dog"}, {"cat": 0, "dog": 1} or {"id2label": {...}}'
)


def _take(value: Any) -> Any:
    """Return the path of a file, or the names as text: YAML reads a class name such as 7 as a number."""
    if isinstance(value, str | Path) and str(value):
        return Path(value)
    if isinstance(value, list | tuple) and all(_is_text_or_number(name) for name in value):
        return tuple(map(str, value))
    if value is None:
        return None
    raise ValueError("Input should be a list of names, or the path of a file with names")


def _is_text_or_number(name: Any) -> bool:
    return isinstance(name, str | int) and not isinstance(name, bool)


ClassNamesSetting = Annotated[tuple[str, ...] | Path | None, BeforeValidator(_take)]
"""Names of classes, or the file that holds them."""


def read_class_names(given: Sequence[str] | Path, num_classes: int) -> ClassNames:
    """Return the names of a teacher's classes, one for each output.

    Args:
        given: The names, or the file that holds them.
        num_classes: The number of the teacher's classes.

    Raises:
        TeacherError: the file cannot be read, a name cannot be printed, or there is not one name for each class.
    """
    if isinstance(given, Path):
        return check_class_names(_of_file(user_path(given)), num_classes, f"{_SETTING} ({printable(given)})")
    return check_class_names(given, num_classes, _SETTING)


def check_class_names(names: Sequence[str], num_classes: int, where: str) -> ClassNames:
    """Return the names without surrounding blanks, after checking that there is one for each class.

    Raises:
        TeacherError: there are more or fewer, or one of them cannot be printed.
    """
    if len(names) != num_classes:
        raise TeacherError(
            f"{where} names {len(names):,} classes, and the teacher has {num_classes:,} outputs. Give one name for each, in "
            "their order."
        )
    found = tuple(name.strip() for name in names)
    for number, name in enumerate(found):
        if not name or len(name) > _MAX_LENGTH or not name.isprintable():
            raise TeacherError(
                f"{where}: the name of class {number} ({shortened(repr(name), 60)}) must be 1 to {_MAX_LENGTH} characters of "
                "plain text, in one line."
            )
    return found


def name_of(label: int, names: Sequence[str] | None) -> str:
    """Return the name of a class, or ``class 3`` if it has none."""
    return names[label] if names is not None and 0 <= label < len(names) else f"class {label}"


def unique_names(num_classes: int, names: Sequence[str] | None) -> list[str]:
    """Return a unique name for each class: classes with the same name get their number as well.

    In lists of ImageNet's classes, for instance, two are called crane. Without names, the numbers are the names.
    """
    if names is None:
        return [str(label) for label in range(num_classes)]
    counts = Counter(names)
    found = [f"{name} ({label})" if counts[name] > 1 else name for label, name in enumerate(names)]
    return found if len(set(found)) == len(found) else [f"{name} ({label})" for label, name in enumerate(names)]


def _of_file(path: Path) -> list[str]:
    where = f"{_SETTING} ({printable(path)})"
    try:
        if not path.is_file():
            raise TeacherError(f"{where} is not a file. {_FORMS}.")
        if path.stat().st_size > _MAX_BYTES:
            raise TeacherError(f"{where} has more than {_MAX_BYTES:,} bytes. {_FORMS}.")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else first_line(error)
        raise TeacherError(f"{where} cannot be read: {reason}. {_FORMS}.") from error
    if text.lstrip().startswith(("[", "{")):
        return _of_json(text, where)
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def _of_json(text: str, where: str) -> list[str]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TeacherError(f"{where} is not valid JSON: {first_line(error)}. {_FORMS}.") from error
    if isinstance(content, Mapping) and isinstance(content.get("id2label"), Mapping):
        content = content["id2label"]
    if isinstance(content, Mapping):
        content = _in_order(content, where)
    names = [name[-1] if isinstance(name, list) and name else name for name in content]  # [WordNet's id, name]
    if not all(isinstance(name, str) for name in names):
        raise TeacherError(f"{where} holds names that are not text. {_FORMS}.")
    return names


def _in_order(content: Mapping[str, Any], where: str) -> list[Any]:
    """Return the names of an object in the order of their numbers; it maps numbers to names, or names to numbers."""
    numbers: dict[Any, Any]
    if content and all(type(value) is int for value in content.values()):
        numbers = {number: name for name, number in content.items()}
    else:
        numbers = {int(key): name for key, name in content.items() if key.isascii() and key.isdigit() and len(key) < 8}
    if len(numbers) != len(content) or sorted(numbers) != list(range(len(content))):
        raise TeacherError(
            f"{where} must number its classes from 0 to {max(0, len(content) - 1)}, each once. {_FORMS}."
        )
    return [numbers[number] for number in range(len(content))]
