"""Plug-ins in pydantic models: the base class of their settings, and annotations of fields that hold them."""

from __future__ import annotations

from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from dfnas_ray.config.code import path_of
from dfnas_ray.config.registry import Family, SettingValues, as_value_error, is_registered


class MemberConfig(BaseModel):
    """Base class of all plug-ins that have settings.

    Dumped settings can be loaded anywhere: if a class is not registered under its kind, its path is dumped instead.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_serializer(mode="wrap")
    def _dump(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> SettingValues:
        values: SettingValues = handler(self)
        if info.exclude_unset and "kind" in type(self).model_fields and "kind" not in values:
            values = {"kind": vars(self)["kind"], **values}  # the settings cannot be loaded without it
        if "kind" in (info.exclude or ()):
            return values
        if is_registered(type(self)):
            return {"kind": values["kind"], **values} if "kind" in values else values  # before all common fields
        return {"kind": path_of(type(self)), **{name: value for name, value in values.items() if name != "kind"}}

    def imported_code(self) -> dict[str, str]:
        """Return the other code that these settings import, by setting: ``package.module:name``."""
        return {}


class OneOrSeveral:
    """Annotation of a tuple of a family's members. A single one is given and dumped without a list."""

    def __init__(self, family: Family[Any]):
        self.family = family

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Accept one member as a list of one."""
        dump = core_schema.plain_serializer_function_ser_schema(_one_or_list, info_arg=True)
        return core_schema.no_info_before_validator_function(_as_tuple, handler(source), serialization=dump)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe one member, or a list of members."""
        one = self.family.__get_pydantic_json_schema__(schema, handler)
        return {"anyOf": [*one["anyOf"], {"type": "array", "items": one}]}


class Name:
    """Annotation of a text that names a member without settings."""

    def __init__(self, family: Family[Any], is_checked: bool = True):
        self.family, self.is_checked = family, is_checked

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Accept the kinds of members of any package. If ``is_checked`` is False, the model checks them."""
        if not self.is_checked:
            return handler(source)
        return core_schema.no_info_plain_validator_function(as_value_error(self._check))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """List the kinds."""
        return {"anyOf": self.family.text_schemas([member.kind for member in self.family.members()])}

    def _check(self, value: Any) -> str:
        self.family.resolve(value)
        return str(value)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _one_or_list(members: tuple[BaseModel, ...], info: SerializationInfo) -> Any:
    dumped = [member.model_dump(mode="json", exclude_unset=info.exclude_unset) for member in members]
    return dumped[0] if len(dumped) == 1 else dumped
