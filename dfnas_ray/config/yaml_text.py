"""Read YAML from untrusted files: plain values of bounded size, or one error.

The types are those of JSON: mappings with text as keys, lists, text, numbers, booleans and null. Dates are text.
Numbers are those of YAML 1.2: ``1e-3`` is a number, ``010`` is ten and ``12:30`` is text. YAML 1.1 says text, eight and
750.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable
from typing import Any, NoReturn

import yaml
from yaml.constructor import ConstructorError
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent, ScalarEvent

from dfnas_ray.errors import shortened

MAX_LENGTH = 300_000
"""The most characters of a text; a large experiment has 5,000."""
MAX_DEPTH = 50
"""The most levels of nested mappings and lists."""
MAX_VALUES = 50_000
"""The most values in total; values behind an alias count each time that it is used."""
_MAX_DIGITS = 100

_PREFIX = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F_]+|0o[0-7_]+")
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)


class YamlTextError(ValueError):
    """A text is not YAML, is too large, or holds values that are not plain. The message says where."""


def read_yaml(text: str) -> Any:
    """Return the value that a text describes.

    Raises:
        YamlTextError: the text is invalid. The message says why and where.
    """
    if len(text) > MAX_LENGTH:
        raise YamlTextError(f"it has {len(text):,} characters, and {MAX_LENGTH:,} are the limit")
    try:
        _check_size(text)
        return yaml.load(text, _PlainLoader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        raise YamlTextError(_described(error)) from error
    except yaml.YAMLError as error:
        raise YamlTextError(shortened(" ".join(str(error).split()))) from error


def write_yaml(value: Any, is_compact: bool = False) -> str:
    """Return plain values as a text that `read_yaml` reads back to equal ones.

    Args:
        value: Mappings, lists and scalars.
        is_compact: Write mappings and lists that hold only scalars on one line.
    """
    style = None if is_compact else False
    return yaml.dump(value, Dumper=_PlainDumper, sort_keys=False, width=120, default_flow_style=style)


def write_on_a_line(value: Any) -> str:
    """Return a plain value as it is given on a command line, as in ``--set key=VALUE``."""
    text = yaml.dump(value, Dumper=_PlainDumper, sort_keys=False, width=math.inf, default_flow_style=True)
    return text.removesuffix("...\n").strip()


def _described(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
    said = [part for part in (error.context, error.problem) if part]
    return shortened(", ".join(" ".join(part.split()) for part in said)) + where


def _check_size(text: str) -> None:
    """Count depth and values from the events, which need no recursion; an alias counts as all that its anchor holds."""
    held: dict[str, int] = {}  # values of each anchor
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and values before it
    values = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                held[anchor] = values - before
        elif isinstance(event, NodeEvent):
            if isinstance(event, AliasEvent) and any(anchor == event.anchor for anchor, _ in open_nodes):
                _refuse(f"*{event.anchor} refers to itself", event)
            values += held.get(event.anchor or "", 1) if isinstance(event, AliasEvent) else 1
            if isinstance(event, CollectionStartEvent):
                open_nodes.append((event.anchor, values - 1))
            elif isinstance(event, ScalarEvent) and event.anchor is not None:
                held[event.anchor] = 1
            if values > MAX_VALUES:
                _refuse(f"more than {MAX_VALUES:,} values", event)
            if len(open_nodes) > MAX_DEPTH:
                _refuse(f"more than {MAX_DEPTH} levels of mappings and lists", event)


def _refuse(problem: str, place: Any) -> NoReturn:
    raise ConstructorError(None, None, problem, place.start_mark)


class _PlainLoader(yaml.SafeLoader):
    """Builds plain values alone. It refuses a key that is given twice; PyYAML would drop the first value."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - typed by the base class
    yaml_constructors = {}  # noqa: RUF012 - typed by the base class

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping; ``<<`` takes over the keys of others that it does not have itself."""
        if not isinstance(node, yaml.MappingNode):
            _refuse("this is not a mapping", node)
        seen = set()
        for key, _ in node.value:
            if key.tag == f"{_PREFIX}merge":
                continue
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str):
                _refuse(f"the key {shortened(repr(name), 60)} must be text: put it in quotes", key)
            if name in seen:
                _refuse(f"the key {shortened(repr(name), 60)} is given twice", key)
            seen.add(name)
        return super().construct_mapping(node, deep)

    def construct_list(self, node: yaml.Node) -> Any:
        """Return a list."""
        if not isinstance(node, yaml.SequenceNode):
            _refuse("this is not a list", node)
        made: list[Any] = []
        yield made
        made.extend(self.construct_sequence(node))

    def construct_map(self, node: yaml.Node) -> Any:
        """Return a mapping, which may be finished later."""
        made: dict[Hashable, Any] = {}
        yield made
        made.update(self.construct_mapping(node))

    def construct_int(self, node: yaml.Node) -> int:
        """Return a whole number."""
        text = self.construct_text(node).replace("_", "")
        if len(text) > _MAX_DIGITS:
            _refuse(f"a number of more than {_MAX_DIGITS} digits", node)
        base = {"0x": 16, "0o": 8}.get(text[:2], 10)
        return self._converted(lambda: int(text, base), text, "whole number", node)

    def construct_float(self, node: yaml.Node) -> float:
        """Return a number."""
        text = self.construct_text(node).replace("_", "").lower()
        plain = re.sub(r"^([-+]?)\.(inf|nan)$", r"\1\2", text)
        return self._converted(lambda: float(plain), text, "number", node)

    def construct_bool(self, node: yaml.Node) -> bool:
        """Return a boolean."""
        text = self.construct_text(node)
        return self._converted(lambda: self.bool_values[text.lower()], text, "boolean: true or false", node)

    def construct_text(self, node: yaml.Node) -> str:
        """Return text."""
        if not isinstance(node, yaml.ScalarNode):
            _refuse("this is not a single value", node)
        return str(self.construct_scalar(node))

    def construct_null(self, node: yaml.Node) -> None:
        """Return None."""
        self.construct_text(node)

    def construct_other(self, node: yaml.Node) -> NoReturn:
        """Refuse anything that is not a plain value."""
        _refuse(f"the tag {shortened(node.tag.removeprefix(_PREFIX), 60)} is not allowed: plain values only", node)

    def _converted(self, convert: Callable[[], Any], text: str, what: str, node: yaml.Node) -> Any:
        try:
            return convert()
        except (ValueError, KeyError):
            _refuse(f"{shortened(repr(text), 60)} is not a {what}", node)


class _PlainDumper(yaml.SafeDumper):
    """Puts text in quotes that `_PlainLoader` would take for something else."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - typed by the base class

    def ignore_aliases(self, data: Any) -> bool:
        """Return True: a repeated value is written out each time, without an alias."""
        return True


for _kind in (_PlainLoader, _PlainDumper):
    for _tag, _pattern, _first in (
        ("bool", re.compile(r"(?:yes|no|true|false|on|off)", re.IGNORECASE), "yYnNtTfFoO"),
        ("int", _INT, "-+0123456789"),
        ("float", _FLOAT, "-+0123456789."),
        ("merge", re.compile("<<"), "<"),
        ("null", re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    ):
        _kind.add_implicit_resolver(
            f"{_PREFIX}{_tag}", re.compile(f"(?:{_pattern.pattern})$", _pattern.flags), list(_first)
        )
for _tag, _construct in (
    ("null", _PlainLoader.construct_null),
    ("bool", _PlainLoader.construct_bool),
    ("int", _PlainLoader.construct_int),
    ("float", _PlainLoader.construct_float),
    ("str", _PlainLoader.construct_text),
    ("seq", _PlainLoader.construct_list),
    ("map", _PlainLoader.construct_map),
):
    _PlainLoader.add_constructor(f"{_PREFIX}{_tag}", _construct)
_PlainLoader.add_constructor(None, _PlainLoader.construct_other)
