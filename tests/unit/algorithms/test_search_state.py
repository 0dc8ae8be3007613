"""A search's state in its folder, read on another kind of machine than it was written on. No cluster is started."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import torch

from dfnas_ray.algorithms.config import SearchConfig
from dfnas_ray.algorithms.trials import SearchJob, make_state, restore, save
from dfnas_ray.config.cluster import SearchResources
from dfnas_ray.errors import DfnasError
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.teachers.base import freeze_teacher
from dfnas_ray.teachers.digits import DigitsCNN

CPU = torch.device("cpu")
SPACE = {"stem_channels": 4, "stage_layers": [1, 1], "stage_channels": [8, 16], "head_channels": 16}
ALGORITHMS = [
    {"kind": "spos", "epochs": 3, "batch_size": 16, "calibration_batches": 1},
    {"kind": "darts", "epochs": 3, "batch_size": 16, "order": "second"},
    {"kind": "proxyless", "epochs": 3, "batch_size": 16, "warmup_epochs": 0},
]


def written_on_a_gpu(state: bytes) -> bytes:
    """Return a file of `torch.save` whose storages all say that they were on a GPU."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(state)) as old, zipfile.ZipFile(written, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data.pkl"):
                # A pickled string: its length, then itself; further storages refer to the first one's.
                content = content.replace(b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0")
                assert b"cuda:0" in content
            new.writestr(name, content)
    return written.getvalue()


def beginning(algorithm, folder):
    """A search that has not begun, and a function that makes it again."""
    config = SearchConfig.model_validate(
        {
            "algorithm": algorithm,
            "space": {"kind": "nasbench_macro", **SPACE},
            "max_macs": None,
            "precision": "float32",
        }
    )
    job = SearchJob(config, SearchResources(), 0, None, folder)
    rng = np.random.default_rng(0)
    data = SyntheticImages(
        images=rng.integers(0, 256, (96, 1, 18, 18), dtype=np.uint8),
        labels=np.zeros(96, np.int64),
        rounds=np.zeros(96, np.int64),
        logits=rng.normal(size=(96, 10)).astype(np.float32),
        ids=np.arange(96, dtype=np.uint64),
    )
    torch.manual_seed(0)
    teacher = freeze_teacher("t", DigitsCNN(4), (1, 16, 16), (0.3,), (0.3,))
    return lambda: make_state(job, config.trials[0], teacher, data, CPU)


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm["kind"])
def test_a_search_that_began_on_a_gpu_goes_on_where_there_is_none(tmp_path, algorithm):
    folder = Location.parse(tmp_path)
    begin = beginning(algorithm, folder)
    begun = begin()
    begun.algorithm.train_epoch()
    begun.history.append({"phase": "training", "number": 1})
    save(begun, folder)
    expected = [begun.algorithm.train_epoch(), begun.algorithm.train_epoch()]

    file = folder / "state.pt"
    file.write_bytes(written_on_a_gpu(file.read_bytes()))
    resumed = begin()
    assert restore(resumed, folder) == "after training 1"
    assert [resumed.algorithm.train_epoch(), resumed.algorithm.train_epoch()] == expected


def without_history(state: bytes) -> bytes:
    """Return a state whose network is the later one, and which then breaks off."""
    written = io.BytesIO()
    torch.save({"algorithm": torch.load(io.BytesIO(state), weights_only=True)["algorithm"]}, written)
    return written.getvalue()


DAMAGES = {
    "empty": lambda state: b"",
    "half": lambda state: state[: len(state) // 2],
    "text": lambda state: b"null",
    "no history": without_history,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm["kind"])
def test_a_damaged_state_is_named_once_and_the_search_begins_anew(tmp_path, algorithm, damage, caplog):
    folder = Location.parse(tmp_path)
    begin = beginning(algorithm, folder)
    undisturbed = begin()
    expected = [undisturbed.algorithm.train_epoch(), undisturbed.algorithm.train_epoch()]
    undisturbed.history.append({"phase": "training", "number": 2})
    save(undisturbed, folder)
    damaged = damage((folder / "state.pt").read_bytes())
    (folder / "state.pt").write_bytes(damaged)
    again = begin()
    assert restore(again, folder) == "from its beginning"
    assert [again.algorithm.train_epoch(), again.algorithm.train_epoch()] == expected
    assert caplog.text.count("state.pt is damaged") == 1
    assert (folder / "state.pt.damaged").read_bytes() == damaged
    assert not (folder / "state.pt").exists()


FAR_TOO_FAST = {"lr": 1e30, "clip_norm": 1e30, "warmup_fraction": 0}


@pytest.mark.parametrize(
    ("algorithm", "said"),
    [
        *(
            (each, r"diverged in epoch [12]: its loss is not finite.*search\.algorithm\.optimizer\.lr")
            for each in ALGORITHMS
        ),
        (
            {"kind": "random_search", "candidates": 2, "epochs": 1, "batch_size": 16},
            r"No architecture of this search has a score that is a number.*search\.algorithm\.optimizer\.lr",
        ),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_a_search_that_diverged_has_no_result(tmp_path, algorithm, said):
    with pytest.raises(DfnasError, match=said):
        beginning({**algorithm, "optimizer": FAR_TOO_FAST}, Location.parse(tmp_path))().run()
