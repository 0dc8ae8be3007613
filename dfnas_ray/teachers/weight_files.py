"""Weights from files of unknown origin: the bytes decide the format, no code runs, and errors name other formats."""

from __future__ import annotations

import codecs
import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from dfnas_ray.errors import TeacherError, first_line, printable, shortened

logger = logging.getLogger(__name__)

StateDict: TypeAlias = dict[str, Any]
"""Tensors by name. Names that end in ``_extra_state`` may have values of any type."""

USUAL = ("state_dict", "model_state_dict", "model", "net", "network", "params", "weights")
"""Usual keys of the weights in a checkpoint. They are preferred to other keys, such as those of averaged weights."""
_MAX_WRAPPERS = 6
_MAX_STAND_INS = 100
_HEAD_BYTES = 512
_MAX_HEADER = 100_000_000  # the limit of safetensors itself
_WEIGHT_SUFFIXES = (".pt", ".pth", ".th", ".bin", ".ckpt", ".safetensors")
_MAGIC = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras writes",
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"BZh": "a bzip2 archive: unpack it",
    b"\xfd7zXZ\x00": "an xz archive: unpack it",
    b"7z\xbc\xaf'\x1c": "a 7-Zip archive: unpack it",
    b"Rar!": "a RAR archive: unpack it",
    b"(\xb5/\xfd": "a Zstandard archive: unpack it",
    b"GGUF": "a GGUF file",
    b"MATLAB": "a MATLAB file",
    b"\x93NUMPY": "a NumPy array",
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF document",
}

_ZIPPED = {".npy": "an archive of NumPy arrays (.npz)", ".weights.h5": "a Keras model"}


def read_state_dict(path: Path, part: str | None = None) -> StateDict:
    """Return the weights of a safetensors or torch file, without running any code from it.

    A checkpoint that holds more than weights is searched. If there are several sets of weights, the set under a usual
    key is taken, and a warning names the others.

    Args:
        path: The file. Its name does not matter.
        part: Which weights to take: the keys that lead to them, such as ``ema.state_dict``, or the prefix of their
            names.

    Raises:
        TeacherError: the file is missing, is not a checkpoint, holds no such weights, or would have to run code to load.
    """
    _check_is_file(path)
    content = _load(path)
    sets = dict(_state_dicts(content))
    if part is not None:
        return _part(sets, part, path)
    if not sets:
        raise TeacherError(f"The checkpoint {path} {_what_it_holds(content)}.")
    usual = [keys for keys in sets if all(key in USUAL for key in keys.split(".") if key)]
    if len(sets) > 1 and not usual:
        raise TeacherError(
            f"The checkpoint {path} holds several sets of weights: {_listed(sets)}. Choose one with teacher.weights."
        )
    chosen = min(usual or sets, key=lambda keys: [USUAL.index(key) for key in keys.split(".") if key in USUAL])
    others = [keys for keys in sets if keys != chosen]
    if others:
        said = "Of %s, the weights under %s are taken; others are under %s (teacher.weights)."
        logger.warning(said, path, chosen, _listed(others))
    return sets[chosen]


def _part(sets: Mapping[str, StateDict], part: str, path: Path) -> StateDict:
    if part in sets:
        return sets[part]
    for keys, state in sets.items():
        prefix = f"{part.removeprefix(f'{keys}.')}."
        found = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if found:
            return found
    firsts = {name.partition(".")[0] for state in sets.values() for name in state}
    raise TeacherError(
        f"teacher.weights ({shortened(part, 60)}) is neither a key of the checkpoint {path} nor the beginning of its weights' "
        f"names. Keys with weights: {_listed(sets) or 'none'}; names begin with {_listed(sorted(firsts)) or 'nothing'}."
    )


def _listed(names: Any) -> str:
    listed = [shortened(name, 60) or "the file itself" for name in names]
    return ", ".join([*listed[:6], f"{len(listed) - 6:,} more"] if len(listed) > 6 else listed)


# What the file is


