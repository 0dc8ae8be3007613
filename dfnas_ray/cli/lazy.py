"""Commands that are imported only when called: torch takes seconds, and `dfnas --help` does not need it."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from dfnas_ray.cli.console import err
from dfnas_ray.errors import EXIT_INTERRUPTED, INTERRUPTED

COMMANDS = (
    "init", "plan", "run", "synthesize", "search", "retrain", "evaluate", "export", "report", "sweep", "benchmark", "compare",
    "truth", "submit", "jobs", "space", "teacher", "config",
)  # fmt: skip
"""Modules of this package. Each has a function of the same name, or an ``app`` with subcommands."""


class LazyGroup(TyperGroup):
    """A group that reads the help of its commands from their source, and imports only the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return all names, in the order in which the commands are used."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, or a stand-in with its help text while it is not imported."""
        if cmd_name not in COMMANDS:
            return None
        return self.commands.get(cmd_name) or _listed(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the command that is called, then resolve it as usual."""
        name = args[0] if args else ""
        if name not in COMMANDS:
            self.commands.update({known: _listed(known) for known in COMMANDS})  # for a "did you mean" of typer
        elif name not in self.commands:
            self.commands[name] = load_command(name)
        return super().resolve_command(ctx, args)


def load_command(name: str) -> Any:
    """Import a subcommand, and return it."""
    module = import_module(f"dfnas_ray.cli.{name}")
    if hasattr(module, "app"):
        command = get_command(module.app)
        command.name = name
        return command
    return _command(name, _interruptible(getattr(module, name)))


def _command(name: str, function: Callable[..., None]) -> Any:
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    alone.command(name)(function)
    return get_command(alone)


@functools.cache
def _listed(name: str) -> Any:
    def stand_in() -> None:
        """Do nothing: the stand-in is listed, and never called."""

    stand_in.__doc__ = _described(Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8"), name)
    return _command(name, stand_in)


def _described(source: str, name: str) -> str:
    """Return the help text in a module's source: the docstring of its function, or the help of its ``app``."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return ast.get_docstring(node) or ""
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and ast.unparse(node.targets[0]) == "app":
            return next(str(ast.literal_eval(word.value)) for word in node.value.keywords if word.arg == "help")
    raise LookupError(f"cli/{name}.py has neither a function {name} nor an app")


def _interruptible(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command; on Ctrl-C it says what is kept, and exits without a traceback."""

    @functools.wraps(command)
    def interruptible(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            err.print(INTERRUPTED)
            raise typer.Exit(EXIT_INTERRUPTED) from None

    return interruptible
