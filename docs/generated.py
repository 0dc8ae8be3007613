"""Pages that are made from the code when the site is built: all settings, all commands."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

Schema = Mapping[str, Any]

_SETTINGS = """\
# Settings

Every setting of an experiment file, with its type and its default. The page is made from the JSON Schema that
`dfnas config schema` prints. `dfnas config show FILE` shows the settings of a file, defaults included.

Sizes that a file leaves out, such as images, epochs and the width of the space, are chosen for its teacher when it runs.
`dfnas config show FILE --teacher` shows what was chosen, and [Choosing settings](../choosing.md) says how.
The other settings have the defaults below.

A setting is named by its dotted path, as in `--set search.max_macs=50%`. Where a member is chosen by its `kind`, its name alone
stands for the member with its defaults. Members of other packages are named by their class, `my_package.module:Class`.
"""

_COMMANDS = """\
# Commands

`dfnas COMMAND --help` prints the same in a terminal. A wrong setting or file is one message and exit code 2.
After Ctrl-C, run the same command again: it goes on from what is finished.
"""

_TOP = "The experiment"


# Settings


def settings_page() -> str:
    """Return the page of all settings, from the JSON Schema."""
    from dfnas_ray.config.experiment import ExperimentConfig

    schema = ExperimentConfig.model_json_schema()
    definitions: Mapping[str, Schema] = schema["$defs"]
    lines = [_SETTINGS, f"## {_TOP}\n", *_table(schema, definitions)]
    told: set[str] = set()
    for section, value in schema["properties"].items():
        names = [name for name in _reachable(value, definitions) if name not in told]
        if not names:
            continue
        told |= set(names)
        lines.append(f"\n## {section}\n")
        for name in names:
            definition = definitions[name]
            lines.append(f"\n### {_title(name, definition)} {{#{name.lower()}}}\n")
            lines.append(_prose(definition.get("description", "")) + "\n")
            lines += _table(definition, definitions)
    return "\n".join(lines) + "\n"


def _title(name: str, definition: Schema) -> str:
    kind = definition["properties"].get("kind", {}).get("const")
    return f"`{kind}`" if kind else name.removesuffix("Config")


def _reachable(value: Any, definitions: Mapping[str, Schema]) -> list[str]:
    """Return the definitions that a schema names, and those that they name, each once."""
    found: dict[str, None] = {}

    def visit(part: Any) -> None:
        if isinstance(part, Mapping):
            name = part.get("$ref", "").rpartition("/")[2]
            if name and name not in found:
                found[name] = None
                visit(definitions[name].get("properties", {}))
            for key, inner in part.items():
                if key not in ("default", "discriminator"):
                    visit(inner)
        elif isinstance(part, list):
            for inner in part:
                visit(inner)

    visit(value)
    return list(found)


def _table(definition: Schema, definitions: Mapping[str, Schema]) -> list[str]:
    rows = [
        f"| `{name}` | {_type(value, definitions)} | {_default(name, value, definition)} | {_described(value, definitions)} |"
        for name, value in definition["properties"].items()
        if name != "kind"
    ]
    return (
        ["| setting | type | default | what it is |", "|---|---|---|---|", *rows] if rows else ["It has no settings."]
    )


def _described(value: Schema, definitions: Mapping[str, Schema]) -> str:
    """Return a setting's description, or else the first paragraph of that of the section it is."""
    section = definitions.get(value.get("$ref", "").rpartition("/")[2], {})
    text = value.get("description") or section.get("description", "").partition("\n\n")[0]
    return _prose(text).replace("|", "\\|").replace("\n", " ")


def _prose(text: str) -> str:
    """Return a description without what Markdown would take for HTML, links or emphasis."""
    text = text.replace("``", "`").replace("<", "&lt;")
    parts = text.split("`")  # every second one is code
    parts[::2] = [part.replace("*", "\\*").replace("[", "\\[").replace("_", "\\_") for part in parts[::2]]
    return "`".join(parts)


def _default(name: str, value: Schema, definition: Schema) -> str:
    if name in definition.get("required", ()):
        return "must be given"
    default = value.get("default")
    if isinstance(default, Mapping) or (isinstance(default, list) and default and isinstance(default[0], Mapping)):
        kinds = [one.get("kind") for one in ([default] if isinstance(default, Mapping) else default)]
        return ", ".join(f"`{kind}`" for kind in kinds if kind) or "as below"
    if "default" not in value:
        return "empty"
    return f"`{json.dumps(default)}`"


