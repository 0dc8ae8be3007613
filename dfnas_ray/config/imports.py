"""List the code of other packages that the settings of an experiment import and run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel

from dfnas_ray.config.code import package_of
from dfnas_ray.config.member import MemberConfig, Name
from dfnas_ray.config.own_code import digest_of_code
from dfnas_ray.config.registry import Family, is_built_in

_OWN = __name__.partition(".")[0]


class Import(NamedTuple):
    """One module that a setting names.

    Attributes:
        setting: The setting, such as search.space or teacher.builder.
        module: The module, such as my_package.spaces.
        package: Name and version of the installed package that it belongs to; None if it belongs to none.
    """

    setting: str
    module: str
    package: str | None


def list_imports(config: BaseModel, prefix: str = "") -> list[Import]:
    """Return the modules outside of this package that settings name: classes, entry points and teachers' builders.

    Args:
        config: An experiment, or a part of it.
        prefix: The path of the part with a dot at the end, such as ``search.``.
    """
    found = []
    for setting, module, _ in _modules(config, prefix):
        if module.partition(".")[0] != _OWN:
            found.append(Import(setting, module, package_of(module)))
    return list(dict.fromkeys(found))


def own_code_digest(config: BaseModel, prefix: str) -> str:
    """Return a digest of the user's own code that some settings name; empty if there is none.

    Args:
        config: An experiment.
        prefix: The beginning of the settings, such as ``synthesis`` or ``search.space``.
    """
    named = [found for found in _modules(config, "") if f"{found[0]}.".startswith(f"{prefix}.")]
    return digest_of_code({module for _, module, _ in named}, {code for _, _, code in named if code is not None})


def describe_imports(config: BaseModel) -> list[str]:
    """Return one line for each module: its name, the settings that name it, and the package that it comes from."""
    settings: dict[tuple[str, str | None], list[str]] = {}
    for setting, module, package in list_imports(config):
        settings.setdefault((module, package), []).append(setting)
    return [
        f"{module} ({', '.join(names)}), from {package or 'no installed package'}"
        for (module, package), names in settings.items()
    ]


def _modules(model: BaseModel, prefix: str) -> Iterator[tuple[str, str, type | None]]:
    """Yield each setting that names code, with the module and, if it names a member, its class."""
    for name in (*type(model).model_fields, *(model.model_extra or {})):
        value = getattr(model, name)
        values = value if isinstance(value, list | tuple) else (value,)
        field = type(model).model_fields.get(name)
        family = None if field is None else _named_family([field.annotation, *field.metadata])
        for number, one in enumerate(values):
            path = f"{prefix}{name}" + (f".{number}" if len(values) > 1 else "")
            if isinstance(one, BaseModel):
                yield from _of_member(one, path)
                yield from _modules(one, f"{path}.")
            elif family is not None:
                code = family.find(one)
                yield path, code.__module__, code


def _of_member(member: BaseModel, path: str) -> Iterator[tuple[str, str, type | None]]:
    if isinstance(member, MemberConfig):
        if not is_built_in(type(member)):
            yield path, type(member).__module__, type(member)
        for setting, code in member.imported_code().items():
            yield f"{path}.{setting}", code.partition(":")[0], None


def _named_family(annotations: Any) -> Family[Any] | None:
    """Return the family whose members a field names, anywhere within its annotation."""
    for annotation in annotations:
        if isinstance(annotation, Name):
            return annotation.family
        if (family := _named_family(get_args(annotation))) is not None:
            return family
    return None
