"""Settings by their dotted paths: change one in nested mappings, or list all in nested models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from dfnas_ray.config.registry import SettingValues, expand
from dfnas_ray.errors import ConfigError, shortened


def set_dotted(values: Mapping[str, Any], path: str, value: Any, where: str) -> SettingValues:
    """Return a copy of ``values`` with the setting at ``path``, such as search.space.kind, replaced or added.

    Args:
        where: The name of the change in error messages.

    Raises:
        ConfigError: a number in the path does not index a list, or lies beyond the list's end.
    """
    changed: SettingValues = _set(dict(values), path.split("."), value, where)
    return changed


class Setting(NamedTuple):
    """One value within nested models.

    Attributes:
        path: The dotted path, such as search.space.kind; members of a list share the list's path.
        value: The value, which is never a model.
        owner: The model that has the field.
        field: The field's name.
    """

    path: str
    value: Any
    owner: BaseModel
    field: str


def list_settings(model: BaseModel, prefix: str = "") -> Iterator[Setting]:
    """Yield every setting of a model and of the models in it."""
    for name in (*type(model).model_fields, *(model.model_extra or {})):
        value = getattr(model, name)
        for each in value if isinstance(value, list | tuple) else (value,):
            if isinstance(each, BaseModel):
                yield from list_settings(each, f"{prefix}{name}.")
            else:
                yield Setting(f"{prefix}{name}", each, model, name)


def _is_index(key: str) -> bool:
    return key.isascii() and key.isdigit() and len(key) < 10


def _set(container: Any, keys: list[str], value: Any, where: str) -> Any:
    key, rest = keys[0], keys[1:]
    if isinstance(container, list):
        if not _is_index(key) or int(key) >= len(container):
            raise ConfigError(f"{where}: {shortened(repr(key), 60)} is not an index of a list of {len(container)}.")
        copy: Any = list(container)
        copy[int(key)] = _set(copy[int(key)], rest, value, where) if rest else value
        return copy
    if _is_index(key):
        raise ConfigError(f"{where}: {key} is an index, but the file has no list there. Give the whole list.")
    if isinstance(container, str):  # a member by its kind, or in its family's short form
        container = expand(container)
    copy = dict(container) if isinstance(container, dict) else {}
    copy[key] = _set(copy.get(key), rest, value, where) if rest else value
    return copy
