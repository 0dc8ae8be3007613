"""Digests of the files of a finished stage, so that a file that is lost or altered later is found and made again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, RootModel

from dfnas_ray.errors import AlteredError, StorageError
from dfnas_ray.storage.location import Location

_SEAL = "digests.json"
_RECORD = "done.json"
_NOT_SEALED = re.compile(
    r"(?:^|/)(?:\.|(?:inputs|manifest|trials|digests|done)\.json$|shard-\d+\.parquet$|state|checkpoint)|\.damaged$|\.db$"
)
"""Files without a digest here. Shards have theirs in the manifest; states are only needed to continue; the stages can
write manifest and trials again."""


def _check_name(name: str) -> str:
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError(f"{name!r} is not the path of a file in the folder")
    return name


class Digests(RootModel[dict[Annotated[str, AfterValidator(_check_name)], str]]):
    """Sha256 of every file in a stage's folder, by the file's path in the folder."""


def seal(folder: Location, record: bytes) -> None:
    """Write the digests of a stage's files, before its record, of which ``record`` are the bytes."""
    found = {name: _digest(folder / name) for name in _names(folder)}
    (folder / _SEAL).write_model(Digests({**found, _RECORD: hashlib.sha256(record).hexdigest()}))


def remove_altered(folder: Location, say: Callable[[str], object]) -> bool:
    """Remove files that have changed since the stage finished, and return whether any was altered or lost.

    A folder without digests, from an older version, is accepted as it is.

    Args:
        folder: The folder of a stage.
        say: Called with a message that names the files.
    """
    file = folder / _SEAL
    if not file.exists():
        return False
    try:
        expected = file.read_model(Digests).root
    except AlteredError:
        say(f"{file} was altered: the content of {folder} is made again.")
        file.delete_file()
        return True
    altered = [name for name, digest in sorted(expected.items()) if not _is_as_it_was(folder / name, digest)]
    if altered:
        shown = ", ".join(str(folder / name) for name in altered[:3])
        more = f" and {len(altered) - 3} more" if len(altered) > 3 else ""
        say(f"{shown}{more} was altered or lost since it was made, and is made again.")
        for name in altered:
            _remove(folder, name)
        file.delete_file()
    return bool(altered)


@contextmanager
def unsealed(folder: Location) -> Iterator[None]:
    """Allow the block to write files of a finished stage again, and write their digests after it.

    If the block is interrupted, the folder has no digests and is accepted as it is.
    """
    (folder / _SEAL).delete_file()
    yield
    seal(folder, (folder / _RECORD).read_bytes())


def check_unaltered(folder: Location, names: Iterable[str]) -> None:
    """Make sure that files have not changed since the stage finished; nothing is removed.

    Args:
        folder: The folder of a stage. Without digests, from an older version, it is accepted as it is.
        names: The names of files in it.

    Raises:
        AlteredError: one of them, or the list of digests, was altered.
    """
    if not (folder / _SEAL).exists():
        return
    expected = (folder / _SEAL).read_model(Digests).root
    for name in names:
        if name in expected and not _is_as_it_was(folder / name, expected[name]):
            raise AlteredError(
                f"{folder / name} was altered or lost since it was made. Run the command that made it again."
            )


def _remove(folder: Location, name: str) -> None:
    """Remove a file of the folder, unless it lies behind a symbolic link that leads out of the folder."""
    above = (folder / name).path.rpartition("/")[0]
    if not folder.is_local or Path(above).resolve().is_relative_to(Path(folder.path).resolve()):
        (folder / name).delete_file()


def _names(folder: Location) -> list[str]:
    names = [info.path.removeprefix(folder.path).lstrip("/") for info in folder.file_infos(recursive=True)]
    return sorted(name for name in names if not _NOT_SEALED.search(name))


def _is_as_it_was(file: Location, digest: str) -> bool:
    return file.exists() and _digest(file) == digest


def _digest(file: Location) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return ""
        raise
