"""Images by a generator, the whole way: the same bytes whatever happens in between, and a student that is a result."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dfnas_ray.errors import SynthesisError
from dfnas_ray.synthesis.generator.stream import Stream
from dfnas_ray.workflow import run as order
from dfnas_ray.workflow.session import Session

METHOD = (
    "{kind: generator, batch_size: 20, width: 4, streams: 2, adaptation_steps: 2, "
    "student: {steps: 2, batch_size: 8, warmup_batches: 1}}"
)
SETTINGS = (
    "synthesis.num_shards=4",
    "synthesis.images_per_shard=40",
    f"synthesis.method={METHOD}",
    "synthesis.regularizers.adversarial.weight=1",
)


@pytest.fixture
def synthesize(tiny_experiment, address):
    """Return a function that makes a small set in a folder with the executor."""

    def run(folder: Path, *settings: str):
        config = tiny_experiment(folder, f"cluster.address={address}", *SETTINGS, *settings)
        with Session(config).opened() as session:
            return order.synthesize(session)

    return run


def digests(folder: Path) -> dict[str, str]:
    names = ("shard-*.parquet", "manifest.json", "quality.json", "student-*.safetensors")
    files = sorted(file for name in names for file in folder.glob(f"synthesis/*/{name}"))
    assert len(files) == 4 + 2 + 2
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def undisturbed(tiny_experiment, tmp_path_factory):
    """A set that was made in one process, without a break."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with Session(tiny_experiment(folder, "cluster.address=inline", *SETTINGS)).opened() as session:
        order.synthesize(session)
    return folder


def break_off(monkeypatch, after: int) -> None:
    """Let the command end in the middle of a shard, after so many batches."""
    made, original = [], Stream.make_batch

    def make_batch(stream, classes, on_steps):
        if len(made) == after:
            monkeypatch.setattr(Stream, "make_batch", original)
            raise KeyboardInterrupt
        made.append(classes)
        return original(stream, classes, on_steps)

    monkeypatch.setattr(Stream, "make_batch", make_batch)


@pytest.mark.parametrize("address", ["inline"])
@pytest.mark.parametrize("after", [1, 3, 5, 7])
def test_a_set_that_broke_off_ends_with_the_same_bytes(synthesize, undisturbed, tmp_path, monkeypatch, after):
    break_off(monkeypatch, after)
    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path)
    synthesize(tmp_path)
    assert digests(tmp_path) == digests(undisturbed)


def test_the_executor_does_not_matter(synthesize, undisturbed, tmp_path):
    synthesize(tmp_path, "cluster.synthesis.actors=2")
    assert digests(tmp_path) == digests(undisturbed)


@pytest.mark.parametrize("address", ["inline"])
@pytest.mark.parametrize("lost", ["student-1.safetensors", "shard-00002.parquet", "manifest.json"])
def test_what_is_lost_of_a_finished_set_is_made_again_with_the_same_bytes(synthesize, undisturbed, tmp_path, lost):
    synthesize(tmp_path)
    (file,) = tmp_path.glob(f"synthesis/*/{lost}")
    file.unlink()
    outcome = synthesize(tmp_path)
    assert not outcome.reused
    assert digests(tmp_path) == digests(undisturbed)
    assert synthesize(tmp_path).reused


@pytest.mark.parametrize("address", ["inline"])
def test_a_damaged_state_costs_its_stream_and_nothing_else(synthesize, undisturbed, tmp_path, monkeypatch, caplog):
    break_off(monkeypatch, 3)  # shard 0 is whole, shard 2, which goes on from it, is not
    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path)
    (state,) = tmp_path.glob("synthesis/*/state-00000.pt")
    state.write_bytes(state.read_bytes()[:-1] + b"?")
    synthesize(tmp_path)
    assert "is not the state that shard 0 left" in caplog.text
    assert digests(tmp_path) == digests(undisturbed)


@pytest.mark.parametrize("address", ["inline"])
def test_a_stream_that_fails_leaves_the_other_one_alone(synthesize, undisturbed, tmp_path, monkeypatch):
    original = Stream.make_batch

    def make_batch(stream, classes, on_steps):
        if stream.number == 1:
            raise SynthesisError("The synthesis loss is not finite in batch 0.")
        return original(stream, classes, on_steps)

    monkeypatch.setattr(Stream, "make_batch", make_batch)
    with pytest.raises(SynthesisError) as failure:
        synthesize(tmp_path)
    assert "2 of 4 shards could not be made (shard 1: Shard 1: The synthesis loss is not finite" in str(failure.value)
    assert "shard 3: it continues from shard 1, which failed" in str(failure.value)
    assert sorted(file.name for file in tmp_path.glob("synthesis/*/shard-*")) == [
        "shard-00000.parquet",
        "shard-00002.parquet",
    ]
    monkeypatch.undo()
    synthesize(tmp_path)
    assert digests(tmp_path) == digests(undisturbed)


@pytest.mark.parametrize("address", ["inline"])
def test_the_students_are_measured_beside_the_networks_found(tiny_experiment, address, tmp_path):
    config = tiny_experiment(
        tmp_path,
        f"cluster.address={address}",
        *SETTINGS,
        "search.algorithm={kind: random_search, candidates: 1, epochs: 1, batch_size: 16}",
        "retraining.baseline=false",
    )
    with Session(config).opened() as session:
        record = order.run(session)["evaluation"].record
    assert list(record.in_order) == ["teacher", "student", "retraining", "student-2"]
    assert record.networks["student"].params == record.networks["teacher"].params
