"""Students that were trained beside the images: their weights in files of the set's folder."""

from __future__ import annotations

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from dfnas_ray.errors import StorageError, first_line
from dfnas_ray.ops.networks import evaluation_mode
from dfnas_ray.storage.altered import Say, is_intact
from dfnas_ray.storage.location import REMEDY, Location
from dfnas_ray.storage.shards import read_info, shard_name
from dfnas_ray.synthesis.job import ShardJob
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.teachers.fresh import fresh_copy

_DIFFERS = "student_differs"  # in the curves of shards
_LAST_BATCHES = 10


def student_file(folder: Location, number: int) -> Location:
    """Return the file with the weights of a stream's student."""
    return folder / f"student-{number}.safetensors"


def write_students(job: ShardJob, teacher: Teacher) -> None:
    """Write the weights of every student of a finished set, from the states of its last shards.

    If such a state is gone, the file that was written before is left as it is.
    """
    for number, shard in enumerate(job.ends if job.config.method.has_student else []):
        if not job.has_state(shard):
            continue
        network = job.config.method.load_student(job.state(shard), teacher)
        weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
        student_file(job.folder, number).write_bytes(save(weights))


def student_agreement(job: ShardJob) -> float | None:
    """Return how often students named the teacher's class on their last batches, before they learned from them.

    Return None if no student has learned anything.
    """
    differences = []
    for shard in job.ends if job.config.method.has_student else []:
        curves = read_info(job.folder / shard_name(shard)).curves
        known = [point["losses"][_DIFFERS] for points in curves for point in points if _DIFFERS in point["losses"]]
        differences += known[-_LAST_BATCHES:]
    return round(1 - sum(differences) / len(differences), 6) if differences else None


def lost_students(job: ShardJob, say: Say) -> list[int]:
    """Return the last shards of the chains whose students are lost: neither the file nor the state can be read."""
    ends = job.ends if job.config.method.has_student else []
    return [shard for number, shard in enumerate(ends) if not job.has_state(shard) and not _is_intact(job, number, say)]


def _is_intact(job: ShardJob, number: int, say: Say) -> bool:
    file = student_file(job.folder, number)
    return is_intact(lambda: _read(file), say)


def load_student(folder: Location, number: int, teacher: Teacher) -> nn.Module:
    """Return a student, in evaluation mode: the teacher's network with weights of its own.

    Raises:
        StorageError: the file is missing, truncated, or was altered; says what to do.
    """
    file, network = student_file(folder, number), fresh_copy(teacher.model)
    try:
        network.load_state_dict(_read(file))
    except (RuntimeError, ValueError, KeyError) as error:
        raise _damaged(file, error) from error
    return evaluation_mode(network)


def _read(file: Location) -> dict[str, Tensor]:
    if not file.exists():
        raise StorageError(f"{file} is missing.{REMEDY}")
    data = file.read_bytes()
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise _damaged(file, error) from error


def _damaged(file: Location, error: Exception) -> StorageError:
    return StorageError(f"{file} is truncated, or was altered ({first_line(error)}).{REMEDY}")
