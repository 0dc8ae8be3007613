"""Temporary names of files that are not complete yet, and removal of those that a killed command has left.

A file ``x`` is written as ``.x.HEX.tmp`` in the same folder, and then renamed. Such a file stays only if the process is
killed.
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
    """Return a unique temporary name in the folder of a file."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def remove_temporary(run_dir: Path) -> None:
    """Remove the half-written files that killed commands left in a run directory. The caller holds its lock.

    Only the directory, its folders and the stages' folders in them are searched: a run directory may also hold a user's
    own files.
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
                    os.unlink(entry.path)  # noqa: PTH108 - its name may not be valid text


def _folders(folder: Path) -> Iterator[Path]:
    with suppress(OSError):
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)
