"""Pydantic's errors as sentences that name the setting, its value and what would be right."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from dfnas_ray.config.registry import KIND_MISSING, MEMBER_UNKNOWN, NAME_UNKNOWN, Family, family_of
from dfnas_ray.errors import shortened

_NO_MAPPING = ("model_type", "model_attributes_type", "dict_type")
_NO_LIST = ("tuple_type", "list_type")


def explain(error: ValidationError, values: Any, root: type[BaseModel]) -> str:
    """Return one sentence for each wrong setting, each on its own line.

    Args:
        error: The error of pydantic.
        values: The values that were validated.
        root: The model that they were validated against.
    """
    problems = [problem for problem in error.errors() if not _is_echo(problem)]
    told = [shortened(_sentence(problem, values, root), 600) for problem in problems[:_MAX_PROBLEMS]]
    if len(problems) > _MAX_PROBLEMS:
        told.append(f"{len(problems) - _MAX_PROBLEMS:,} more settings are wrong.")
    return "\n".join(told)


def _is_echo(problem: Any) -> bool:
    """Return whether a list is reported as too short only because some of its values are wrong."""
    return bool(problem["type"] == "too_short" and len(problem["input"]) >= problem["ctx"]["min_length"])


def _sentence(problem: Any, values: Any, root: type[BaseModel]) -> str:
    names, model, annotation = _walk(problem["loc"], values, root)
    path = ".".join(names) or "The experiment"
    kind, value = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        return _no_setting(path, names[-1], list(model.model_fields) if model else [])
    if kind == "missing" and isinstance(problem["loc"][-1], int):  # of a list; the input is the list
        return f"{'.'.join(names[:-1])} ({_short(value)}) must have more values: number {problem['loc'][-1] + 1} is missing."
    if kind == "missing":
        return f"{path} is missing."
    if kind == "union_tag_invalid":
        return f"{path}.kind ({problem['ctx']['tag']!r}) must be one of {problem['ctx']['expected_tags']}."
    if kind == "union_tag_not_found":
        kinds = [repr(_tag(member)) for member in map(_strip, get_args(annotation)) if _is_model(member)]
        return f"{path}.kind is missing. It must be one of {', '.join(kinds)}."
    if kind in (MEMBER_UNKNOWN, NAME_UNKNOWN, KIND_MISSING):
        return _about_kind(problem, names, path, model)
    if kind in _NO_MAPPING:
        fields = f" of settings: {', '.join(annotation.model_fields)}" if _has_fields(annotation) else ""
        return f"{path} ({_short(value)}) must be a mapping{fields}."
    if kind in _NO_LIST:
        return f"{path} ({_short(value)}) must be a list, such as [{_short(value)}]."
    if kind in ("too_short", "too_long"):
        limits = problem["ctx"]
        bound = (
            f"at least {limits['min_length']} value(s)"
            if kind == "too_short"
            else f"at most {limits['max_length']} value(s)"
        )
        return f"{path} ({_short(value)}) must have {bound}."
    if kind == "string_type" and isinstance(value, bool | int | float):
        return f'{path} ({_short(value)}) must be text: put it in quotes, "{_short(value)}".'
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    if kind == "value_error" and isinstance(value, Mapping | BaseModel):
        whole = message if message.endswith("?") else f"{message}."
        return f"{path}: {whole}" if names else whole
    if message.startswith("Input should be "):
        return f"{path} ({_short(value)}) must be {message.removeprefix('Input should be ').split(', unable to')[0]}."
    return f"{path} ({_short(value)}): {message[0].lower()}{message[1:]}."


def _about_kind(problem: Any, names: list[str], path: str, owner: type[BaseModel] | None) -> str:
    """Return the sentence about an unknown or missing kind of a plug-in."""
    context = problem["ctx"]
    if problem["type"] == KIND_MISSING:
        return f"{path}.kind is missing. It must be one of {context['kinds']}."
    if problem["type"] == NAME_UNKNOWN:
        return f"{path} ({context['kind']}) must be {context['kinds']}.{context['hint']}"
    family = _family_of_extras(owner)
    if family is not None and context["kind"] == repr(names[-1]):  # a misspelled setting, or an unknown kind
        known = [*owner.model_fields, *(member.kind for member in family.members())] if owner else []
        return _no_setting(path, names[-1], list(dict.fromkeys(known)))
    return f"{path}.kind ({context['kind']}) must be one of {context['kinds']}.{context['hint']}"


def _no_setting(path: str, name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"Did you mean {nearest[0]}?" if nearest else f"Known here: {', '.join(known)}."
    return f"{path} is not a setting. {hint}"


_shortening = reprlib.Repr()
_shortening.maxlevel, _shortening.maxdict, _shortening.maxlist, _shortening.maxtuple = 3, 4, 6, 6
_shortening.maxstring = _shortening.maxother = 60
_MAX_PROBLEMS = 5
"""Number of problems in one message."""


def _short(value: Any) -> str:
    text = _shortening.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _walk(
    location: tuple[int | str, ...], values: Any, root: type[BaseModel]
) -> tuple[list[str], type[BaseModel] | None, Any]:
    """Return the names in a pydantic location, the model of the last one, and the annotation of its value.

    The class of a plug-in is the one that the given values name. The names leave out tags of unions, and the index of a
    plug-in that was given without a list.
    """
    names: list[str] = []
    annotation: Any = root
    owner: type[BaseModel] | None = None
    for part in location:
        annotation = _strip(annotation)
        members = [member for member in get_args(annotation) if get_origin(annotation) in _UNIONS]
        tagged = [m for m in map(_strip, members) if _is_model(m) and _tag(m) == part]
        if tagged:
            annotation = tagged[0]
            continue
        if members:
            models = [m for m in map(_strip, members) if _is_model(m)]
            annotation = models[0] if models else annotation
        if (family := family_of(annotation)) is not None:
            annotation = family.class_of(values)
        if not isinstance(part, int) or isinstance(values, list | tuple):
            names.append(str(part))
            values = _item(values, part)
        if _is_model(annotation):
            owner = annotation
            field: FieldInfo | None = annotation.model_fields.get(str(part))
            extras = _family_of_extras(annotation) if field is None else None
            annotation = field.annotation if field else extras.base if extras else None
            if extras is not None and isinstance(values, Mapping):
                values = {"kind": part, **values}
        elif get_args(annotation):
            annotation = get_args(annotation)[1 if get_origin(annotation) is dict else 0]
    return names, owner, _member(annotation)


def _member(annotation: Any) -> Any:
    """Return the annotation of a setting without its null."""
    annotation = _strip(annotation)
    members = [m for m in get_args(annotation) if m is not type(None)] if get_origin(annotation) in _UNIONS else []
    return _strip(members[0]) if len(members) == 1 else annotation


def _family_of_extras(model: type[BaseModel] | None) -> Family[Any] | None:
    """Return the family whose members a model takes under any name, besides its own fields."""
    extras = getattr(model, "extra_members", None)
    return extras if isinstance(extras, Family) else None


def _item(values: Any, part: int | str) -> Any:
    """Return the part of the given values at a key or an index, or None if there is none."""
    try:
        return values[part]
    except (KeyError, IndexError, TypeError):
        return None


_UNIONS = (Union, type(int | str))


def _strip(annotation: Any) -> Any:
    return _strip(get_args(annotation)[0]) if get_origin(annotation) is Annotated else annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _has_fields(annotation: Any) -> bool:
    """Return whether an annotation is a model with fixed fields, not the base class of a family."""
    return _is_model(annotation) and family_of(annotation) is None


def _tag(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("kind")
    return get_args(field.annotation)[0] if field else None
