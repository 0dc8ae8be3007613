"""Plug-ins: families of interchangeable members, such as search spaces, of this package and of others.

A member is named by its ``kind`` and found in this order:

1. ``my_package.module:Class``: that class, from an installed package or the working directory;
2. a built-in member;
3. an entry point of an installed package, in the group ``dfnas_ray``, whose name is the kind and whose value the class.

A family is also an annotation, by which pydantic validates a member: ``space: Annotated[SpaceConfig, SPACES]``.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar, get_args

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from dfnas_ray.config.code import (
    GROUP,
    import_code,
    installed,
    is_module,
    package_of,
    package_of_entry,
    path_of,
)
from dfnas_ray.errors import ConfigError, first_line

T = TypeVar("T")

SettingValues: TypeAlias = dict[str, Any]
"""Settings by name, as they stand in an experiment file."""

_PATH = r"^\w+(\.\w+)*:\w+(\.\w+)*$"
_PATH_SCHEMA: JsonSchemaValue = {
    "type": "object",
    "properties": {"kind": {"type": "string", "pattern": _PATH}},
    "required": ["kind"],
}

MEMBER_UNKNOWN = "member_unknown"
"""Type of pydantic's error for an unknown kind."""

NAME_UNKNOWN = "name_unknown"
"""Type of the same error in families whose members are written by their names alone."""

KIND_MISSING = "kind_missing"
"""Type of pydantic's error for settings without a kind."""


_families: list[Family[Any]] = []


class UnknownKindError(ConfigError):
    """No member of a family has this kind.

    Attributes:
        kinds: The known kinds.
        nearest: The known kind that is most similar, or None.
    """

    def __init__(self, family: str, kind: str, kinds: list[str]):
        nearest = difflib.get_close_matches(kind, kinds, n=1)
        self.kinds, self.nearest = kinds, nearest[0] if nearest else None
        hint = f"Did you mean {nearest[0]}?" if nearest else f"Known are {', '.join(kinds)}."
        super().__init__(f"{kind!r} is not a {family}. {hint}")


class Member(NamedTuple):
    """One member of a family.

    Attributes:
        kind: Its name in experiment files.
        code: Its class.
        package: Name and version of the package that it comes from; None for a built-in one.
    """

    kind: str
    code: Any
    package: str | None


def kind_of(code: Any) -> str | None:
    """Return the kind of a member's class, or None if it has none."""
    field = getattr(code, "model_fields", {}).get("kind")
    if field is None:
        kind = getattr(code, "kind", None)
    else:
        values = get_args(field.annotation)
        kind = values[0] if len(values) == 1 else field.default
    return kind if isinstance(kind, str) and kind else None


