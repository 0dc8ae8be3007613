"""The templates of the pages and of the model card, compiled once in a process."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from dfnas_ray import formatting

_FORMATS = ("count", "quantity", "number", "percent", "fixed", "duration", "size", "moment", "brief")


@cache
def template(file: str, **filters: Callable[..., Any]) -> Template:
    """Return a template of this package. It has the filters of `formatting`, and these; values in HTML are escaped."""
    environment = Environment(
        autoescape=file.endswith(".html.j2"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update({name: getattr(formatting, name) for name in _FORMATS}, **filters)
    return environment.from_string(source(file))


@cache
def source(file: str) -> str:
    """Return the text of a file of this package."""
    return (resources.files("dfnas_ray.report") / file).read_text(encoding="utf-8")