def _check_is_file(path: Path) -> None:
    text = re.sub(r"^([a-z0-9+]{2,}):/(?!/)", r"\1://", str(path))  # a path has one slash where an address has two
    if re.match(r"[a-z0-9+]{2,}://", text):
        raise TeacherError(
            f"teacher.checkpoint {text} is a URL. Nothing is downloaded: fetch the file yourself, and set "
            "teacher.checkpoint to its path."
        )
    try:
        exists, is_file, is_dir = path.exists(), path.is_file(), path.is_dir()
    except OSError as error:
        raise TeacherError(f"The checkpoint {printable(path)} cannot be read: {first_line(error)}.") from error
    if is_dir:
        inside = sorted(each.name for each in path.iterdir() if each.suffix in _WEIGHT_SUFFIXES)
        hint = f" It holds {_listed(inside)}." if inside else ""
        raise TeacherError(f"The checkpoint {path} is a folder.{hint} Set teacher.checkpoint to a file.")
    if exists and not is_file:
        raise TeacherError(f"The checkpoint {path} is a pipe or a device. Set teacher.checkpoint to a file.")
    if not exists:
        raise TeacherError(f"The checkpoint {printable(path)} does not exist. Set teacher.checkpoint to the file.")


def _load(path: Path) -> Any:
    """Return the content of a safetensors or torch file."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        if _is_safetensors(head):
            from safetensors.torch import load_file

            return load_file(path)
        if head.startswith(b"PK\x03\x04"):
            _check_zip(path)
        elif other := _what_else(head):
            raise TeacherError(f"The checkpoint {path} is {other}.")
        return _load_pickled(path)
    except TeacherError:
        raise
    except pickle.UnpicklingError as error:
        if not head.startswith((b"PK\x03\x04", b"\x80")):
            raise _neither(path) from error
        asked = re.search(r"GLOBAL (\S+)", str(error))  # torch's own message is not shown: it advises an unsafe load
        raise TeacherError(
            f"The checkpoint {path} cannot be loaded safely: it holds more than tensors"
            f"{f' ({shortened(asked[1], 60)})' if asked else ''}, and loading it would run code from the file. Save its "
            "state_dict() alone (torch.save(model.state_dict(), ...) or safetensors) where you trust it."
        ) from error
    except Exception as error:  # torch and safetensors raise many kinds for a file that is damaged or of another format
        if head and not head.startswith((b"PK\x03\x04", b"\x80")) and not _is_safetensors(head):
            raise _neither(path) from error
        reason = shortened(first_line(error)).rstrip(".") if head else "it is empty"
        raise TeacherError(f"The checkpoint {path} cannot be read: {reason}.") from error


class StandIn:
    """Stands for an object of a checkpoint that is not a tensor. Its class is neither imported nor called."""

    name = "object"

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        """Ignore the state."""


def _load_pickled(path: Path) -> Any:
    """Return the content of a torch file, with stand-ins for objects such as settings, NumPy numbers and paths.

    Raises:
        pickle.UnpicklingError: it can only be loaded by calling functions.
    """
    stand_ins: dict[str, type] = {}
    refusal: pickle.UnpicklingError | None = None
    while True:
        safe: list[Any] = [(stand_in, name) for name, stand_in in stand_ins.items()]
        try:
            with path.open("rb") as file, warnings.catch_warnings(), torch.serialization.safe_globals(safe):
                warnings.simplefilter("ignore")  # a damaged file may seem to have an unknown pickle protocol
                # A file object, because torch decides by the name of a path.
                content = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            asked = re.search(r"GLOBAL (\S+) was not", str(error))
            is_builtin = asked is not None and "." not in asked[1]  # such as eval or getattr, which hold no data
            if asked is None or is_builtin or asked[1] in stand_ins or len(stand_ins) == _MAX_STAND_INS:
                raise
            stand_ins[asked[1]] = type("StandIn", (StandIn,), {"name": asked[1]})
            refusal = refusal or error
        except Exception:
            if refusal is None:
                raise
            raise refusal from None  # a tensor needs an object that was replaced by a stand-in
        else:
            if stand_ins:
                logger.info("Of %s, objects are left out: %s.", path, _listed(stand_ins))
            return content


def _neither(path: Path) -> TeacherError:
    return TeacherError(
        f"The checkpoint {path} is neither a torch file nor .safetensors. Set teacher.checkpoint to the weights."
    )


def _is_safetensors(head: bytes) -> bool:
    """Return whether a file begins with the length of a JSON header and the header, which may be cut off."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _MAX_HEADER


