"""The common parts of the sources of published networks: optional packages, files of a hub, and what users override."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field

from dfnas_ray.errors import TeacherError
from dfnas_ray.teachers.base import ImageShape, TeacherSourceConfig

_RETRIES = "huggingface_hub.utils._http"  # logs two lines for each of five attempts


class PublishedTeacherConfig(TeacherSourceConfig):
    """A published network, which brings its input shape and statistics; the user may override them."""

    image_shape: ImageShape | None = Field(
        None, description="(channels, height, width) of one input, if it is not the published one."
    )
    mean: tuple[float, ...] | None = Field(
        None, description="Mean of the pixels in [0, 1], one number per channel, if it is not the published one."
    )
    std: tuple[float, ...] | None = Field(None, description="Standard deviation of the same pixels, likewise.")


def missing_extra(kind: str, package: str) -> TeacherError:
    """Return the error for a source whose package is not installed."""
    return TeacherError(f"teacher.kind {kind} needs {package}. Install it: pip install 'dfnas-ray[{kind}]'.")


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Silence the hub's log of its attempts while the block runs. If they fail, one error says so."""
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
        repository: Name of the repository, such as ``timm/resnet18.a1_in1k``.
        names: Possible names of the file. The first one that exists is taken.

    Raises:
        OSError: there is none, or it cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for name in names:  # first without the network, which may be slow or missing
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
