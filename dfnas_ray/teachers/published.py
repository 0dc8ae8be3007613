"""What sources of published networks have in common: extras that may be missing, files of a hub, and what the user overrides."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field

from dfnas_ray.errors import TeacherError
from dfnas_ray.teachers.base import ImageShape, TeacherSourceConfig

_RETRIES = "huggingface_hub.utils._http"  # says each of its five tries in two lines


class PublishedTeacherConfig(TeacherSourceConfig):
    """A published network, which knows its own input; the user may know better."""

    image_shape: ImageShape | None = Field(
        None, description="(channels, height, width) of one input, where it is not the published one."
    )
    mean: tuple[float, ...] | None = Field(None, description="Of pixels in [0, 1], where it is not the published one.")
    std: tuple[float, ...] | None = Field(None, description="Likewise.")


def missing_extra(kind: str, package: str) -> TeacherError:
    """Return what to say where a source's package is not installed."""
    return TeacherError(f"teacher.kind {kind} needs {package}. Install it: pip install 'dfnas-ray[{kind}]'.")


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Keep the hub's lines about its tries off the screen: what came of them is one error."""
    log = logging.getLogger(_RETRIES)
    before = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = before


def hub_file(repository: str, names: tuple[str, ...]) -> Path:
    """Return a file of a repository on the Hugging Face Hub: from the local cache, or else downloaded into it.

    Args:
        repository: Such as ``timm/resnet18.a1_in1k``.
        names: Of the file: the first one that is there.

    Raises:
        OSError: there is none, or it cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for name in names:  # without the network, which would be waited for
        if isinstance(found := try_to_load_from_cache(repository, name), str):
            return Path(found)
    for name in names:
        try:
            with quiet_hub():
                return Path(hf_hub_download(repository, name))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            continue
    raise OSError(f"{repository} has none of {', '.join(names)}")