def _type(value: Schema, definitions: Mapping[str, Schema]) -> str:
    """Return a type in words."""
    return " or ".join(dict.fromkeys(_types(value, definitions))) or "anything"


def _types(value: Schema, definitions: Mapping[str, Schema]) -> Iterator[str]:
    if "discriminator" in value:
        mapping = value["discriminator"]["mapping"]
        for kind, reference in mapping.items():
            yield f"[`{kind}`](#{reference.rpartition('/')[2].lower()})"
    elif "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        yield f"[{name.removesuffix('Config')}](#{name.lower()})"
    elif "anyOf" in value:
        members = any("discriminator" in one for one in value["anyOf"])
        for one in value["anyOf"]:
            if members and one.get("type") == "array":
                yield "a list of them"
            elif (
                not members or "discriminator" in one or one.get("type") == "null"
            ):  # others name a member: said on top
                yield from _types(one, definitions)
    elif "enum" in value:
        yield from (f"`{one}`" for one in value["enum"])
    elif "const" in value:
        yield f"`{value['const']}`"
    elif value.get("type") == "array":
        inner = _type(value.get("items", {}), definitions) if "items" in value else "numbers"
        yield f"list of {inner}"
    elif value.get("type") == "object":
        extra = value.get("additionalProperties")
        yield f"mapping to {_type(extra, definitions)}" if isinstance(extra, Mapping) else "mapping"
    elif "type" in value:
        yield _plain(value)


def _plain(value: Schema) -> str:
    word = {"integer": "whole number", "null": "null", "string": "text", "boolean": "true or false"}.get(
        value["type"], value["type"]
    )
    bounds = [
        f"{sign} {_amount(value[name])}"
        for name, sign in (
            ("exclusiveMinimum", "&gt;"),
            ("minimum", "≥"),
            ("exclusiveMaximum", "&lt;"),
            ("maximum", "≤"),
        )
        if name in value
    ]
    return " ".join([word, *([", ".join(bounds)] if bounds else [])])


# Commands


def commands_page() -> str:
    """Return the page of all commands and their options."""
    from dfnas_ray.cli.main import app

    root: Any = typer.main.get_command(app)
    lines = [_COMMANDS]
    for name, command in _commands(root, "dfnas"):
        lines += [f"\n## {name}\n", f"{_prose(_help(command.help))}\n", f"```\n{_usage(name, command)}\n```\n"]
        rows = [row for parameter in command.params if (row := _parameter(parameter)) is not None]
        if rows:
            lines += ["| argument or option | what it does | default |", "|---|---|---|", *rows]
    return "\n".join(lines) + "\n"


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "list_commands"):
        yield name, command
        return
    context = command.make_context(name, [], resilient_parsing=True)
    for word in command.list_commands(context):
        _, inner, _ = command.resolve_command(context, [word])  # as it is called: until then it may be a stand-in
        yield from _commands(inner, f"{name} {word}")


def _help(text: str | None) -> str:
    return " ".join((text or "").split())


def _usage(name: str, command: Any) -> str:
    arguments = [_metavar(one) for one in command.params if one.param_type_name == "argument"]
    return " ".join([name, "[OPTIONS]", *arguments])


def _metavar(parameter: Any) -> str:
    word: str = parameter.metavar or parameter.name.upper()
    return word if parameter.required else f"[{word}]"


def _value(annotation: type) -> str:
    """Return how the value of an option is written that has no name for it."""
    return {float: "NUMBER", int: "NUMBER", Path: "PATH"}.get(annotation, "TEXT")


def _parameter(parameter: Any) -> str | None:
    if getattr(parameter, "hidden", False):
        return None
    if parameter.param_type_name == "argument":
        shown = f"`{_metavar(parameter)}`"
    else:
        flags = ", ".join([*parameter.opts, *parameter.secondary_opts])
        value = "" if parameter.is_flag else f" {parameter.metavar or _value(parameter.type_descriptor.annotation)}"
        shown = f"`{flags}{value}`"
    text = _prose(_help(getattr(parameter, "help", ""))).replace("|", "\\|")
    default = parameter.default
    is_plain = isinstance(default, (int, float, str)) and not isinstance(default, bool)
    return f"| {shown} | {text} | {f'`{default}`' if is_plain else ''} |"


def _amount(number: float) -> str:
    """Return a limit as people write it: 0.5, 10,000."""
    return f"{int(number):,}" if number == int(number) else f"{number:g}"