class Family(Generic[T]):
    """All interchangeable plug-ins of one type.

    Attributes:
        name: The name of a member in messages, such as search space.
        base: The class that members derive from.
        built_in: The ``package.module:Class`` of this package's members by kind; they are imported when needed.
        argument: The setting that follows a colon in the short form, such as name for ``torchvision:resnet50``.
        by_name: Whether a member without settings is written and dumped as its name alone.
    """

    def __init__(
        self, name: str, base: type[T], built_in: Mapping[str, str], *, argument: str = "", by_name: bool = False
    ):
        self.name, self.base, self.built_in = name, base, dict(built_in)
        self.argument, self.by_name = argument, by_name
        _families.append(self)

    def find(self, kind: str) -> type[T]:
        """Return the member's class.

        Raises:
            UnknownKindError: no member has this kind.
            ConfigError: the member cannot be used. The message names its package, the member and the broken rule.
        """
        if ":" in kind:
            return self._load(kind, package_of(kind.partition(":")[0]))
        if kind in self.built_in:
            return self._built_in(kind)
        found, problems = self._of_entry_points([point for point in installed() if point.name == kind])
        if len({member.code for member in found}) > 1:
            raise ConfigError(self._two_packages(*found[:2]))
        if found:
            code: type[T] = found[0].code
            return code
        if problems:
            raise ConfigError(problems[0])
        raise UnknownKindError(self.name, kind, [member.kind for member in self.members()])

    def members(self) -> list[Member]:
        """Return the built-in members and those of installed packages; packages that cannot be used are left out."""
        return self.listing()[0]

    def listing(self) -> tuple[list[Member], list[str]]:
        """Return `members`, and one sentence for each plug-in of an installed package that cannot be used."""
        own = [Member(kind, self._built_in(kind), None) for kind in self.built_in]
        found, problems = self._of_entry_points(point for point in installed() if not _is_stray(point))
        problems += [_stray(point) for point in installed() if _is_stray(point)]
        alone = []
        for number, member in enumerate(found):
            twin = next((other for other in found[:number] if other.kind == member.kind), None)
            if twin is None:
                alone.append(member)
            elif twin.code is not member.code:
                alone = [other for other in alone if other.kind != member.kind]
                problems.append(self._two_packages(twin, member))
        return own + alone, problems

    def knows(self, kind: str) -> bool:
        """Return whether a kind names a member, without importing any."""
        return ":" in kind or kind in self.built_in or any(point.name == kind for point in installed())

    def validate(self, value: Any) -> T:
        """Return the member that settings describe: a mapping with ``kind``, or the kind alone.

        Raises:
            ValueError: there is no such member, or its settings are wrong. Pydantic expects this type.
        """
        if isinstance(value, self.base):
            self._check(type(value), path_of(type(value)), None)
            return value
        if not isinstance(value, str | Mapping):
            if self.by_name:
                raise self._unknown(value)
            raise PydanticCustomError("model_type", "Input should be a valid dictionary")
        values = self.expand(value) if isinstance(value, str) else value
        if "kind" not in values:
            kinds = ", ".join(repr(member.kind) for member in self.members())
            raise PydanticCustomError(KIND_MISSING, "kind is missing. It must be one of {kinds}", {"kinds": kinds})
        code = self.resolve(values["kind"])
        assert issubclass(code, BaseModel)
        fields = {name: given for name, given in values.items() if name != "kind"}
        if "kind" in code.model_fields:
            fields["kind"] = kind_of(code)
        member: T = code.model_validate(fields)
        return member

    def class_of(self, value: Any) -> type[T] | None:
        """Return the class of the member that settings describe; None where they describe none."""
        if isinstance(value, self.base):
            return type(value)
        values = self.expand(value) if isinstance(value, str) else value
        kind = values.get("kind") if isinstance(values, Mapping) else None
        try:
            return self.find(kind) if isinstance(kind, str) else None
        except ConfigError:
            return None

    def expand(self, text: str) -> dict[str, str]:
        """Return the mapping that a text stands for.

        ``torchvision:resnet50`` begins with a known kind, and its second part is that member's argument. If the first
        part is not a known kind but a module, the text is the path of a class.
        """
        before, colon, after = text.partition(":")
        if not colon or not self.argument:
            return {"kind": text}
        if self.knows(before) or not ("." in before or is_module(before)):
            return {"kind": before, self.argument: after}
        return {"kind": text}

    def _built_in(self, kind: str) -> type[T]:
        code: type[T] = import_code(self.built_in[kind])
        return code

    def _of_entry_points(self, points: Any) -> tuple[list[Member], list[str]]:
        """Return the members of this family among entry points, and a sentence for each that cannot be used."""
        found, problems = [], []
        for point in points:
            package = package_of_entry(point)
            try:
                if self._is_foreign(point):
                    continue
                code = self._load(point.value, package, point.name)
            except ConfigError as error:
                problems.append(str(error))
            else:
                found.append(Member(point.name, code, package))
        return found, problems

    def _is_foreign(self, point: EntryPoint) -> bool:
        """Return whether an entry point is a member of another family."""
        families = _families_of(_import_or_none(point.value))
        return bool(families) and self not in families

    def _load(self, path: str, package: str | None, entry: str | None = None) -> type[T]:
        try:
            code = import_code(path)
        except Exception as error:  # importing runs the code of others
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise ConfigError(
                f"{_subject(path, package)} cannot be imported: {reason}. It must be package.module:Class, installed "
                "or in the working directory."
            ) from error
        self._check(code, path, package, entry)
        return code

    def _check(self, code: Any, path: str, package: str | None, entry: str | None = None) -> None:
        """Make sure that a class can be a member of this family.

        Raises:
            ConfigError: it cannot.
        """
        if isinstance(code, type) and self.built_in.get(kind_of(code) or "") == path_of(code):
            return
        reason = self._broken_rule(code, entry)
        if reason:
            raise ConfigError(f"{_subject(path, package or package_of(path.partition(':')[0]))} {reason}")

    def _broken_rule(self, code: Any, entry: str | None) -> str:
        if not (isinstance(code, type) and issubclass(code, self.base)):
            return f"is not a {self.name}: it must be a class that derives from {path_of(self.base)}."
        if inspect.isabstract(code):
            missing = ", ".join(sorted(getattr(code, "__abstractmethods__", ())))
            return f"is not a complete {self.name}: it must define {missing}."
        kind = kind_of(code)
        if kind is None:
            return f"has no kind, the name of the {self.name} in experiments. Give it one, such as {self._example()}."
        if entry is not None and kind != entry:
            return f"has the kind {kind!r}, but its entry point in the group {GROUP} is called {entry!r}. Both must be the same."
        if kind in self.built_in and self._built_in(kind) is not code:
            return f"has the kind {kind!r} of a built-in {self.name}. It must have a kind of its own."
        for point in installed() if entry is None else ():  # entry points are compared with each other in `listing`
            if point.name == kind and not self._is_foreign(point) and _import_or_none(point.value) not in (None, code):
                other = _subject(point.value, package_of_entry(point))
                return f"has the kind {kind!r} of {other}. It must have a kind of its own."
        return ""

    def _two_packages(self, first: Member, second: Member) -> str:
        return (
            f"Two packages have a {self.name} of the kind {first.kind!r}: {path_of(first.code)} ({first.package}) and "
            f"{path_of(second.code)} ({second.package}). A kind must belong to one package. Uninstall one of them."
        )

    def _example(self) -> str:
        if issubclass(self.base, BaseModel):
            return 'kind: Literal["my_kind"] = "my_kind"'
        return 'kind: ClassVar[str] = "my_kind"'

    def resolve(self, kind: Any) -> type[T]:
        """Return the class of a kind as `find` does, but raise pydantic's error for an unknown kind."""
        try:
            return self.find(kind) if isinstance(kind, str) else self.find(repr(kind))
        except UnknownKindError as error:
            raise self._unknown(kind, error) from error

    def _unknown(self, kind: Any, error: UnknownKindError | None = None) -> PydanticCustomError:
        """Return pydantic's error for an unknown kind, or for a value that is not a kind at all."""
        kinds = [repr(known) for known in (error.kinds if error else [member.kind for member in self.members()])]
        hint = f" Did you mean {error.nearest}?" if error and error.nearest else ""
        listed = f"{', '.join(kinds[:-1])} or {kinds[-1]}" if self.by_name else ", ".join(kinds)
        context = {"kind": repr(kind), "kinds": listed, "hint": hint}
        if self.by_name:
            return PydanticCustomError(NAME_UNKNOWN, "{kind} must be {kinds}.{hint}", context)
        return PydanticCustomError(MEMBER_UNKNOWN, "kind {kind} must be one of {kinds}.{hint}", context)

    # Methods that pydantic calls on an annotation

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate a member of any package."""
        dump = core_schema.plain_serializer_function_ser_schema(_by_name) if self.by_name else None
        return core_schema.no_info_plain_validator_function(as_value_error(self.validate), serialization=dump)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe the built-in members, those of installed packages, and that a class may be named by its path."""
        members = {member.kind: member.code.__pydantic_core_schema__ for member in self.members()}
        one = handler(core_schema.tagged_union_schema(members, discriminator="kind"))
        return {"anyOf": [one, _PATH_SCHEMA, *self.text_schemas(members)]}

    def text_schemas(self, kinds: Any) -> list[JsonSchemaValue]:
        """Return the JSON Schemas of a member that is written as a text."""
        shortened: list[JsonSchemaValue] = [{"type": "string", "pattern": r"^\w+:"}] if self.argument else []
        return [{"enum": list(kinds)}, {"type": "string", "pattern": _PATH}, *shortened]


