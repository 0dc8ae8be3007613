"""The names under which files are written before they are complete, and what a command that was killed has left of them.

A file ``x`` is written as ``.x.HEX.tmp`` beside its place, and renamed. Only the kill of the process leaves such a file.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_OURS = re.compile(r"\..+\.[0-9a-f]{32}\.tmp", re.DOTALL)
_KEY = re.compile(r"[0-9a-f]{12}")


def temporary_name(path: Path) -> Path:
    """Return a name beside a file's that nobody else uses."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def remove_temporary(run_dir: Path) -> None:
    """Remove what killed commands left half-written in a run directory; whoever calls holds its lock.

    Looked at are the directory, its folders and the stages' folders below: a run directory may lie among a user's own files.
    """
    for folder in (run_dir, *_folders(run_dir)):
        _remove_in(folder)
        for inner in _folders(folder) if folder != run_dir else ():
            if _KEY.fullmatch(inner.name):
                for path, _, _ in os.walk(inner):
                    _remove_in(Path(path))


def _remove_in(folder: Path) -> None:
    with suppress(OSError):
        for entry in os.scandir(folder):
            if _OURS.fullmatch(entry.name) and not entry.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    os.unlink(entry.path)  # noqa: PTH108 - its name may be no text


def _folders(folder: Path) -> Iterator[Path]:
    with suppress(OSError):
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)
