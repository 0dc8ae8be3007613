"""What a finished stage left, by digests: a file that is lost or altered afterwards is named, removed, and made again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pyarrow import fs
from pydantic import AfterValidator, RootModel

from dfnas_ray.errors import AlteredError, StorageError
from dfnas_ray.storage.location import Location

_SEAL = "digests.json"
_RECORD = "done.json"
_NOT_SEALED = re.compile(
    r"(?:^|/)(?:\.|(?:inputs|manifest|trials|digests|done)\.json$|shard-\d+\.parquet$|state|checkpoint)|\.damaged$|\.db$"
)
"""Shards have their digests in the manifest; states are for going on; manifest and trials are described again by their stages."""


def _check_name(name: str) -> str:
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError(f"{name!r} is no path of a file in the folder")
    return name


class Digests(RootModel[dict[Annotated[str, AfterValidator(_check_name)], str]]):
    """Sha256 of every file of a stage's folder, by its path in it."""


def seal(folder: Location, record: bytes) -> None:
    """Write down the digests of what a stage left, before its record, whose bytes are given."""
    found = {name: _digest(folder / name) for name in _names(folder)}
    (folder / _SEAL).write_model(Digests({**found, _RECORD: hashlib.sha256(record).hexdigest()}))


def remove_altered(folder: Location, say: Callable[[str], object]) -> bool:
    """Remove what is not as the finished stage left it, and return whether anything was altered or lost.

    Folders without digests, of older versions, are taken as they are.

    Args:
        folder: Of a stage.
        say: Told which files.
    """
    file = folder / _SEAL
    if not file.exists():
        return False
    try:
        expected = file.read_model(Digests).root
    except AlteredError:
        say(f"{file} was altered: what {folder} holds is made anew.")
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
    """Let files of a finished stage be written again in the block, and write down their digests after it.

    If the block is broken off, the folder is one without digests, and is taken as it is.
    """
    (folder / _SEAL).delete_file()
    yield
    seal(folder, (folder / _RECORD).read_bytes())


def check_unaltered(folder: Location, names: Iterable[str]) -> None:
    """Make sure that files are as the finished stage left them, for whoever reads them from elsewhere; nothing is removed.

    Args:
        folder: Of a stage. One without digests, of an older version, is taken as it is.
        names: Of files in it.

    Raises:
        AlteredError: one of them, or the list of digests, is not.
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
    """Remove a file of the folder. What a link in the folder leads to is somebody else's, and stays."""
    above = (folder / name).path.rpartition("/")[0]
    if not folder.is_local or Path(above).resolve().is_relative_to(Path(folder.path).resolve()):
        (folder / name).delete_file()


def _names(folder: Location) -> list[str]:
    selector = fs.FileSelector(folder.path, recursive=True, allow_not_found=True)
    infos = [info for info in folder.filesystem.get_file_info(selector) if info.type == fs.FileType.File]
    names = [info.path.removeprefix(folder.path).lstrip("/") for info in infos]
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