def family_of(base: Any) -> Family[Any] | None:
    """Return the family whose members derive from a class, or None if it is no family's base."""
    return next((family for family in _families if family.base is base), None)


def expand(text: str) -> dict[str, str]:
    """Return the mapping that a text stands for in the family with short forms, or a mapping with the kind alone."""
    return next((family.expand(text) for family in _families if family.argument), {"kind": text})


def describe(code: type) -> str:
    """Return the name of a member's class in messages: kind, path and package."""
    return f"{kind_of(code)}, {_subject(path_of(code), package_of(code.__module__))},"


def is_built_in(code: type) -> bool:
    """Return whether a class is one of this package's members."""
    return any(family.built_in.get(kind_of(code) or "") == path_of(code) for family in _families)


def is_registered(code: type) -> bool:
    """Return whether a class is found by its kind alone."""
    found = (_import_or_none(point.value) for point in installed() if point.name == kind_of(code))
    return is_built_in(code) or any(other is code for other in found)


def _families_of(code: Any) -> list[Family[Any]]:
    return [family for family in _families if isinstance(code, type) and issubclass(code, family.base)]


def _is_stray(point: EntryPoint) -> bool:
    """Return whether an entry point can be imported and is a member of no family."""
    code = _import_or_none(point.value)
    return code is not None and not _families_of(code)


def _stray(point: EntryPoint) -> str:
    base = path_of(_families[0].base)
    return f"{_subject(point.value, package_of_entry(point))} is not a plug-in: it derives from no base class, such as {base}."


def _import_or_none(path: str) -> Any:
    try:
        return import_code(path)
    except Exception:  # `find` reports it when the member is used
        return None


def _subject(path: str, package: str | None) -> str:
    return path if package is None else f"{path} ({package})"


def as_value_error(validate: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the function, with errors of this package raised as ValueError, which pydantic reports."""

    def checked(value: Any) -> Any:
        try:
            return validate(value)
        except ConfigError as error:
            raise ValueError(str(error)) from error

    return checked


def _by_name(member: BaseModel) -> Any:
    dumped = member.model_dump(mode="json")
    return dumped["kind"] if set(dumped) == {"kind"} else dumped
