"""What is recorded of a ranking: chunks that were altered are named and measured again, the others are kept."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dfnas_ray.ranking.recorded import Recorded
from dfnas_ray.storage.location import Location


@pytest.fixture
def ranking(tmp_path):
    algorithm = SimpleNamespace(figures=("score",))
    job = SimpleNamespace(folder=Location.parse(tmp_path).make_dir())
    return SimpleNamespace(job=job, trial=SimpleNamespace(algorithm=algorithm))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"{}",
        b'{"seconds": -1, "measurements": {}}',
        b'{"seconds": 1, "measurements": {"a": {"score": []}}}',
        b'{"seconds": 1, "measurements": {"a": {"synflow": 1.0}}}',
        b'{"seconds": 1, "measurements": {"a": {}}}',
        b'{"seconds": 1, "measurements": {"a": {"score": 1.0, "epochs": 2}, "b": {"score": 1.0}}}',
    ],
)
def test_an_altered_chunk_is_named_and_missing_and_no_other_is_overwritten(ranking, content):
    recorded, folder, said = Recorded.read(ranking), ranking.job.folder, []
    for text in "abc":
        recorded.add([text], [{"score": 1.0}], 2.0)
    (folder / "measured-00001.json").write_bytes(content)
    again = Recorded.read(ranking, said.append)
    (line,) = said
    assert "measured-00001.json" in line
    assert (again.missing("abc"), again.seconds) == (["b"], 4.0)
    again.add(["b"], [{"score": 3.0}], 2.0)
    assert Recorded.read(ranking).measurements == {"a": {"score": 1.0}, "b": {"score": 3.0}, "c": {"score": 1.0}}


def test_whole_numbers_stay_whole(ranking):
    recorded = Recorded.read(ranking)
    recorded.add(["a"], [{"epochs": 3, "score": float("nan")}], 0.5)
    found = Recorded.read(ranking).measurements["a"]
    assert (repr(found["epochs"]), repr(found["score"])) == ("3", "nan")


@pytest.mark.parametrize("content", [b"", b"null", b"{}", b'{"seconds": "long"}'])
def test_an_altered_time_of_training_is_named_and_counts_as_none(ranking, caplog, content):
    (ranking.job.folder / "training.json").write_bytes(content)
    assert Recorded.read(ranking).training_seconds == 0.0
    assert "training.json" in caplog.text
