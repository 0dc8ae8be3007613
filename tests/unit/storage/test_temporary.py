"""What a command that was killed left half-written: removed by the next one, and nothing else is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dfnas_ray.storage.run_dir import RunDir
from dfnas_ray.storage.temporary import remove_temporary, temporary_name

KEY = "0123456789ab"
OURS = [
    "experiment.yaml", "latest.json", "teacher/digits-w4-e3-s0.safetensors", f"synthesis/{KEY}/inputs.json",
    f"synthesis/{KEY}/shard-00000.parquet", f"search/{KEY}/spos-seed-0/state.pt", "export/network.onnx",
]  # fmt: skip
OTHERS = [
    "notes.tmp", ".notes.tmp", ".notes.0123.tmp", f"x.{'0' * 32}.tmp", f".x.{'g' * 32}.tmp", f".x.{'0' * 32}.tmp.txt",
    f"project/deep/.x.{'0' * 32}.tmp",  # a user's own folder beside: not looked into
]  # fmt: skip


def written(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    return path


def test_what_is_half_written_is_removed_when_the_next_command_begins_and_nothing_else_is(tmp_path):
    left = [written(temporary_name(tmp_path / name)) for name in OURS]
    others = [written(tmp_path / name) for name in [*OTHERS, *OURS]]
    with RunDir(tmp_path).locked():
        assert [path for path in left if path.exists()] == []
        assert [path for path in others if not path.exists()] == []


def test_links_are_not_followed_and_a_folder_of_such_a_name_stays(tmp_path):
    elsewhere = written(temporary_name(tmp_path / "elsewhere" / KEY / "x"))
    run = tmp_path / "run"
    run.mkdir()
    (run / "synthesis").symlink_to(tmp_path / "elsewhere")
    (run / "search").mkdir()
    (run / "search" / KEY).symlink_to(elsewhere.parent)
    folder = temporary_name(run / "y")
    folder.mkdir()
    link = temporary_name(run / "z")
    link.symlink_to(elsewhere)
    remove_temporary(run)
    assert elsewhere.exists()
    assert folder.is_dir()
    assert not link.is_symlink()


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has names that are no text")
def test_names_that_are_no_text_and_lost_folders_hurt_nothing(tmp_path):
    name = os.fsencode(tmp_path) + b"/.\xff." + b"0" * 32 + b".tmp"
    os.close(os.open(name, os.O_CREAT))
    remove_temporary(tmp_path)
    assert not os.path.exists(name)  # noqa: PTH110 - its name may be no text
    remove_temporary(tmp_path / "nowhere")