def _what_else(head: bytes) -> str | None:
    """Return what a file is and what to do, if its first bytes show that it is not a checkpoint."""
    if head.startswith(b"version https://git-lfs"):
        return (
            "a Git LFS pointer, not a checkpoint: the weights themselves were not fetched. Run `git lfs pull` in its repository, "
            "or download the file again"
        )
    if head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<"):
        return (
            "a web page (HTML), not a checkpoint. Download it again, from the address of the file itself, or set "
            "teacher.checkpoint to another file"
        )
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it"
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite file"
    if head[:1] == b"\x08" and head[2:3] == b"\x12" and head[3:4] <= b"\x20":  # its version, and the tool that wrote it
        return "an ONNX file: a program, not the weights of a torch network"
    if head.lstrip().startswith(b"{") and (b'"weight_map"' in head or b'"metadata"' in head):
        return "the index of a checkpoint in several files: load them with what wrote them, and save one state_dict()"
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def _check_zip(path: Path) -> None:
    """Make sure that a zip archive is one of torch's own.

    Raises:
        TeacherError: it holds a program or something else.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("constants.pkl") for name in names):
        raise TeacherError(
            f"The checkpoint {path} is a TorchScript archive: a program, which is not run. Save the weights alone where you "
            "trust it: torch.save(torch.jit.load(FILE).state_dict(), ...)."
        )
    if any(name.endswith("archive_format") for name in names):
        raise TeacherError(
            f"The checkpoint {path} is a torch.export archive: a program, which is not run. Save the weights alone where you "
            "trust it: torch.save(torch.export.load(FILE).state_dict, ...)."
        )
    if others := [what for end, what in _ZIPPED.items() if any(name.endswith(end) for name in names)]:
        raise TeacherError(f"The checkpoint {path} is {others[0]}.")
    if not any(name.endswith("data.pkl") for name in names):
        inside = [name for name in names if name.endswith(_WEIGHT_SUFFIXES)] or names
        raise TeacherError(f"The checkpoint {path} is a zip archive that holds {_listed(inside)}: unpack it.")


# What it holds


def _state_dicts(
    content: Any, keys: tuple[str, ...] = (), seen: frozenset[int] = frozenset()
) -> Iterator[tuple[str, StateDict]]:
    """Yield every state dict, with the keys that lead to it joined by dots. No state dict is searched for others."""
    if not isinstance(content, Mapping) or len(keys) > _MAX_WRAPPERS or id(content) in seen:
        return
    if _is_state_dict(content):
        yield ".".join(keys), dict(content)
        return
    within = [
        one
        for key, inner in content.items()
        if isinstance(key, str)
        for one in _state_dicts(inner, (*keys, key), seen | {id(content)})
    ]
    yield from within
    weights = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not within and _is_state_dict(weights):  # there may be a number of epochs among them, for instance
        yield ".".join(keys), weights


def _is_state_dict(values: Mapping[Any, Any]) -> bool:
    tensors = [name for name, value in values.items() if isinstance(value, Tensor)]
    return bool(tensors) and all(
        isinstance(name, str) and (isinstance(value, Tensor) or name.endswith("_extra_state"))
        for name, value in values.items()
    )


def _what_it_holds(content: Any) -> str:
    if isinstance(content, StandIn):
        return (
            f"holds a whole {shortened(content.name, 60)} object; loading it would run code from the file. Save its state_dict() "
            "alone (torch.save(model.state_dict(), ...) or safetensors) where you trust it"
        )
    if isinstance(content, Mapping):
        keys = shortened(repr(list(content)[:10]), 200)
        objects = sorted({value.name for value in content.values() if isinstance(value, StandIn)})
        beside = f", and it holds objects that are not tensors: {_listed(objects)}" if objects else ""
        return f"holds no weights under {', '.join(USUAL)} or another key; its keys are {keys}{beside}"
    return f"holds a {type(content).__name__}, not a state dict"
