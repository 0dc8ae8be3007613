"""The entry point of `dfnas`: its subcommands and the handling of their errors."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from dfnas_ray.cli.console import err
from dfnas_ray.cli.lazy import LazyGroup
from dfnas_ray.errors import EXIT_USER_ERROR, DfnasError, shortened
from dfnas_ray.version import __version__

_NO_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR)  # names that no file can have here


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dfnas-ray {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="dfnas",
    cls=LazyGroup,
    help="Data-free neural architecture search: from a trained classifier's checkpoint to a better network, without its "
    "training data. Start with: dfnas init --example digits digits.yaml, then dfnas run digits.yaml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    """Handle the options that come before a command."""


def main() -> None:
    """Run `dfnas`. An error that the user can fix becomes one message and exit code 2."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the signal of a scheduler ends a command as Ctrl-C does
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        Path.cwd()
    except OSError as error:  # torch would end the process, with a message of its own
        _fail(f"The working directory cannot be used ({error.strerror}). Change to another one.")
    try:
        app()
    except DfnasError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno in _NO_PATH and error.filename is not None:
            _fail(f"{shortened(os.fsdecode(error.filename), 200)} cannot be used: {error.strerror}. Choose another.")
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            raise
        _fail(f"{error}. Free space or choose another run_dir, and run the same command again: finished work is kept.")


def _fail(message: str) -> None:
    err.print(Text.assemble(("error: ", "bold red"), message))
    sys.exit(EXIT_USER_ERROR)
