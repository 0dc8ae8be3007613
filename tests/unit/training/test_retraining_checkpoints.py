"""A checkpoint that was damaged is named, with what to do."""

from __future__ import annotations

import pytest
import torch

from dfnas_ray.errors import StorageError
from dfnas_ray.training.retraining import read_checkpoint

CPU = torch.device("cpu")


def test_a_checkpoint_is_read_as_it_was_written(tmp_path):
    torch.save({"student": {"x": torch.ones(3)}, "history": [{"loss": 1.0}]}, tmp_path / "state.pt")
    read = read_checkpoint(tmp_path / "state.pt", CPU, "bucket/train/checkpoint_1")
    assert read["history"] == [{"loss": 1.0}]
    assert torch.equal(read["student"]["x"], torch.ones(3))


@pytest.mark.parametrize("content", [b"", b"no state", None], ids=["empty", "text", "truncated"])
def test_a_damaged_checkpoint_is_named_with_the_folder_to_delete(tmp_path, content):
    file = tmp_path / "state.pt"
    torch.save({"student": torch.ones(1000)}, file)
    file.write_bytes(file.read_bytes()[:2000] if content is None else content)
    with pytest.raises(StorageError, match=r"bucket/train/checkpoint_1 is damaged .*Delete bucket/train and run again"):
        read_checkpoint(file, CPU, "bucket/train/checkpoint_1")
